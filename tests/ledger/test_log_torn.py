"""Torn writes: wherever one ends, the log is gone on with, and what was acknowledged is there.

A disk that is full, or loses power, may keep any beginning of what was written last.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keystead.ledger.format.records import Session
from keystead.ledger.reading.checking import StreamChecker
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.report import VerifyReport
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.writing.resuming import last_state
from keystead.ledger.writing.writer import LogWriter
from tests.ledger.logs import START, STREAM, TestTrust, kinds, session, session_key, sign

ENDS_AS_A_LINE = b'{"m":[{"x":1,"m":"%b"},2]}' % (b"A" * 43)
"""A record whose line, torn within it, reads as one."""
NAMES = tuple(f"number {number}" for number in range(6))


class StillClock:
    """A clock that stands: a tag says nothing of when it was cut."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(START / 1000, UTC)

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits")


class UnsyncedFiles(LogFiles):
    """Files that are not put on disk: a test opens thousands."""

    def sync_folder(self) -> None:
        return None


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)


def writer(path: Path, name: str) -> LogWriter:
    def draw(start_ms: int, before: Session | None) -> tuple[Session, bytes]:
        return session(name, start_ms), session_key(name)

    return LogWriter(UnsyncedFiles(path), STREAM, draw, StillClock(), fsync_always=False)


def note(checkpoint: Checkpoint) -> bytes:
    return sign(checkpoint).encode()


def closed(log: LogWriter) -> None:
    log.end_file(None)
    log.last_checkpoint(note(log.sealer.checkpoint()))
    log.close()


def checked(path: Path, since: Checkpoint | None = None) -> VerifyReport:
    checker = StreamChecker(TestTrust(names=NAMES), since=since)
    return checker.check([LogFile(each) for each in [*LogFiles(path).ended().values(), path]], is_whole=True)


def begun(path: Path) -> tuple[bytes, Checkpoint]:
    """Return a log that was acknowledged as it is, and the checkpoint over it."""
    log = writer(path, NAMES[0])
    log.seal([b'{"acknowledged":1}', b'{"acknowledged":2}'])
    kept = log.sealer.checkpoint()
    log.checkpoint_now(lambda text: note(kept))
    log.close()
    return path.read_bytes(), kept


def appends(log: LogWriter) -> None:
    log.seal([b'{"text":"[\\"}"}', ENDS_AS_A_LINE, b'"three"'])


def checkpoints(log: LogWriter) -> None:
    log.checkpoint(announced := log.cut(), note(announced))


def hands_over(log: LogWriter) -> None:
    log.rekey(session(NAMES[2]), session_key(NAMES[2]), 0.0)


def ends_its_file(log: LogWriter) -> None:
    log.end_file(log.number + 1)
    log.last_checkpoint(note(log.sealer.checkpoint()))


def ends_the_stream(log: LogWriter) -> None:
    closed(log)


def closed_log(path: Path) -> None:
    closed(writer(path, NAMES[1]))


def torn_log(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"n":4,"t":19')


def torn_opening(path: Path) -> None:
    before = path.read_bytes()
    torn_log(path)
    writer(path, NAMES[4]).close()
    at = path.read_bytes().index(b'"k":"recovery"', len(before))
    path.write_bytes(path.read_bytes()[: at + 3])


def crashed_log(path: Path) -> None:
    assert path.exists()


def nothing(log: LogWriter) -> None:
    assert log.sealer.number


CASES: dict[str, tuple[Callable[[Path], None], Callable[[LogWriter], None]]] = {
    "an opening after a crash": (crashed_log, nothing),
    "an opening after a torn record": (torn_log, nothing),
    "an opening after a torn opening": (torn_opening, nothing),
    "an opening of a closed log": (closed_log, nothing),
    "records": (crashed_log, appends),
    "a checkpoint": (crashed_log, checkpoints),
    "a session that hands over": (crashed_log, hands_over),
    "the end of a file": (crashed_log, ends_its_file),
    "the end of the stream": (crashed_log, ends_the_stream),
}


LEFT: dict[Callable[[Path], None], int] = {torn_log: 1, torn_opening: 2}
"""Lines that are no records."""


@pytest.mark.parametrize("name", list(CASES))
def test_a_log_is_gone_on_with_wherever_a_write_was_torn(path: Path, name: str) -> None:
    prepare, write = CASES[name]
    _, kept = begun(path)
    prepare(path)
    before = path.read_bytes()
    log = writer(path, NAMES[1 if prepare is not closed_log else 3])
    opened = path.read_bytes()
    write(log)
    log.close()
    written = path.read_bytes()
    begin = len(before) if write is nothing else len(opened)
    wrong = {}
    for cut in range(begin, len(written) + 1):
        for each in path.parent.iterdir():
            each.unlink()
        path.write_bytes(written[:cut])
        log = writer(path, NAMES[5])
        log.seal([b'"after"'])
        closed(log)
        report = checked(path, since=kept)
        if not (report.valid and report.closed):
            wrong[cut - begin] = [error.message for error in report.errors]
        # Whole lines are records all the same, but for what an earlier crash had left.
        elif report.size < written[:cut].count(b"\n") - LEFT.get(prepare, 0):
            wrong[cut - begin] = ["more is lost than the last line"]
    assert wrong == {}


def test_a_line_that_was_torn_at_its_very_end_is_still_a_record(path: Path) -> None:
    begun(path)
    log = writer(path, NAMES[1])
    appends(log)
    number = log.sealer.number
    log.close()
    path.write_bytes(path.read_bytes()[:-1])
    log = writer(path, NAMES[2])
    assert log.sealer.number == number + 2  # a session and a recovery
    log.close()
    assert checked(path).valid


def test_a_last_line_of_any_content_is_looked_at_once(path: Path) -> None:
    """What stands at the end may be anybody's: it must not keep a log from being opened for hours."""
    content, _ = begun(path)
    number = content.count(b"\n")
    line = b'{"n":%d,"t":%d,"d":["%b,"m":"%b"}' % (number, START, b'\\"' * (1 << 18), b"A" * 43)
    path.write_bytes(content + line)
    state = last_state(path, STREAM)
    assert (state.tree.size, state.torn[0]) == (number, len(line))


def test_records_that_were_acknowledged_and_vouched_for_are_missed_wherever_a_file_is_cut(path: Path) -> None:
    acknowledged, kept = begun(path)
    end = len(acknowledged) - len(acknowledged.splitlines(keepends=True)[-1])
    first = acknowledged.index(b"\n") + 1
    for cut in range(first, end - 1):
        path.write_bytes(acknowledged[:cut])
        log = writer(path, NAMES[1])
        log.seal([b'"after"'] * 5)
        closed(log)
        assert "rolled_back" in kinds(checked(path, since=kept))


def test_what_a_torn_opening_left_cannot_be_changed(path: Path) -> None:
    """The recovery that follows tells of it: what stood before the session that was broken off, too."""
    begun(path)
    torn_opening(path)
    log = writer(path, NAMES[1])
    closed(log)
    content = path.read_bytes()
    assert checked(path).valid
    for torn in (b'{"n":4,"t":19', b'"k":"rec'):
        assert content.count(torn) >= 1
        path.write_bytes(content.replace(torn, torn.replace(b'"', b"'"), 1))
        assert "modified" in kinds(checked(path))


def test_a_session_that_only_begins_at_the_end_is_what_a_crash_leaves(path: Path) -> None:
    begun(path)
    before = len(path.read_bytes())
    writer(path, NAMES[1]).close()
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\n", before) + 1])
    report = checked(path)
    assert report.valid
    assert "at the end a session only begins, as a crash leaves it" in report.warnings
