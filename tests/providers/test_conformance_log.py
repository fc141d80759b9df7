"""Every provider under a tamper-evident log: session keys drawn through it, and checkpoints signed by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from keystead.ledger import KmsCheckpointSigner, SealedFile, TrustPolicy, Verifier, VerifyReport
from keystead.model import SignatureAlgorithm
from keystead.ports import ComputesMacs, DescribesKeys, GeneratesDataKeys, RotatesKeys
from keystead.providers.guard import GuardedProvider
from tests.providers.harnesses import HARNESSES, subjects
from tests.providers.subjects.subject import Subject

STREAM = "example.org/app"
INSTANCE = "cloud"

each_algorithm = pytest.mark.parametrize(
    ("subject", "algorithm"),
    [(name, algorithm) for name, harness in HARNESSES.items() for algorithm in harness.algorithms],
    indirect=["subject"],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def guarded(subject: Subject) -> GuardedProvider:
    return GuardedProvider(subject.provider, INSTANCE)


def opened(path: Path, subject: Subject, **options: Any) -> SealedFile:
    return SealedFile(path, stream=STREAM, kms=guarded(subject), key_id=subject.key_id, **options)


def verified(path: Path, policy: TrustPolicy, subject: Subject) -> VerifyReport:
    """Verify as somebody else does, who has a policy and a KMS."""
    reopened = TrustPolicy.from_dict(policy.to_dict())
    return Verifier(reopened, {INSTANCE: guarded(subject)}).verify(path, expect_closed=True)


@subjects(GeneratesDataKeys)
async def test_a_log_is_sealed_under_a_session_key_of_the_kms(subject: Subject, path: Path) -> None:
    with opened(path, subject) as log:
        log.append(b'"paid 10"')
        policy = log.trust_policy()
    assert verified(path, policy, subject).valid
    with opened(path, subject) as log:
        log.append(b'"paid 20"')
    report = verified(path, policy, subject)
    assert (report.valid, report.closed, report.errors) == (True, True, [])
    path.write_bytes(path.read_bytes().replace(b"paid 10", b"paid 99"))
    assert not verified(path, policy, subject).valid


@subjects(GeneratesDataKeys)
async def test_a_session_key_that_is_moved_to_another_stream_is_refused(subject: Subject, path: Path) -> None:
    with opened(path, subject) as log:
        log.append(b"1")
        policy = log.trust_policy()
    path.write_bytes(path.read_bytes().replace(STREAM.encode(), b"example.org/pay"))
    assert not verified(path, TrustPolicy("example.org/pay", policy.keys, policy.signers), subject).valid


@subjects(RotatesKeys, DescribesKeys, GeneratesDataKeys, rotates=True)
async def test_records_of_before_and_after_a_rotation_of_the_kms_key_verify(subject: Subject, path: Path) -> None:
    with opened(path, subject, checkpoint_s=600.0) as log:
        log.append(b"1")
        log.checkpoint()
        await cast(RotatesKeys, subject.provider).rotate_key(subject.key_id)
    with opened(path, subject) as log:
        log.append(b"2")
        policy = log.trust_policy()
    assert path.read_bytes().count(b'"algorithm":"HMAC-SHA256"') == 2
    assert verified(path, policy, subject).valid


@each_algorithm
async def test_a_kms_signs_the_checkpoints_of_a_log(
    subject: Subject, algorithm: SignatureAlgorithm, path: Path
) -> None:
    key_id = subject.signing_keys[algorithm]
    signer = KmsCheckpointSigner(guarded(subject), key_id, STREAM, algorithm=algorithm)
    with SealedFile(path, stream=STREAM, kms=None, signer=signer) as log:
        log.append(b'"paid 10"')
        policy = log.trust_policy()
    # A public key is all that a reader needs.
    assert Verifier(policy).verify(path, expect_closed=True).valid
    path.write_bytes(path.read_bytes().replace(b"paid 10", b"paid 99"))
    assert not Verifier(policy).verify(path).valid


@subjects(ComputesMacs, DescribesKeys, encrypts=None)
async def test_a_kms_makes_macs_of_the_checkpoints_of_a_log(subject: Subject, path: Path) -> None:
    signer = KmsCheckpointSigner(
        guarded(subject), subject.mac_key_id, STREAM, algorithm=SignatureAlgorithm.HMAC_SHA_256
    )
    with SealedFile(path, stream=STREAM, kms=None, signer=signer) as log:
        log.append(b'"paid 10"')
        policy = log.trust_policy()
    assert verified(path, policy, subject).valid
    path.write_bytes(path.read_bytes().replace(b"paid 10", b"paid 99"))
    assert not verified(path, policy, subject).valid
