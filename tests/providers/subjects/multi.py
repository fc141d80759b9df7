"""Sets of several KEKs: a fake KMS and a KEK file, and two fake ones whose faults strike both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from keystead.ports import (
    Closes,
    DescribesKeys,
    GeneratesDataKeys,
    KeepsWraps,
    KmsProvider,
    RewrapsCiphertexts,
    RotatesKeys,
)
from keystead.providers.local.kek_file import create_kek_file
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.testing import FakeKMS
from tests.providers.subjects.fake import FakeFaults
from tests.providers.subjects.subject import Harness, Subject

CAPABILITIES: Final = frozenset({KeepsWraps, Closes, DescribesKeys, GeneratesDataKeys, RewrapsCiphertexts, RotatesKeys})
SIZES: Final = (0, 1, 32, 4096, 300_000)
TOO_LONG: Final = 64 * 1024 * 1024 + 1


class FaultsOfAll:
    """Every switch is turned at each of several fakes."""

    def __init__(self, services: list[FakeKMS]) -> None:
        self._services = [FakeFaults(service) for service in services]

    def throttle_next(self, count: int) -> None:
        for service in self._services:
            service.throttle_next(count)

    def fail_next(self, count: int) -> None:
        for service in self._services:
            service.fail_next(count)

    def black_hole(self) -> None:
        for service in self._services:
            service.black_hole()

    def heal(self) -> None:
        for service in self._services:
            service.heal()

    def calls(self) -> int:
        """Return the calls of the member that was asked most often."""
        return max(service.calls() for service in self._services)

    def expire_credentials(self) -> None:
        raise NotImplementedError

    def disable(self, key_id: str) -> None:
        for service in self._services:
            service.disable(key_id)

    def destroy(self, key_id: str) -> None:
        for service in self._services:
            service.destroy(key_id)


def _of_two_kinds(folder: Path, service: Any) -> Subject:
    create_kek_file(folder / "kek")
    members: dict[str, KmsProvider] = {
        "cloud": FakeKMS(),
        "at home": LocalKMSProvider(LocalKMSConfig(path=folder / "kek")),
    }
    return Subject(MultiKMSProvider(members))


def _of_two_fakes(folder: Path, service: Any) -> Subject:
    services = [FakeKMS(), FakeKMS()]
    members = {"north": services[0].provider(), "south": services[1].provider()}
    return Subject(MultiKMSProvider(members), faults=FaultsOfAll(services))


HARNESSES: Final = {
    "multi": Harness(
        _of_two_kinds,
        capabilities=CAPABILITIES,
        sizes=SIZES,
        too_long=TOO_LONG,
        rotates=True,
        answers_key_id=False,
    ),
    "multi-fakes": Harness(
        _of_two_fakes,
        capabilities=CAPABILITIES,
        faults=frozenset({"throttle_next", "fail_next", "black_hole", "disable", "destroy"}),
        sizes=SIZES,
        too_long=TOO_LONG,
        rotates=True,
        answers_key_id=False,
    ),
}
