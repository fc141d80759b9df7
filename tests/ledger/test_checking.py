"""What a reader finds in logs that are as they were written, and in logs that are not."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.errors import CouldNotVerifyError, StorageOperationError
from keystead.ledger.checkpoint import Checkpoint, SignedCheckpoint, verify_checkpoint
from keystead.ledger.note import NoteKey
from keystead.ledger.records import Kind, Session, parse_line
from keystead.ledger.sealer import Sealer
from keystead.ledger.tree import Frontier, leaf_hash
from tests.crypto.vectors import load
from tests.ledger.logs import (
    START,
    STREAM,
    TestTrust,
    chained,
    check,
    checkpointed,
    kinds,
    payloads,
    session,
    session_key,
    sign,
    small_log,
)
from tests.ledger.vectors import unbase64

VECTORS = load("log-v1.json")["tests"]


class VectorTrust:
    def __init__(self, case: dict[str, Any]) -> None:
        self.stream = case["stream"]
        self._keys = {told["wrapped"]: bytes.fromhex(told["key"]) for told in case["sessions"] if told["key"]}
        self._signer = NoteKey.parse(case["signer"])

    def session_key(self, told: Session) -> bytes | None:
        return None if told.key is None else self._keys[told.key]

    def checkpoint(self, note: bytes, time_ms: int) -> SignedCheckpoint:
        return verify_checkpoint(note, [self._signer])


def lines_of(log: bytes) -> list[bytes]:
    return log.splitlines(keepends=True)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["comment"])
def test_the_vectors_are_valid(tmp_path: Path, case: dict[str, Any]) -> None:
    contents = [unbase64(file) for file in case["files"]]
    report = check(tmp_path, *contents, trust=VectorTrust(case), is_whole=True)  # type: ignore[arg-type]
    assert report.errors == []
    assert report.records_checked == len(case["records"]) == report.size
    assert report.files == len(contents)
    assert report.sessions == len(case["sessions"])


def test_a_log_that_is_as_it_was_written_is_valid(tmp_path: Path) -> None:
    report = check(tmp_path, small_log(), expect_closed=True, is_whole=True)
    assert report.errors == []
    assert (report.valid, report.closed, report.records_checked) == (True, True, 24)
    assert (report.first, report.size, report.vouched) == (0, 24, 23)
    assert report.warnings == []


def test_an_open_log_says_from_where_on_nothing_vouches(tmp_path: Path) -> None:
    report = check(tmp_path, small_log(closed=False))
    assert (report.valid, report.closed, report.vouched, report.size) == (True, False, 11, 22)
    assert "from record 11 on" in report.warnings[0]


@pytest.mark.parametrize("at", range(24))
def test_a_changed_record_is_found_wherever_it_is(tmp_path: Path, at: int) -> None:
    lines = lines_of(small_log())
    middle = len(lines[at]) // 2
    lines[at] = lines[at][:middle] + bytes((lines[at][middle] ^ 1,)) + lines[at][middle + 1 :]
    report = check(tmp_path, b"".join(lines))
    assert not report.valid
    assert report.errors[0].line == at + 1
    assert report.errors[0].offset == sum(map(len, lines[:at]))


@pytest.mark.parametrize("at", [3, 11, 15])
def test_one_changed_record_is_one_finding(tmp_path: Path, at: int) -> None:
    lines = lines_of(small_log())
    lines[at] = lines[at].replace(b"some", b"more")
    report = check(tmp_path, b"".join(lines))
    expected = [] if lines == lines_of(small_log()) else ["modified"]
    assert kinds(report) == expected


@pytest.mark.parametrize("at", range(1, 22))
def test_a_missing_record_is_found(tmp_path: Path, at: int) -> None:
    lines = lines_of(small_log())
    del lines[at]
    report = check(tmp_path, b"".join(lines))
    assert kinds(report)[0] == "missing"


def test_several_missing_records_are_one_finding(tmp_path: Path) -> None:
    lines = lines_of(small_log())
    del lines[13:18]
    report = check(tmp_path, b"".join(lines))
    assert kinds(report) == ["missing"]
    assert "records 13 to 17" in report.errors[0].message


@pytest.mark.parametrize("at", range(1, 20))
def test_an_inserted_record_is_found(tmp_path: Path, at: int) -> None:
    lines = lines_of(small_log())
    foreign = b'{"n":%d,"t":%d,"d":"foreign","m":"%b"}\n' % (at, START + 1, b"A" * 43)
    lines.insert(at, foreign)
    assert kinds(check(tmp_path, b"".join(lines))) == ["inserted"]


@pytest.mark.parametrize(("at", "to"), [(5, 6), (5, 9), (3, 18), (15, 20)])
def test_a_repeated_record_is_found(tmp_path: Path, at: int, to: int) -> None:
    lines = lines_of(small_log())
    lines.insert(to, lines[at])
    assert set(kinds(check(tmp_path, b"".join(lines)))) <= {"duplicated", "inserted"}
    assert not check(tmp_path, b"".join(lines)).valid


@pytest.mark.parametrize(("one", "other"), [(5, 6), (5, 9), (13, 20)])
def test_records_that_changed_places_are_found(tmp_path: Path, one: int, other: int) -> None:
    lines = lines_of(small_log())
    lines[one], lines[other] = lines[other], lines[one]
    assert "reordered" in kinds(check(tmp_path, b"".join(lines)))


def test_a_record_that_was_moved_to_the_end_is_found(tmp_path: Path) -> None:
    lines = lines_of(small_log(closed=False))
    lines.append(lines.pop(15))
    assert kinds(check(tmp_path, b"".join(lines))) == ["missing", "reordered"]


def test_a_line_that_is_no_record_is_found(tmp_path: Path) -> None:
    for garbage in (b"\n", b"garbage\n", b"[1]\n", b"\x00" * 50 + b"\n", b'{"n":5}\n'):
        lines = lines_of(small_log())
        lines.insert(5, garbage)
        report = check(tmp_path, b"".join(lines))
        assert kinds(report) == ["malformed"]
        assert (report.errors[0].line, report.errors[0].offset) == (6, sum(map(len, lines[:5])))


@pytest.mark.parametrize("kept", range(1, 24))
def test_a_cut_is_found_where_a_checkpoint_or_the_end_is_known(tmp_path: Path, kept: int) -> None:
    lines = lines_of(small_log())
    cut = b"".join(lines[:kept])
    whole = check(tmp_path, small_log())
    assert whole.checkpoint is not None
    assert kinds(check(tmp_path, cut, since=whole.checkpoint)) == (["rolled_back"] if kept < whole.vouched else [])
    if kept < 23:
        assert "truncated" in kinds(check(tmp_path, cut, expect_closed=True))
    opened = check(tmp_path, cut)
    assert (opened.valid, opened.closed) == (True, False)


def test_a_cut_within_a_line_is_as_a_crash_leaves_it(tmp_path: Path) -> None:
    log = small_log(closed=False)
    report = check(tmp_path, log[:-20])
    assert (report.valid, report.closed, report.size) == (True, False, 21)
    assert any("crash" in warning for warning in report.warnings)


def test_a_log_that_was_emptied_is_found(tmp_path: Path) -> None:
    assert kinds(check(tmp_path, b"")) == ["truncated"]
    assert kinds(check(tmp_path, b"\n\n")) == ["malformed"]
    assert "truncated" in kinds(check(tmp_path, lines_of(small_log())[0], expect_closed=True))


def test_a_log_that_was_rolled_back_is_found_by_who_kept_a_checkpoint(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    old = sealer.file(1, START) + sealer.seal(payloads(5), START) + checkpointed(sealer)
    new = old + sealer.seal(payloads(5, 5), START)
    kept = sealer.checkpoint()
    assert check(tmp_path, new + checkpointed(sealer), since=kept).valid
    assert kinds(check(tmp_path, old, since=kept)) == ["rolled_back"]


def test_another_history_of_the_same_length_is_found(tmp_path: Path) -> None:
    one, other = (Sealer(STREAM, session("one"), session_key("one")) for _ in range(2))
    one.file(1, START)
    one.seal(payloads(5), START)
    rewritten = other.file(1, START) + other.seal(payloads(5, 100), START)
    assert kinds(check(tmp_path, rewritten, since=one.checkpoint())) == ["rolled_back"]


def test_a_log_sealed_under_another_key_is_found(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("another"))
    log = sealer.file(1, START) + sealer.seal(payloads(3), START)
    assert kinds(check(tmp_path, log))[0] == "replaced"


def test_a_session_whose_key_does_not_open_is_not_trusted(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("stranger"), session_key("stranger"))
    log = sealer.file(1, START) + sealer.seal(payloads(3), START)
    assert kinds(check(tmp_path, log))[0] == "untrusted"


def test_a_log_of_another_stream_is_found(tmp_path: Path) -> None:
    sealer = Sealer("example.org/other", session("one"), session_key("one"))
    assert kinds(check(tmp_path, sealer.file(1, START))) == ["replaced"]


def test_a_log_cannot_be_passed_off_as_one_without_a_key_where_checkpoints_are_asked_for(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, chained("forged"), None)
    forger = Ed25519PrivateKey.generate()
    log = sealer.file(1, START) + sealer.seal(payloads(3), START)
    log += sealer.control(Kind.CHECKPOINT, {"note": sign(sealer.checkpoint(), forger)}, START)
    assert kinds(check(tmp_path, log)) == ["checkpoint"]


@pytest.mark.parametrize("change", ["size", "root", "origin", "signature", "stripped", "garbage"])
def test_a_checkpoint_that_is_not_the_logs_is_found(tmp_path: Path, change: str) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(5), START)
    true = sealer.checkpoint()
    notes = {
        "size": sign(Checkpoint(STREAM, true.size - 1, true.root)),
        "root": sign(Checkpoint(STREAM, true.size, bytes(32))),
        "origin": sign(Checkpoint("example.org/other", true.size, true.root)),
        "signature": sign(true, Ed25519PrivateKey.generate()),
        "stripped": true.text(),
        "garbage": "garbage",
    }
    log += sealer.control(Kind.CHECKPOINT, {"note": notes[change]}, START)
    assert kinds(check(tmp_path, log)) == ["checkpoint"]


def test_a_checkpoint_may_follow_later_where_it_was_announced(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.seal(payloads(5), START)
    first = sealer.checkpoint()
    log += sealer.control(Kind.CUT, {}, START) + sealer.seal(payloads(5), START)
    second = sealer.checkpoint()
    log += sealer.control(Kind.CUT, {}, START) + sealer.seal(payloads(5), START)
    announced = log
    log += sealer.control(Kind.CHECKPOINT, {"note": sign(first)}, START)
    log += sealer.control(Kind.CHECKPOINT, {"note": sign(second)}, START)
    report = check(tmp_path, log)
    assert (report.errors, report.vouched) == ([], 12)
    forged = Sealer(STREAM, session("one"), session_key("one"))
    forged.file(1, START)
    forged.seal(payloads(7), START)
    never = announced + _at(sealer, announced, Kind.CHECKPOINT, {"note": sign(Checkpoint(STREAM, 6, bytes(32)))})
    assert kinds(check(tmp_path, never)) == ["checkpoint"]
    other = announced + _at(sealer, announced, Kind.CHECKPOINT, {"note": sign(forged.checkpoint())})
    assert kinds(check(tmp_path, other)) == ["checkpoint"]


def _at(sealer: Sealer, log: bytes, kind: Kind, payload: dict[str, str]) -> bytes:
    """Return a record that follows the last one of a log which the sealer has written further."""
    last = parse_line(lines_of(log)[-1][:-1])
    sealer.number, sealer.tag = last.number + 1, unbase64(last.tag.decode() + "=")
    return sealer.control(kind, payload, START)


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
    honest.number, honest._tree = 4, Frontier(4, _roots(log[:cut]))
    forged = log[:cut] + honest.epoch(START + 1_800_000) + honest.seal(payloads(1), START + 1_800_000)
    assert not check(tmp_path, forged).valid


def _roots(log: bytes) -> tuple[bytes, ...]:
    tree = Frontier()
    tree.extend([leaf_hash(line) for line in log.splitlines()])
    return tree.roots


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
    from hashlib import sha256

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
    log += sealer.resume(session("three"), session_key("three"), START)
    assert kinds(check(tmp_path, log)) == ["replaced"]


def test_a_stream_goes_on_after_it_was_closed(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    log = sealer.file(1, START) + sealer.control(Kind.CLOSE, {}, START) + checkpointed(sealer)
    log += sealer.resume(session("two"), session_key("two"), START) + sealer.seal(payloads(2), START)
    report = check(tmp_path, log)
    assert (report.errors, report.closed) == ([], False)


def two_files() -> list[bytes]:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    first = sealer.file(1, START) + sealer.seal(payloads(7), START) + sealer.control(Kind.CLOSE, {"next": 2}, START)
    first += checkpointed(sealer)
    sealer.end_epochs(3)
    second = sealer.file(2, START + 2_700_000) + sealer.seal(payloads(7, 7), START + 2_700_001)
    second += sealer.control(Kind.CLOSE, {"next": 3}, START + 2_700_002) + checkpointed(sealer, START + 2_700_002)
    third = sealer.file(3, START + 2_700_003) + sealer.seal(payloads(7, 14), START + 2_700_004)
    third += sealer.control(Kind.CLOSE, {}, START + 2_700_005) + checkpointed(sealer, START + 2_700_005)
    return [first, second, third]


def test_a_stream_through_several_files_is_one(tmp_path: Path) -> None:
    report = check(tmp_path, *two_files(), is_whole=True, expect_closed=True)
    assert (report.errors, report.files, report.size) == ([], 3, 30)


def test_one_file_of_a_stream_is_checked_alone(tmp_path: Path) -> None:
    for number, content in enumerate(two_files()):
        report = check(tmp_path, content)
        assert (report.errors, report.first) == ([], 10 * number)


def test_a_file_that_is_not_there_is_found(tmp_path: Path) -> None:
    first, second, third = two_files()
    assert kinds(check(tmp_path, first, third)) == ["missing"]
    assert kinds(check(tmp_path, second, third, is_whole=True)) == ["missing"]
    assert kinds(check(tmp_path, first, second, expect_closed=True)) == ["truncated"]


def test_files_in_another_order_are_found(tmp_path: Path) -> None:
    first, second, third = two_files()
    assert "reordered" in kinds(check(tmp_path, first, third, second))


def test_a_file_that_was_cut_before_the_next_is_found(tmp_path: Path) -> None:
    first, second, third = two_files()
    cut = b"".join(lines_of(first)[:-3])
    assert kinds(check(tmp_path, cut, second, third)) == ["truncated"]


def test_a_file_that_was_removed_on_purpose_is_not_missing(tmp_path: Path) -> None:
    first, second, third = two_files()
    tree = Frontier(30, _roots(first + second + third))
    sealer = Sealer(STREAM, session("two", START + 2_700_006), session_key("two"), tree=tree)
    sealer.tag = unbase64(parse_line(lines_of(third)[-1][:-1]).tag.decode() + "=")
    sealer.time_ms = START + 2_700_005
    removed = {"files": [{"file": 1, "first": 0, "last": 9}], "reason": "older than a year"}
    fourth = sealer.file(4, START + 2_700_006) + sealer.control(Kind.RETENTION, removed, START + 2_700_006)
    report = check(tmp_path, second, third, fourth, is_whole=True)
    assert report.errors == []
    assert kinds(check(tmp_path, third, fourth, is_whole=True)) == ["missing"]


def test_a_compressed_file_is_read_as_it_is(tmp_path: Path) -> None:
    assert check(tmp_path, *(gzip.compress(content) for content in two_files())).errors == []


def test_a_damaged_compressed_file_is_a_finding(tmp_path: Path) -> None:
    content = gzip.compress(small_log())
    assert not check(tmp_path, content[: len(content) // 2]).valid
    assert not check(tmp_path, content[:100] + b"\xff\xff\xff" + content[103:]).valid


def test_a_checkpoint_of_files_that_are_not_given_cannot_be_compared(tmp_path: Path) -> None:
    _, second, third = two_files()
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    sealer.file(1, START)
    with pytest.raises(CouldNotVerifyError):
        check(tmp_path, second, third, since=sealer.checkpoint())


def test_a_file_that_cannot_be_read_is_no_finding(tmp_path: Path) -> None:
    from keystead.ledger.checking import StreamChecker
    from keystead.ledger.reading import LogFile

    with pytest.raises(StorageOperationError):
        StreamChecker(TestTrust()).check([LogFile(tmp_path / "absent")])


def test_a_line_longer_than_any_record_does_not_fill_the_memory(tmp_path: Path) -> None:
    lines = lines_of(small_log())
    lines.insert(5, b"x" * (9 << 20) + b"\n")
    assert kinds(check(tmp_path, b"".join(lines))) == ["malformed"]


def test_what_the_tags_cannot_say_the_checkpoints_do_where_there_is_no_key(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, chained("one"), None)
    log = sealer.file(1, START) + sealer.seal(payloads(5), START) + checkpointed(sealer)
    assert check(tmp_path, log).errors == []
    assert not check(tmp_path, log.replace(b"some", b"more")).valid
    del sealer
    # Who rewrites the whole chain has no checkpoint over it.
    forged = Sealer(STREAM, chained("one"), None)
    rewritten = forged.file(1, START) + forged.seal(payloads(5, 5), START)
    rewritten += forged.control(Kind.CHECKPOINT, {"note": sign(Checkpoint(STREAM, 6, bytes(32)))}, START)
    assert kinds(check(tmp_path, rewritten)) == ["checkpoint"]
