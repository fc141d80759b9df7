"""Writing logs: what is acknowledged is there, and what was written verifies."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    StorageOperationError,
    SystemShutdownError,
)
from keystead.ledger.writing.sealed_file import SealedFile
from keystead.testing import FakeKMS
from tests.ledger.files import STREAM, opened, payloads, until, verified
from tests.ledger.logs import kinds


def test_what_was_written_is_there_and_verifies(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b'{"event":"started"}')
        log.append_many([b"1", b"2"])
        log.append_text('any text, "quoted",\nin two lines')
        policy = log.trust_policy()
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.closed, report.warnings) == ([], True, [])
    assert payloads(path) == [{"event": "started"}, 1, 2, 'any text, "quoted",\nin two lines']


def test_flush_returns_once_records_can_be_read(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, buffer_s=60) as log:
        log.append(b"1")
        assert payloads(path) == []
        log.flush()
        assert payloads(path) == [1]


def test_what_nobody_flushes_is_written_within_its_time(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, buffer_s=0.02) as log:
        log.append(b"1")
        until(lambda: payloads(path) == [1])


def test_a_checkpoint_can_be_kept_and_the_log_is_held_to_it(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        kept = log.checkpoint()
        log.append(b"2")
        policy = log.trust_policy()
    assert verified(path, kms, policy, since=kept).valid
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1]))
    assert kinds(verified(path, kms, policy, since=kept)) == ["rolled_back"]


def test_checkpoints_are_made_after_so_many_records_and_so_much_time(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, checkpoint_records=10, checkpoint_s=3600, buffer_s=0.01) as log:
        log.append_many([b"1"] * 25)
        until(lambda: path.read_bytes().count(b'"k":"checkpoint"') == 1)
    with opened(path, kms, checkpoint_s=0.05, buffer_s=0.01) as log:
        before = path.read_bytes().count(b'"k":"checkpoint"')
        log.append(b"2")
        until(lambda: path.read_bytes().count(b'"k":"checkpoint"') > before)


def test_a_log_goes_on_where_it_ended(path: Path, kms: FakeKMS) -> None:
    for number in range(3):
        with opened(path, kms) as log:
            log.append(str(number).encode())
            policy = log.trust_policy()
    report = verified(path, kms, policy)
    assert (report.errors, report.sessions, payloads(path)) == ([], 3, [0, 1, 2])


def test_two_writers_are_one_too_many(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms), pytest.raises(ConflictError, match="one writer"):
        opened(path, kms)
    opened(path, kms).close()


@pytest.mark.parametrize("content", [b"", b"something else\n", b'{"n":0}\n'])
def test_a_file_that_is_no_log_is_not_written_to(path: Path, kms: FakeKMS, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        opened(path, kms)
    assert path.read_bytes() == content


def test_a_log_of_another_stream_is_not_written_to(path: Path, kms: FakeKMS) -> None:
    opened(path, kms).close()
    with pytest.raises(ConfigurationError, match=r"example\.org/app"):
        SealedFile(path, stream="example.org/other", kms=kms, key_id="audit")


def test_the_signing_key_is_readable_by_its_owner_only(path: Path, kms: FakeKMS) -> None:
    opened(path, kms).close()
    signer = path.with_name("app.log.key")
    assert signer.stat().st_mode & 0o777 == 0o600
    signer.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        opened(path, kms)


def test_many_threads_write_one_log(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, max_bytes=100_000) as log:
        policy = log.trust_policy()
        threads = [threading.Thread(target=lambda: log.append_many([b"1"] * 100)) for _ in range(80)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report = verified(path, kms, policy, expect_closed=True)
    assert report.errors == []
    written = [each for file in path.parent.glob("app.log*") if file.suffix not in {".key", ".lock"} for each in [file]]
    assert sum(len(payloads(file)) for file in written) == 8000


def test_a_closed_log_takes_nothing(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)
    log.close()
    log.close()
    for action in (lambda: log.append(b"1"), log.flush, log.checkpoint, log.rotate):
        with pytest.raises(SystemShutdownError):
            action()
    assert "closed" in repr(log)


@pytest.mark.parametrize(
    "options", [{"epoch_s": 0}, {"checkpoint_records": 0}, {"checkpoint_s": 0}, {"max_bytes": 10}, {"buffer_s": 0}]
)
def test_options_that_cannot_be_are_refused(path: Path, kms: FakeKMS, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        opened(path, kms, **options)


@pytest.mark.parametrize("stream", ["", "line\nend", "x" * 300])
def test_a_stream_has_a_name_that_a_checkpoint_can_hold(path: Path, kms: FakeKMS, stream: str) -> None:
    with pytest.raises(InvalidInputError):
        SealedFile(path, stream=stream, kms=kms, key_id="audit")


def test_a_record_that_cannot_be_is_refused_before_anything_is_written(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        with pytest.raises(InvalidInputError, match="append_text"):
            log.append_many([b"1", b"no json"])
        with pytest.raises(InvalidInputError):
            log.append_text(b"bytes")  # type: ignore[arg-type]
    assert payloads(path) == []


def test_a_forked_worker_writes_a_stream_of_its_own(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b'"parent"')
        child = os.fork()
        if child == 0:
            log.append(b'"child"')
            log.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        log.append(b'"parent again"')
        policy = log.trust_policy()
    (own,) = path.parent.glob("app-*.log")
    assert (payloads(path), payloads(own)) == (["parent", "parent again"], ["child"])
    assert verified(path, kms, policy, expect_closed=True).errors == []
    report = verified(own, kms, policy, expect_closed=True)
    assert (report.errors, report.stream.startswith(f"{STREAM}/")) == ([], True)


@pytest.mark.parametrize(("fsync", "most"), [("flush", 2), ("always", 20), ("never", 0)])
def test_what_is_put_on_disk_is_what_was_asked_for(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch, fsync: Any, most: int
) -> None:
    with opened(path, kms, fsync=fsync, buffer_s=60, checkpoint_s=3600) as log:
        synced: list[int] = []
        monkeypatch.setattr("keystead.ledger.writing.writer.os.fsync", synced.append)
        log.append_many([b"1"])
        log.append_many([b"2"])
        before = len(synced)
        log.flush()
        assert payloads(path) == [1, 2]
        assert (before > 0) is (fsync == "always")
        assert (len(synced) > 0) is (fsync != "never")
        assert len(synced) <= most
        monkeypatch.undo()


def test_what_waits_for_a_full_disk_is_bounded(path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(path, kms, buffer_s=60, checkpoint_s=3600)
    monkeypatch.setattr("keystead.ledger.writing.writer.MAX_UNWRITTEN_BYTES", 1000)
    with monkeypatch.context() as patched:
        patched.setattr(log._log._writer, "_write_some", _full)
        with pytest.raises(StorageOperationError, match="make room"):
            for _ in range(100):
                log.append_many([b'"%b"' % (b"x" * 100)])
    log.close()
    assert len(payloads(path)) < 100


def test_threads_of_a_forked_worker_share_one_stream(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        child = os.fork()
        if child == 0:
            threads = [threading.Thread(target=log.append, args=(b"1",)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            log.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (own,) = path.parent.glob("app-*.log")
    assert payloads(own) == [1] * 8


def _full(file: Any, content: bytes) -> int:
    raise StorageOperationError("the log cannot be written: No space left on device")
