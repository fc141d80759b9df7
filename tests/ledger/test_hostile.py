"""What a disk, a link, a thief or a race might do to a log, and did once."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    ConflictError,
    CouldNotVerifyError,
    InvalidInputError,
    KMSError,
    StorageOperationError,
)
from keystead.ledger import LocalSigner, SealedFile, TrustPolicy, Verifier
from keystead.ledger.format.records import parse_line
from keystead.ledger.reading import verifier as verifying
from keystead.ledger.reading.files import LogFiles
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.ledger.files import opened, payloads, until, verified
from tests.ledger.logs import kinds


class FullDisk:
    """A file on a disk that takes nothing until it does again."""

    def __init__(self, log: SealedFile) -> None:
        self.is_full = True
        self._file: Any = log._log._writer._file
        log._log._writer._file = self  # type: ignore[assignment]

    def write(self, content: bytes) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._file.write(content))

    def fileno(self) -> int:
        return int(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def test_a_log_that_could_not_be_closed_at_once_is_closed_once(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)
    policy = log.trust_policy()
    log.append(b"1")
    log.flush()
    disk = FullDisk(log)
    for _ in range(3):
        with pytest.raises(StorageOperationError):
            log.close()
    disk.is_full = False
    log.close()
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.closed) == ([], True)


def test_a_file_that_could_not_be_ended_at_once_is_ended_once(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)
    policy = log.trust_policy()
    disk = FullDisk(log)
    for _ in range(2):
        with pytest.raises(StorageOperationError):
            log.rotate()
    disk.is_full = False
    log.checkpoint()
    log.append(b"2")
    log.close()
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.files) == ([], 2)


def test_what_a_full_disk_does_not_take_was_taken_all_the_same(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)
    policy = log.trust_policy()
    disk = FullDisk(log)
    log.append_many([b"1", b"2"])
    disk.is_full = False
    log.close()
    assert payloads(path) == [1, 2]
    assert verified(path, kms, policy, expect_closed=True).errors == []


def test_a_next_file_that_never_begins_does_not_fill_the_memory(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []
    begun = time.monotonic()

    def never(files: LogFiles, content: bytes) -> Any:
        attempts.append(len(content))
        return _never(files, content)

    log = opened(path, kms, buffer_s=0.01)
    with monkeypatch.context() as patched:
        patched.setattr(LogFiles, "create", never)
        patched.setattr("keystead.ledger.writing.writer.MAX_QUEUED_BYTES", 10_000)
        with pytest.raises(StorageOperationError):
            log.rotate()
        with pytest.raises(StorageOperationError, match="next file"):
            for _ in range(1000):
                log.append(b'"%b"' % (b"x" * 100))
        time.sleep(0.05)
        # Tried again now and then, and not without pause.
        assert len(attempts) < 10 + 2 * (time.monotonic() - begun)
    log.close()


def test_a_flush_says_nothing_is_on_disk_that_waits_for_the_next_file(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(path, kms, buffer_s=60, checkpoint_s=3600)
    with monkeypatch.context() as patched:
        patched.setattr(LogFiles, "create", _never)
        with pytest.raises(StorageOperationError):
            log.rotate()
        log.append(b"1")
        assert not log.flush(waits=False)
        for attempt in (log.flush, log.checkpoint, log.rotate):
            with pytest.raises(StorageOperationError):
                attempt()
    log.flush()
    assert payloads(path) == [1]
    log.close()


def test_epochs_go_on_while_a_next_file_cannot_begin_and_nothing_spins(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    log = opened(path, kms, clock=clock, epoch_s=60)
    policy = log.trust_policy()
    settled: list[float] = []
    settle = log._log._settle

    def counted() -> KMSError | None:
        settled.append(time.monotonic())
        return settle()

    monkeypatch.setattr(log._log, "_settle", counted)
    with monkeypatch.context() as patched:
        patched.setattr(LogFiles, "create", _never)
        with pytest.raises(StorageOperationError):
            log.rotate()
        clock.advance(150)
        with log._log._lock:
            log._log._written_due.notify_all()
        until(lambda: log._log._writer.sealer.session.epoch == 2)
        begun = len(settled)
        time.sleep(0.05)
        assert len(settled) - begun < 10
    log.append(b"1")
    log.close()
    assert verified(path, kms, policy, expect_closed=True).errors == []


def _never(files: LogFiles, content: bytes) -> Any:
    with files.failing("be made"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_was_put_back_to_an_earlier_file_is_not_gone_on_with(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        log.flush()
        early = path.read_bytes()
        log.rotate()
        log.append(b"2")
    ended = path.with_name("app.log.000001")
    kept = ended.read_bytes()
    path.write_bytes(early)
    with pytest.raises(ConfigurationError, match="earlier state"):
        opened(path, kms)
    assert ended.read_bytes() == kept


def test_no_file_is_written_over_by_one_that_ends(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        other = path.with_name("app.log.000001")
        other.write_bytes(b"precious")
        with pytest.raises(StorageOperationError, match="already"):
            log.rotate()
        assert other.read_bytes() == b"precious"
        other.unlink()


def test_a_file_is_retired_although_it_is_being_compressed(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, compress=True, buffer_s=0.01) as log:
        policy = log.trust_policy()
        log.append_many([b'"%b"' % (b"x" * 10_000)] * 100)
        for _ in range(8):
            log.append(b"1")
            log.rotate()
        log.retire(range(1, 9), "too many")
        with log._log._ended._turn:
            assert list(path.parent.glob("app.log.0*")) == []
    assert verified(path, kms, policy, expect_closed=True).errors == []


def test_what_was_removed_is_not_missing_once_the_word_of_it_is_removed_too(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        policy = log.trust_policy()
        for number in range(1, 12):
            log.append(b"1")
            log.rotate()
            log.retire([number], "odd" if number % 2 else "even")
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.files) == ([], 1)
    told = [json.loads(parse_line(line).payload) for line in path.read_bytes().splitlines() if b'"retention"' in line]
    assert sorted(file["file"] for each in told for file in each["files"]) == list(range(1, 12))


def test_a_word_of_a_removal_that_somebody_made_up_is_not_said_again(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        policy = log.trust_policy()
        for _ in range(3):
            log.append(b"1")
            log.rotate()
        second = path.with_name("app.log.000002")
        lines = second.read_bytes().splitlines(keepends=True)
        record = parse_line(lines[1][:-1])
        made_up = (
            b'{"n":%d,"t":%d,"k":"retention","d":{"files":[{"file":1,"first":0,"last":3}],"reason":"x"},"m":"%b"}\n'
        )
        second.write_bytes(b"".join([lines[0], made_up % (record.number, record.time_ms, record.tag), *lines[2:]]))
        with pytest.raises(InvalidInputError, match="keep this file"):
            log.retire([2], "too old")
        path.with_name("app.log.000001").unlink()
    assert "missing" in kinds(verified(path, kms, policy))


def test_what_was_not_compressed_in_time_is_by_the_next_writer(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        ended = log.rotate()
    with opened(path, kms, compress=True, checkpoint_s=0.02, buffer_s=0.01) as log:
        log.append(b"2")
        until(lambda: not ended.exists())
        policy = log.trust_policy()
    assert [each.name for each in path.parent.glob("app.log.0*")] == ["app.log.000001.gz"]
    assert verified(path, kms, policy, expect_closed=True).errors == []


@pytest.mark.parametrize("stream", ["my app", "a+b", "größe 100%", "example.org/app"])
def test_whatever_a_stream_may_be_called_its_log_can_be_signed(path: Path, kms: FakeKMS, stream: str) -> None:
    with SealedFile(path, stream=stream, kms=kms, key_id="audit") as log:
        policy = log.trust_policy()
        policy.save(path.with_name("policy.json"))
    assert TrustPolicy.load(path.with_name("policy.json")) == policy
    assert verified(path, kms, policy, expect_closed=True).errors == []


def test_a_link_leads_to_its_log_and_stays(tmp_path: Path, path: Path, kms: FakeKMS) -> None:
    link = tmp_path / "elsewhere" / "link.log"
    link.parent.mkdir()
    link.symlink_to(path)
    with opened(link, kms) as log:
        log.append(b"1")
        with pytest.raises(ConflictError):
            opened(path, kms)
        log.rotate()
        policy = log.trust_policy()
    assert link.is_symlink()
    assert verified(link, kms, policy, expect_closed=True).files == verified(path, kms, policy).files == 2


def test_what_is_no_regular_file_holds_nobody_up(path: Path, kms: FakeKMS, tmp_path: Path) -> None:
    with opened(tmp_path / "other.log", kms) as log:
        policy = log.trust_policy()
    os.mkfifo(path)
    with pytest.raises(StorageOperationError, match="regular"):
        opened(path, kms)
    with pytest.raises(CouldNotVerifyError, match="regular"):
        verified(path, kms, policy)
    with pytest.raises(CouldNotVerifyError):
        Verifier(policy).verify("/dev/zero")


def test_a_log_that_rotates_while_it_is_read_is_no_alarm(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path, kms, compress=True) as log:
        log.append(b"1")
        policy = log.trust_policy()
        listed = verifying._files

        def rotating(given: Any, progress: Any) -> Any:
            found = listed(given, progress)
            if not path.with_name("app.log.000002").exists() and not path.with_name("app.log.000002.gz").exists():
                log.rotate()
            return found

        monkeypatch.setattr(verifying, "_files", rotating)
        report = verified(path, kms, policy)
        assert report.errors == []


def test_a_live_log_verifies_while_it_is_written_and_rotates(path: Path, kms: FakeKMS) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            log.append_many([b'{"some":"record"}'] * 50)
            time.sleep(0.001)

    with opened(path, kms, max_bytes=100_000, compress=True, checkpoint_s=0.05, buffer_s=0.01) as log:
        policy = log.trust_policy()
        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(8):
                assert verified(path, kms, policy).errors == []
        finally:
            stop.set()
            thread.join()
    assert verified(path, kms, policy, expect_closed=True).errors == []


def test_progress_tells_every_byte_of_the_files(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append_many([b'"%b"' % (b"x" * 1000)] * 1000)
        policy = log.trust_policy()
    told: list[int] = []
    Verifier(policy, {"fake": kms}).verify(path, progress=told.append)
    assert sum(told) == path.stat().st_size


def test_a_bomb_of_a_compressed_file_is_read_in_little_memory(path: Path, kms: FakeKMS) -> None:
    import gzip
    import tracemalloc

    with opened(path, kms) as log:
        log.append(b"1")
        policy = log.trust_policy()
        ended = log.rotate()
    with gzip.open(f"{ended}.gz", "wb", compresslevel=9) as packed:
        packed.write(ended.read_bytes())
        for _ in range(48):
            packed.write(bytes(1 << 20))
    ended.unlink()
    tracemalloc.start()
    report = verified(path, kms, policy)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not report.valid
    assert peak < 32 << 20


def test_a_key_that_is_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(ConfigurationError):
        LocalSigner.from_file(tmp_path / "key", "example.org")


def test_a_file_full_of_line_ends_is_read_in_the_time_of_any_other(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        policy = log.trust_policy()
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"\n" * 300_000 + b"".join(others))
    before = time.process_time()
    report = verified(path, kms, policy)
    assert kinds(report) == ["malformed"]
    assert (report.errors[0].line, report.errors[0].offset) == (2, len(first))
    # It took minutes, and with a million of them days.
    assert time.process_time() - before < 20
