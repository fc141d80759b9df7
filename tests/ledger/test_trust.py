"""What a policy asks of a log, and what a log that does not come up to it is called."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.errors import ConfigurationError, CouldNotVerifyError, InvalidInputError, KeyNotFoundError
from keystead.ledger import ErrorType, SealedFile, TrustPolicy, Validity, Verifier
from keystead.ledger.format.records import Kind, parse_line
from keystead.ledger.format.tags import SessionKey
from keystead.ledger.reading import checking
from keystead.ledger.tlog.cosignature import WitnessSigner
from keystead.ledger.tlog.note import Note
from keystead.ledger.witness.client import with_cosignatures
from keystead.ledger.writing.sealer import Sealer
from keystead.testing import FakeKMS
from tests.ledger.files import STREAM, opened, verified
from tests.ledger.logs import chained, kinds

WITNESS = WitnessSigner("witness.example.org", Ed25519PrivateKey.from_private_bytes(bytes(32)))


def test_a_chain_that_nobody_signed_is_anybodys(path: Path) -> None:
    with SealedFile(path, stream=STREAM, kms=None) as log:
        log.append(b"1")
        policy = log.trust_policy()
    assert Verifier(policy).verify(path, expect_closed=True).errors == []
    forger = Sealer(STREAM, chained("forged"), None)
    path.write_bytes(forger.file(1, 0) + forger.seal([b'"forged"'], 1))
    assert kinds(Verifier(policy).verify(path)) == ["untrusted"]


def test_tags_that_no_key_checks_are_anybodys_too(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        policy = dataclasses.replace(log.trust_policy(), keys=())
    lines = path.read_bytes().splitlines(keepends=True)
    assert Verifier(policy).verify(path, expect_closed=True).errors == []
    path.write_bytes(b"".join(lines[:2]))
    assert kinds(Verifier(policy).verify(path)) == ["untrusted"]


def test_a_shared_key_alone_checks_tags_and_closing(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        policy = dataclasses.replace(log.trust_policy(), signers=())
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.closed, report.vouched) == ([], True, 0)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], lines[1].replace(b'"d":1', b'"d":2'), *lines[2:]]))
    assert kinds(verified(path, kms, policy)) == ["modified"]


def test_a_key_that_is_trusted_in_two_spans_of_time_is_trusted_in_either(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        policy = log.trust_policy()
    (key,) = policy.keys
    spans = [dataclasses.replace(key, validity=Validity(*span)) for span in ((None, 1000), (1001, None))]
    for keys in (spans, spans[::-1]):
        assert verified(path, kms, dataclasses.replace(policy, keys=tuple(keys))).errors == []
    assert "untrusted" in kinds(verified(path, kms, dataclasses.replace(policy, keys=tuple(spans[:1] * 2))))


def test_a_policy_is_on_disk_when_it_was_saved_and_the_one_before_until_then(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path, kms) as log:
        policy = log.trust_policy()
    file = path.with_name("policy.json")
    policy.save(file)
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="cannot be written: No space"):
        dataclasses.replace(policy, signers=()).save(file)
    assert (len(synced), TrustPolicy.load(file)) == (1, policy)


def test_a_chain_is_not_closed_by_a_checkpoint_that_nobody_is_asked_to_have_signed(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        policy = dataclasses.replace(log.trust_policy(), signers=(), algorithms=("HMAC-SHA256", "SHA-256"))
    assert verified(path, kms, policy, expect_closed=True).errors == []
    forger = Sealer(STREAM, chained("forged"), None)
    forged = forger.file(1, 0) + forger.seal([b'"forged"'], 1) + forger.control(Kind.CLOSE, {}, 1)
    path.write_bytes(forged + forger.control(Kind.CHECKPOINT, {"note": "anybody's"}, 1))
    report = verified(path, kms, policy)
    assert (kinds(report), report.closed) == (["untrusted"], False)


def witnessed(policy: TrustPolicy) -> TrustPolicy:
    return dataclasses.replace(policy, witnesses=(WITNESS.key,), quorum=1)


def test_a_quorum_is_met_by_a_checkpoint_that_the_reader_has(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        kept = log.checkpoint()
        policy = witnessed(log.trust_policy())
    assert kinds(verified(path, kms, policy)) == ["checkpoint"]
    with pytest.raises(InvalidInputError, match="fewer than 1"):
        verified(path, kms, policy, since=kept)
    cosigned = with_cosignatures(kept, [WITNESS.cosign(Note.parse(kept).text, 1_900_000_000)])
    report = verified(path, kms, policy, since=cosigned)
    assert (report.errors, report.vouched) == ([], 2)


def test_a_checkpoint_that_is_not_witnessed_has_to_be_true_all_the_same(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        kept = log.checkpoint()
        policy = witnessed(log.trust_policy())
    cosigned = with_cosignatures(kept, [WITNESS.cosign(Note.parse(kept).text, 1_900_000_000)])
    line = next(line for line in path.read_bytes().splitlines() if b'"k":"checkpoint"' in line)
    path.write_bytes(path.read_bytes().replace(line, line.replace(b"app\\n2\\n", b"app\\n1\\n")))
    assert not verified(path, kms, policy, since=cosigned).valid


def test_the_log_of_a_worker_is_not_passed_off_as_its_parents(path: Path, kms: FakeKMS) -> None:
    with SealedFile(path, stream=f"{STREAM}/ab12", kms=kms, key_id="audit") as log:
        log.append(b"1")
        policy = dataclasses.replace(log.trust_policy(), stream=STREAM)
    report = verified(path, kms, policy)
    assert report.valid
    assert "forked worker" in report.warnings[0]


def test_lines_that_anybody_writes_cost_no_more_than_a_few_calls_of_the_kms(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        policy = log.trust_policy()
    first, *others = path.read_bytes().splitlines(keepends=True)
    told = json.loads(parse_line(first[:-1]).payload)["session"]
    forged = b"".join(
        b'{"n":%d,"t":%d,"k":"session","d":%b,"m":"%b"}\n'
        % (number, 10**12, json.dumps(told | {"id": f"{number:032x}"}).encode(), b"A" * 43)
        for number in range(1, 500)
    )
    path.write_bytes(first + forged + b"".join(others))
    before = kms.calls["decrypt"]
    assert not verified(path, kms, policy).valid
    assert kms.calls["decrypt"] - before < 100


def test_lines_that_anybody_writes_lead_through_no_more_epochs_than_a_session_has(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        policy = log.trust_policy()
    first, *others = path.read_bytes().splitlines(keepends=True)
    line = b'{"n":%d,"t":%d,"k":"epoch","d":{"epoch":1000},"m":"%b"}\n'
    forged = b"".join(line % (number, 10**12, b"A" * 43) for number in range(1, 100))
    path.write_bytes(first + forged + b"".join(others))
    steps = []
    end_epoch = SessionKey.end_epoch

    def counted(key: SessionKey, number: int, tag: bytes) -> bytes:
        steps.append(number)
        return end_epoch(key, number, tag)

    monkeypatch.setattr(SessionKey, "end_epoch", counted)
    monkeypatch.setattr(checking, "_MOST_STEPS", 5000)
    assert not verified(path, kms, policy).valid
    assert len(steps) <= 5000


def test_a_kms_that_has_lost_the_key_is_quoted_as_it_is(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        policy = log.trust_policy()
    kms.fail_next(2, KeyNotFoundError("there is no key 'audit'"), operation="decrypt")
    with pytest.raises(CouldNotVerifyError, match="did not open a session's key: there is no key 'audit'"):
        verified(path, kms, policy)
    named = dataclasses.replace(policy.keys[0], kms="awskms:///alias/audit")
    with pytest.raises(CouldNotVerifyError, match="did not open a session's key: there is no key 'audit'"):
        verified(path, kms, dataclasses.replace(policy, keys=(named,)))


@pytest.mark.parametrize("key", [b"", b"ks2.", b"ks2.!!", b"ks2.AAAA", b"ks9.AAAA", b"text"])
def test_a_session_whose_key_no_kms_has_wrapped_is_a_finding_and_no_error(path: Path, kms: FakeKMS, key: bytes) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        policy = log.trust_policy()
    path.write_bytes(re.sub(rb'"key":"ks2.[^"]+"', b'"key":"%b"' % key, path.read_bytes(), count=1))
    report = verified(path, kms, policy)
    assert report.errors[0].error_type is ErrorType.UNTRUSTED
    assert "none that a KMS has wrapped" in report.errors[0].message
