"""Code that interrupts a log in its own thread, as handlers of signals and ``__del__`` do, and disks that lose data."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from keystead.errors import StorageOperationError, SystemShutdownError
from keystead.ledger import SealedFile
from keystead.ledger.writing.turns import Turn
from keystead.testing import FakeKMS
from tests.ledger.files import opened, payloads, verified

PLACES = ("/ledger/writing/", "/ledger/format/tags.py", "/crypto/merkle.py")


def test_a_record_that_interrupts_the_sealing_of_another_is_written_too(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(path, kms, buffer_s=0.01)
    policy = log.trust_policy()
    seal, told = log._log._writer.seal, list[bool]()

    def interrupted(records: list[bytes]) -> None:
        if not told:
            log.append(b'"small"')
            log.append_many([b'"one"', b'"%b"' % (b"x" * 5000)])
            told.append(log.flush(waits=False))
            for refused in (log.flush, log.checkpoint, log.rotate, log.close):
                with pytest.raises(StorageOperationError, match="in use by what was interrupted"):
                    refused()
        seal(records)

    monkeypatch.setattr(log._log._writer, "seal", interrupted)
    work = threading.Thread(target=log.append_many, args=([b'"first"'],), daemon=True)
    work.start()
    work.join(60)
    assert not work.is_alive(), "it waits for itself"
    assert told == [False]
    log.close()
    assert payloads(path) == ["first", "small", "one", "x" * 5000]
    assert verified(path, kms, policy, expect_closed=True).valid


def test_a_record_that_interrupts_the_disk_is_written_too(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(path, kms)
    policy, fsync, told = log.trust_policy(), os.fsync, list[bool]()

    def interrupted(file: int) -> None:
        if not told:
            told.append(True)
            log.append_many([b'"meanwhile"'])
        fsync(file)

    monkeypatch.setattr("os.fsync", interrupted)
    log.append(b'"first"')
    work = threading.Thread(target=log.flush, daemon=True)
    work.start()
    work.join(60)
    assert not work.is_alive(), "it waits for itself"
    log.close()
    assert payloads(path) == ["first", "meanwhile"]
    assert verified(path, kms, policy, expect_closed=True).valid


def test_a_record_that_interrupts_a_checkpoint_is_written_too(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(path, kms)
    policy = log.trust_policy()
    signed = log._log._signed._signed

    def interrupted(text: str) -> bytes:
        log.append_many([b'"meanwhile"'])
        with pytest.raises(StorageOperationError):
            log.close()
        return signed(text)

    monkeypatch.setattr(log._log._signed, "_signed", interrupted)
    work = threading.Thread(target=log.checkpoint, daemon=True)
    work.start()
    work.join(60)
    assert not work.is_alive(), "it waits for itself"
    monkeypatch.undo()
    log.close()
    assert (payloads(path), verified(path, kms, policy, expect_closed=True).valid) == (["meanwhile"], True)


def test_what_interrupts_a_thread_that_has_the_lock_waits_for_none_that_needs_it(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)
    policy, outcomes = log.trust_policy(), list[object]()

    def interrupting() -> None:
        # As between the taking of the lock and the turn.
        with log._log._lock:
            log.append_many([b'"meanwhile"'])
            outcomes.append(log.flush(waits=False))
            for refused in (log.flush, log.checkpoint, log.rotate, log.close):
                try:
                    refused()
                except StorageOperationError as exc:
                    outcomes.append("in use" in str(exc))

    work = threading.Thread(target=interrupting, daemon=True)
    work.start()
    work.join(60)
    assert not work.is_alive(), "it waits for a thread that waits for it"
    assert outcomes == [False, True, True, True, True]
    log.close()
    assert (payloads(path), verified(path, kms, policy, expect_closed=True).valid) == (["meanwhile"], True)


@pytest.mark.parametrize("breaks", [True, False])
def test_no_turn_is_taken_within_itself(breaks: bool) -> None:
    turn = Turn("app.log", breaks=breaks)
    with turn.lock, turn:
        with turn.lock, pytest.raises(StorageOperationError, match="in use by what was interrupted"), turn:
            pytest.fail("it was taken")
        assert turn.is_interrupted
    turn.require_free()
    turn.require_whole()


class Interrupting:
    """Raises ``KeyboardInterrupt`` at one step of what runs within, as the handler of a signal does.

    Python looks for signals where functions begin, and where calls of functions in C return.
    """

    def __init__(self, step: int) -> None:
        self._steps = step

    def __enter__(self) -> None:
        sys.setprofile(self._profile)

    def __exit__(self, *given: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event in {"call", "c_return"} and any(place in frame.f_code.co_filename for place in PLACES):
            self._steps -= 1
            if self._steps == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt


def appends(log: SealedFile) -> None:
    log.append_many([b'"second"', b'"third"'])


def flushes(log: SealedFile) -> None:
    log.append(b'"second"')
    log.flush()


def rotates(log: SealedFile) -> None:
    log.append(b'"second"')
    log.rotate()


@pytest.mark.parametrize("work", [appends, flushes, rotates, SealedFile.checkpoint, SealedFile.close])
def test_a_log_that_is_interrupted_anywhere_goes_on_as_it_was_or_refuses_and_is_never_wrong(
    tmp_path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch, work: Callable[[SealedFile], object]
) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)
    step, was_interrupted, outcomes = 0, True, set()
    while was_interrupted:
        # Every step costs a log of its own: a stride that meets others each time.
        step += 1 if step < 40 else 3
        path = tmp_path / f"{step}.log"
        log = opened(path, kms, epoch_s=3600, buffer_s=60)
        policy = log.trust_policy()
        log.append(b'"first"')
        log.flush()
        was_interrupted = False
        try:
            with Interrupting(step):
                work(log)
        except KeyboardInterrupt:
            was_interrupted = True
        try:
            log.append(b'"after"')
            log.flush()
            outcomes.add("goes on")
        except (StorageOperationError, SystemShutdownError):
            outcomes.add("refuses")
        try:
            log.close()
        except StorageOperationError:
            log.close()  # it has let go
        with opened(path, kms, epoch_s=3600) as again:
            again.append(b'"again"')
        report = verified(path, kms, policy, expect_closed=True)
        assert report.errors == [], step
        content = b"".join(each.read_bytes() for each in sorted(tmp_path.glob(f"{step}.log*")) if each.suffix != ".key")
        assert content.count(b'"d":"first"') == content.count(b'"d":"again"') == 1
        assert content.count(b'"d":"second"') <= 1
    assert "goes on" in outcomes or work is SealedFile.close
    assert "refuses" in outcomes


@pytest.mark.parametrize("work", [appends, flushes, rotates, SealedFile.checkpoint])
def test_a_stack_that_is_nearly_full_breaks_no_log(
    path: Path, kms: FakeKMS, work: Callable[[SealedFile], object]
) -> None:
    log = opened(path, kms)
    policy = log.trust_policy()

    def deeper(calls: int) -> None:
        if calls:
            deeper(calls - 1)
        else:
            work(log)

    taken = 0
    for calls in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit()):
        try:
            deeper(calls)
            taken += 1
        except RecursionError:
            continue
    log.append(b'"after"')
    log.close()
    assert 0 < taken < 150
    assert payloads(path)[-1] == "after"
    assert verified(path, kms, policy, expect_closed=True).valid


@pytest.mark.parametrize("fsync", ["flush", "always"])
def test_a_disk_that_failed_to_keep_what_was_written_is_not_believed_the_next_time(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch, fsync: str
) -> None:
    """Linux reports a page that could not be written once, and forgets it: the next fsync says that all is well."""
    log = opened(path, kms, fsync=fsync)
    policy = log.trust_policy()
    log.append(b'"acknowledged"')
    log.flush()
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", _fails)
        with pytest.raises(StorageOperationError):
            # With ``always`` appending says so itself, once the record is sealed.
            log.append_many([b'"lost"'])
            log.flush()
    for refused in (log.flush, log.checkpoint, log.rotate):
        with pytest.raises(StorageOperationError, match="open it anew"):
            refused()
    with pytest.raises(StorageOperationError, match="open it anew"):
        log.append_many([b'"after"'])
    with pytest.raises(StorageOperationError, match="open it anew"):
        log.close()
    assert log.is_closed
    with opened(path, kms) as log:
        log.append(b'"again"')
    assert verified(path, kms, policy, expect_closed=True).valid
    assert payloads(path)[-1] == "again"


def _fails(file: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_log_that_is_broken_keeps_no_thread_busy(path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(path, kms, checkpoint_s=0.001, buffer_s=60)
    monkeypatch.setattr("os.fsync", _fails)
    with pytest.raises(StorageOperationError):
        log.append_many([b'"lost"'])
        log.flush()
    assert log._log._signing_pause_s(time.monotonic() + 1) > 1
    with pytest.raises(StorageOperationError, match="open it anew"):
        log.close()


@pytest.mark.parametrize("what", ["flush", "checkpoint", "rotate", "retire"])
def test_what_a_close_overtakes_does_nothing_more(
    path: Path, kms: FakeKMS, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    log = opened(path, kms)
    log.rotate()

    def overtaken() -> bool:
        log.close()
        return False

    monkeypatch.setattr(log._log, "_is_written_out", overtaken)
    with pytest.raises(SystemShutdownError):
        getattr(log, what)(*([[1], "old"] if what == "retire" else []))
    assert path.with_name("app.log.000001").exists()
    assert not path.with_name("app.log.000002").exists()
