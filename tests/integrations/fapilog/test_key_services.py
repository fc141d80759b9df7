"""Each key service seals through the sink: what it wrote verifies elsewhere, before and after its key was rotated."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keystead.integrations.fapilog import SealedSink
from keystead.integrations.tamper_faces import KeyFace
from keystead.ledger import TrustPolicy, Verifier, VerifyReport
from keystead.ledger.signers.signer import KmsSigner
from keystead.ports import KmsProvider
from keystead.runtime.loop import background_loop
from tests.integrations.fapilog.apps import log_file, messages
from tests.integrations.tamper.conftest import make_place
from tests.integrations.tamper.places import Place
from tests.services.aws import aws_environment, ministack, moto
from tests.services.azure import azure
from tests.services.gcp import cloud_kms
from tests.services.openbao import openbao, own_openbao

__all__ = ["aws_environment", "azure", "cloud_kms", "ministack", "moto", "openbao", "own_openbao"]

# The services of the tests are reached by credentials that somebody has written down.
pytestmark = pytest.mark.filterwarnings("ignore::keystead.errors.HardcodedCredentialWarning")

DATA = ["aws-data", "gcp-data", "azure-data", "vault-data"]
NATIVE = ["aws-sign", "gcp-sign", "azure-sign", "vault-sign", "vault-mac"]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A key in a service."""
    made = make_place(request.param, request, tmp_path)
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    yield made
    made.heal()


@contextmanager
def provider_of(face: KeyFace) -> Iterator[KmsProvider]:
    """Give the KMS beneath a provider, as another host would have it."""
    signer = background_loop.run(face.ready_signer())
    assert isinstance(signer, KmsSigner)
    yield signer.provider
    background_loop.run(face.aclose())


def sink_of(place: Place, folder: Path, **options: Any) -> tuple[SealedSink, KeyFace]:
    face = place.provider()
    return SealedSink(inner_config={"directory": str(folder)}, provider=face, checkpoint_s=0.1, **options), face


def verified_elsewhere(place: Place, folder: Path, policy: TrustPolicy) -> VerifyReport:
    with provider_of(place.provider()) as provider, Verifier(policy, {provider.provider_name: provider}) as verifier:
        return verifier.verify(log_file(folder), expect_closed=True)


@pytest.mark.parametrize("place", DATA, indirect=True)
async def test_session_keys_of_a_service_seal_before_and_after_its_key_is_rotated(place: Place, folder: Path) -> None:
    sink, face = sink_of(place, folder)
    await sink.write({"message": "before"})
    await sink.flush()
    before = await asyncio.to_thread(sink.trust_policy)
    place.rotate()
    for _ in range(200):
        await sink.write({"message": "after"})
        await sink.flush()
        if b'"k":"rekey"' in log_file(folder).read_bytes():
            break
        await asyncio.sleep(0.05)
    after = await asyncio.to_thread(sink.trust_policy)
    await sink.stop()
    await asyncio.to_thread(background_loop.run, face.aclose())
    # Where an alias was moved to another key, readers trust both.
    policy = replace(after, keys=tuple(dict.fromkeys((*before.keys, *after.keys))))
    report = await asyncio.to_thread(verified_elsewhere, place, folder, policy)
    assert (report.errors, report.closed, report.sessions) == ([], True, 2)
    assert set(messages(log_file(folder))) == {"before", "after"}


@pytest.mark.parametrize("place", NATIVE, indirect=True)
async def test_a_service_that_signs_vouches_for_records_before_and_after_its_key_is_rotated(
    place: Place, folder: Path
) -> None:
    sink, face = sink_of(place, folder, use_kms_signing=True)
    await sink.write({"message": "one"})
    await sink.checkpoint()
    before = await asyncio.to_thread(sink.trust_policy)
    place.rotate()
    await sink.write({"message": "two"})
    await sink.checkpoint()
    after = await asyncio.to_thread(sink.trust_policy)
    await sink.stop()
    await asyncio.to_thread(background_loop.run, face.aclose())
    signers = tuple(dict.fromkeys((*before.signers, *after.signers)))
    policy = TrustPolicy(after.stream, (), signers, after.algorithms)
    report = await asyncio.to_thread(verified_elsewhere, place, folder, policy)
    assert (report.errors, report.closed) == ([], True)
    assert messages(log_file(folder)) == ["one", "two"]
