"""Logs sealed without a session key, whose checkpoints by a KMS alone say who wrote."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ProviderConnectionError
from keystead.ledger import KmsCheckpointSigner, SealedFile, Verifier
from keystead.ledger.format.records import Kind
from keystead.ledger.writing.resuming import last_state
from keystead.ledger.writing.sealer import Sealer
from keystead.testing import FakeKMS
from tests.ledger.files import STREAM, killed, opened, payloads, until
from tests.ledger.logs import chained, kinds
from tests.ledger.signer_keys import Alone, with_keys

CHECKPOINT = b'"k":"checkpoint"'
OUTAGE = ProviderConnectionError("the network is down")


@pytest.fixture
def kms() -> FakeKMS:
    return with_keys(FakeKMS())


def keyless(path: Path, kms: Any, **options: Any) -> SealedFile:
    return SealedFile(path, stream=STREAM, kms=None, signer=KmsCheckpointSigner(kms, "signer", STREAM), **options)


def test_what_flush_has_returned_for_is_vouched_for(path: Path, kms: FakeKMS) -> None:
    with keyless(path, kms) as log:
        verifier = Verifier(log.trust_policy())
        for number in range(3):
            log.append_many([str(number).encode()] * 5)
            log.flush()
            report = verifier.verify(path)
            assert report.errors == []
            assert not any("anybody's" in each for each in report.warnings)


def test_records_after_the_last_flush_are_told_to_be_anybodys(path: Path, kms: FakeKMS) -> None:
    with keyless(path, kms, buffer_s=0.01, checkpoint_s=3600) as log:
        log.append(b'"flushed"')
        log.flush()
        log.append(b'"not flushed"')
        until(lambda: b"not flushed" in path.read_bytes())
        report = Verifier(log.trust_policy()).verify(path)
        killed(log)
    assert report.valid
    assert any(f"from {report.vouched} on may be anybody's" in each for each in report.warnings)


def test_a_flush_with_nothing_new_signs_nothing(path: Path, kms: FakeKMS) -> None:
    with keyless(path, kms) as log:
        log.append(b"1")
        for _ in range(5):
            log.flush()
        assert kms.calls["sign"] == 1


def test_flushes_that_wait_for_a_signature_share_the_next_one(path: Path, kms: FakeKMS) -> None:
    alone, begins, goes_on = Alone(kms), threading.Event(), threading.Event()

    async def sign(message: bytes, key_id: str, **options: Any) -> Any:
        begins.set()
        await asyncio.to_thread(goes_on.wait)
        return await kms.sign(message, key_id, **options)

    alone.sign = sign
    with keyless(path, alone) as log:

        def write() -> None:
            log.append(b"1")
            log.flush()

        threads = [threading.Thread(target=write) for _ in range(16)]
        threads[0].start()
        begins.wait()
        for thread in threads[1:]:
            thread.start()
        until(lambda: len(payloads(path)) == 16)
        goes_on.set()
        for thread in threads:
            thread.join()
        assert kms.calls["sign"] == 2
        report = Verifier(log.trust_policy()).verify(path)
        assert report.errors == []
        assert not any("anybody's" in each for each in report.warnings)


def test_a_flush_that_must_not_wait_has_a_checkpoint_signed_soon(path: Path, kms: FakeKMS) -> None:
    with keyless(path, kms, checkpoint_s=3600) as log:
        log.append(b"1")
        assert not log.flush(waits=False)
        assert payloads(path) == [1]
        until(lambda: CHECKPOINT in path.read_bytes())
        assert log.flush(waits=False)


def test_a_flush_that_the_kms_does_not_vouch_for_is_an_error_and_loses_nothing(path: Path, kms: FakeKMS) -> None:
    with keyless(path, kms, checkpoint_s=3600) as log:
        policy = log.trust_policy()
        log.append(b"1")
        kms.fail_next(1, OUTAGE)
        with pytest.raises(ProviderConnectionError):
            log.flush()
        assert payloads(path) == [1]
        log.append(b"2")
        log.flush()
    report = Verifier(policy).verify(path, expect_closed=True)
    assert (report.errors, payloads(path)) == ([], [1, 2])


def test_a_log_that_goes_on_without_a_key_while_its_kms_is_away_is_flushed_all_the_same(
    path: Path, kms: FakeKMS
) -> None:
    kms.fail_always()
    with pytest.warns(UserWarning, match="without a key"):
        log = opened(
            path, kms, signer=KmsCheckpointSigner(kms, "signer", STREAM), on_kms_failure="chain", checkpoint_s=3600
        )
    log.append(b"1")
    assert log.flush()
    assert payloads(path) == [1]
    kms.heal()
    log.close()


def test_under_a_session_key_a_flush_signs_nothing(path: Path, kms: FakeKMS) -> None:
    with SealedFile(
        path, stream=STREAM, kms=kms, key_id="aes", signer=KmsCheckpointSigner(kms, "signer", STREAM)
    ) as log:
        log.append(b"1")
        log.flush()
        assert kms.calls["sign"] == 0


def test_no_file_is_called_removed_on_purpose_by_who_has_no_key(path: Path, kms: FakeKMS) -> None:
    """Behind the last checkpoint anybody can go on with a chain that takes no key."""
    with keyless(path, kms) as log:
        policy = log.trust_policy()
        log.append(b"1")
        log.rotate()
        log.append(b"2")
        log.flush()
        killed(log)
    state = last_state(path, STREAM)
    forged = Sealer(STREAM, chained("forged"), None, tree=state.tree, tag=state.tag, time_ms=state.time_ms)
    gone = {"files": [{"file": 1, "first": 0, "last": 3}], "reason": "kept for a year"}
    with path.open("ab") as file:
        file.write(forged.control(Kind.RETENTION, gone, state.time_ms))
    assert Verifier(policy).verify(path).valid
    path.with_name("app.log.000001").unlink()
    assert kinds(Verifier(policy).verify(path)) == ["missing"]


def test_files_that_the_writer_removed_are_not_missing(path: Path, kms: FakeKMS) -> None:
    with keyless(path, kms) as log:
        policy = log.trust_policy()
        log.append(b"1")
        log.rotate()
        log.retire([1], "kept for a year")
        log.append(b"2")
    assert Verifier(policy).verify(path, expect_closed=True).errors == []
