from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keystead.ports import Closes
from keystead.providers.guard import GuardedProvider
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.providers.harnesses import HARNESSES
from tests.providers.stubs import Guarded
from tests.providers.subjects.subject import Harness, Subject
from tests.services.aws import aws_environment, ministack, moto
from tests.services.azure import azure
from tests.services.gcp import cloud_kms
from tests.services.keystead_server import keystead_server
from tests.services.openbao import openbao, own_openbao, sealable_openbao
from tests.services.softhsm import softhsm

__all__ = [
    "aws_environment",
    "azure",
    "cloud_kms",
    "keystead_server",
    "ministack",
    "moto",
    "openbao",
    "own_openbao",
    "sealable_openbao",
    "softhsm",
]


@pytest.fixture
def kms(clock: FakeClock) -> FakeKMS:
    return FakeKMS(clock=clock)


@pytest.fixture
def guarded(kms: FakeKMS, clock: FakeClock) -> Guarded:
    return GuardedProvider(kms.provider("fake"), "cloud", clock=clock)


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login for every host, in the file where programs look for them."""
    file = tmp_path / "netrc"
    file.write_text("default login anonymous password guest\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))


@pytest.fixture
def harness(request: pytest.FixtureRequest) -> Harness:
    """The harness that ``subjects(...)`` chose."""
    name: str = request.node.callspec.params["subject"]
    return HARNESSES[name]


@pytest.fixture
async def subject(harness: Harness, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    """A provider of that harness, its service running and its faults off."""
    service = None if harness.service is None else request.getfixturevalue(harness.service)
    made = harness.make(tmp_path, service)
    yield made
    if made.faults is not None:
        made.faults.heal()
    if isinstance(made.provider, Closes):
        await made.provider.aclose()
