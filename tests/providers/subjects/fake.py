"""The fake KMS that is shipped for users' tests, bare and behind the guard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from keystead.errors import ProviderConnectionError
from keystead.model import SignatureAlgorithm
from keystead.ports import (
    ChecksPermissions,
    Closes,
    ComputesMacBatches,
    ComputesMacs,
    DescribesKeys,
    EncryptsBatches,
    GeneratesDataKeys,
    ReportsRotationPolicy,
    RewrapsCiphertexts,
    RotatesKeys,
    SignsBatches,
    SignsMessages,
    TellsTime,
)
from keystead.providers.guard import GuardedProvider
from keystead.testing import FakeKMS
from tests.providers.subjects.subject import Harness, Subject

CAPABILITIES: Final = frozenset(
    {
        ChecksPermissions,
        Closes,
        ComputesMacBatches,
        ComputesMacs,
        DescribesKeys,
        EncryptsBatches,
        GeneratesDataKeys,
        ReportsRotationPolicy,
        RewrapsCiphertexts,
        RotatesKeys,
        SignsBatches,
        SignsMessages,
        TellsTime,
    }
)


class FakeFaults:
    """The fake's own switches, under the suite's names."""

    def __init__(self, kms: FakeKMS) -> None:
        self._kms = kms

    def throttle_next(self, count: int) -> None:
        self._kms.fail_next(count, ProviderConnectionError("the fake KMS throttles the call", retry_after_s=0.01))

    def fail_next(self, count: int) -> None:
        self._kms.fail_next(count, ProviderConnectionError("the fake KMS is busy"))

    def black_hole(self) -> None:
        self._kms.delay_s = 3600.0

    def heal(self) -> None:
        self._kms.heal()

    def calls(self) -> int:
        return sum(self._kms.calls.values())

    def expire_credentials(self) -> None:
        raise NotImplementedError

    def disable(self, key_id: str) -> None:
        self._kms.disable(key_id)

    def destroy(self, key_id: str) -> None:
        self._kms.destroy(key_id)


def _fake(folder: Path, service: Any) -> Subject:
    kms = FakeKMS()
    signing_keys = {SignatureAlgorithm.ED25519: "signer"}
    return Subject(kms.provider(), mac_key_id="mac", signing_keys=signing_keys, faults=FakeFaults(kms))


def _guarded(folder: Path, service: Any) -> Subject:
    signing_keys = {SignatureAlgorithm.ED25519: "signer"}
    return Subject(GuardedProvider(FakeKMS(), "guarded"), mac_key_id="mac", signing_keys=signing_keys)


HARNESSES: Final = {
    "fake": Harness(
        _fake,
        capabilities=CAPABILITIES,
        faults=frozenset({"throttle_next", "fail_next", "black_hole", "disable", "destroy"}),
        rotates=True,
        algorithms=(SignatureAlgorithm.ED25519,),
    ),
    "guarded-fake": Harness(
        _guarded, capabilities=CAPABILITIES, rotates=True, algorithms=(SignatureAlgorithm.ED25519,)
    ),
}
