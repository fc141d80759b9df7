"""Sessions as a reader follows them: keys, epochs, clocks, crashes."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from keystead.crypto.merkle import Frontier
from keystead.ledger.format.records import MAX_LINE_BYTES, Kind
from keystead.ledger.reading.lines import _FIRST_BYTES, BLOCK_BYTES
from keystead.ledger.writing.sealer import Sealer
from tests.ledger.logs import (
    START,
    STREAM,
    check,
    checkpointed,
    kinds,
    payloads,
    roots_of,
    session,
    session_key,
    small_log,
)


def test_a_cut_within_a_line_is_as_a_crash_leaves_it(tmp_path: Path) -> None:
    log = small_log(closed=False)
    report = check(tmp_path, log[:-20])
    assert (report.valid, report.closed, report.size) == (True, False, 21)
    assert any("crash" in warning for warning in report.warnings)


def test_a_log_sealed_under_another_key_is_found(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("another"))
    log = sealer.file(1, START) + sealer.seal(payloads(3), START)
    assert kinds(check(tmp_path, log))[0] == "replaced"


def test_a_session_whose_key_does_not_open_is_not_trusted(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("stranger"), session_key("stranger"))
    log = sealer.file(1, START) + sealer.seal(payloads(3), START)
    assert kinds(check(tmp_path, log))[0] == "untrusted"


def test_records_of_later_epochs_are_sealed_by_later_keys(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(3), START)
    for epoch in (1, 2, 7):
        sealer.end_epochs(epoch)
        log += sealer.epoch(START + epoch * 900_000) + sealer.seal(payloads(3), START + epoch * 900_000 + 5)
    report = check(tmp_path, log)
    assert (report.errors, report.size) == ([], 16)


def test_an_old_record_sealed_again_by_a_later_key_is_found(tmp_path: Path) -> None:
    """CVE-2023-31439 of another log: who takes a host in a later epoch cannot write of an earlier one."""
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(3), START)
    stolen = Sealer(STREAM, session("one"), session_key("one"))
    stolen.file(1, START)
    stolen.seal(payloads(3), START)
    stolen.end_epochs(5)
    log += stolen.epoch(START + 10) + stolen.seal(payloads(1), START + 10)
    assert set(kinds(check(tmp_path, log))) == {"time"}


def test_epochs_cannot_be_cut_away_and_called_empty(tmp_path: Path) -> None:
    """CVE-2023-31438 of another log: the end of each epoch is sealed by its own key, which is then gone."""
    honest = Sealer(STREAM, session("one"), session_key("one"))
    log = honest.file(1, START) + honest.seal(payloads(3), START)
    cut = len(log)
    honest.end_epochs(1)
    log += honest.epoch(START + 900_000) + honest.seal(payloads(3), START + 900_000)
    honest.end_epochs(2)
    # Who takes the host now has the key of epoch 2, and the tag as it stands; epoch 1 is cut away.
    honest.number, honest._tree = 4, Frontier(4, roots_of(log[:cut]))
    forged = log[:cut] + honest.epoch(START + 1_800_000) + honest.seal(payloads(1), START + 1_800_000)
    assert not check(tmp_path, forged).valid


def test_a_clock_that_was_set_is_no_false_alarm(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(2), START + 10)
    log += sealer.clock_step(-3_600_000, START - 3_599_990) + sealer.seal(payloads(2), START - 3_599_900)
    log += sealer.clock_step(86_400_000, START + 82_800_200) + sealer.seal(payloads(2), START + 82_800_300)
    assert check(tmp_path, log).errors == []


def test_a_time_that_goes_back_is_found(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(1), START + 10)
    sealer.time_ms = 0
    log += sealer.seal(payloads(1), START + 5)
    assert kinds(check(tmp_path, log)) == ["time"]


def crashed(torn: bytes, *, claimed: bytes | None = None, end: bytes = b"\n") -> bytes:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(5), START)
    log += torn + (end if torn else b"")
    log += sealer.resume(session("two"), session_key("two"), START)
    told = torn if claimed is None else claimed
    log += sealer.control(Kind.RECOVERY, {"bytes": len(told), "sha256": sha256(told).hexdigest()}, START)
    return log + sealer.seal(payloads(5, 5), START) + checkpointed(sealer)


@pytest.mark.parametrize("torn", [b"", b'{"n":6,"t":19', b"\x00" * 5000, b"half\nof a page\nof lines", b"\n\n"])
def test_what_a_crash_left_is_no_false_alarm(tmp_path: Path, torn: bytes) -> None:
    report = check(tmp_path, crashed(torn))
    assert (report.errors, report.size, report.sessions) == ([], 14, 2)


def test_what_is_left_of_a_line_too_long_for_a_record_tells_of_no_crash(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(1), START)
    number = sealer.number
    changed = sealer.seal(payloads(1), START).replace(b"words", b"other")
    told = sealer.resume(session("two"), session_key("two"), START)
    told = told.replace(b'{"n":%d,' % (number + 1), b'{"n":%d,' % number)
    begin = len(log + changed)
    end, size = 0, _FIRST_BYTES
    while end - begin <= MAX_LINE_BYTES:  # there a reader's piece of the line ends
        end, size = end + size, min(2 * size, BLOCK_BYTES)
    report = check(tmp_path, log + changed + b"x" * (end - begin) + told)
    assert kinds(report) == ["modified"]


def test_what_a_crash_left_cannot_be_changed_or_made_up(tmp_path: Path) -> None:
    assert kinds(check(tmp_path, crashed(b"torn", claimed=b"TORN"))) == ["modified"]
    assert kinds(check(tmp_path, crashed(b"", claimed=b"torn"))) == ["modified"]
    assert kinds(check(tmp_path, crashed(b"torn").replace(b"torn\n", b""))) == ["modified"]


def test_a_session_out_of_nothing_is_found(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(5), START)
    log += sealer.resume(session("two"), session_key("two"), START) + sealer.seal(payloads(5), START)
    assert kinds(check(tmp_path, log)) == ["malformed"]


def test_one_session_hands_over_to_the_next(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(5), START)
    log += sealer.rekey(session("two"), session_key("two"), START) + sealer.seal(payloads(5), START)
    assert check(tmp_path, log).errors == []
    log += sealer.control(Kind.REKEY, {"session": "0" * 32}, START)
    log += sealer.resume(session("three"), session_key("three"), START) + sealer.seal(payloads(1), START)
    assert kinds(check(tmp_path, log)) == ["malformed"]


def test_a_stream_goes_on_after_it_was_closed(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.control(Kind.CLOSE, {}, START) + checkpointed(sealer)
    log += sealer.resume(session("two"), session_key("two"), START) + sealer.seal(payloads(2), START)
    report = check(tmp_path, log)
    assert (report.errors, report.closed) == ([], False)
