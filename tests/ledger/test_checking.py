"""What a reader finds in logs that are as they were written, and in logs whose records were changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError, StorageOperationError
from keystead.ledger.format.records import CHAIN, HMAC, MAX_LINE_BYTES, Session
from keystead.ledger.reading.checking import StreamChecker
from keystead.ledger.reading.lines import BLOCK_BYTES, LogFile
from keystead.ledger.reading.policy import PolicyTrust, TrustedSigner, TrustPolicy
from keystead.ledger.reading.report import VerifyReport
from keystead.ledger.tlog.cosignature import WitnessKey
from keystead.ledger.tlog.note import NoteKey
from keystead.ledger.writing.resuming import last_state
from keystead.ledger.writing.sealer import Sealer
from tests.crypto.vectors import load
from tests.ledger.logs import (
    START,
    STREAM,
    TestTrust,
    check,
    kinds,
    lines_of,
    session,
    session_key,
    small_log,
)
from tests.ledger.vectors import unbase64

VECTORS = load("log-v1.json")


class VectorTrust(PolicyTrust):
    """What a vector says that its reader trusts, with session keys that no KMS has to open."""

    def __init__(self, case: dict[str, Any]) -> None:
        signers = (TrustedSigner(NoteKey.parse(case["signer"])),)
        witnesses = tuple(WitnessKey.parse(each) for each in case["witnesses"])
        policy = TrustPolicy(case["stream"], (), signers, (HMAC, CHAIN), witnesses, case["quorum"])
        super().__init__(policy, case["stream"], {})
        self._keys = {told["wrapped"]: bytes.fromhex(told["key"]) for told in case["sessions"] if told["key"]}

    def session_key(self, session: Session) -> bytes | None:
        return None if session.key is None else self._keys[session.key]


def read_vector(folder: Path, case: dict[str, Any]) -> VerifyReport:
    return check(folder, *map(unbase64, case["files"]), trust=VectorTrust(case), is_whole=True)


@pytest.mark.parametrize("case", VECTORS["tests"], ids=lambda case: case["comment"])
def test_the_vectors_are_valid(tmp_path: Path, case: dict[str, Any]) -> None:
    report = read_vector(tmp_path, case)
    assert report.errors == []
    assert report.records_checked == len(case["records"]) == report.size - report.first
    assert (report.files, report.sessions) == (len(case["files"]), len(case["sessions"]))
    assert (report.vouched, report.closed) == (case["vouched"], case["closed"])


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["comment"])
def test_the_invalid_vectors_are_not(tmp_path: Path, case: dict[str, Any]) -> None:
    assert kinds(read_vector(tmp_path, case))[0] == case["finding"]


def test_a_log_that_is_as_it_was_written_is_valid(tmp_path: Path) -> None:
    report = check(tmp_path, small_log(), expect_closed=True, is_whole=True)
    assert report.errors == []
    assert (report.valid, report.closed, report.records_checked) == (True, True, 24)
    assert (report.first, report.size, report.vouched) == (0, 24, 23)
    assert report.warnings == []


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


def test_a_log_that_was_emptied_is_found(tmp_path: Path) -> None:
    assert kinds(check(tmp_path, b"")) == ["truncated"]
    assert kinds(check(tmp_path, b"\n\n")) == ["malformed"]
    assert "truncated" in kinds(check(tmp_path, lines_of(small_log())[0], expect_closed=True))


def test_a_log_of_another_stream_is_found(tmp_path: Path) -> None:
    sealer = Sealer("example.org/other", session("one"), session_key("one"))
    assert kinds(check(tmp_path, sealer.file(1, START))) == ["replaced"]


def test_a_line_longer_than_any_record_does_not_fill_the_memory(tmp_path: Path) -> None:
    lines = lines_of(small_log())
    lines.insert(5, b"x" * (9 << 20) + b"\n")
    assert kinds(check(tmp_path, b"".join(lines))) == ["malformed"]


def test_a_line_longer_than_any_record_is_none_however_it_is_sealed(tmp_path: Path) -> None:
    for size in (MAX_LINE_BYTES - 110, MAX_LINE_BYTES, MAX_LINE_BYTES + BLOCK_BYTES):
        sealer = Sealer(STREAM, session("one"), session_key("one"))
        log = sealer.file(1, START) + sealer.seal([b'"%b"' % (b"x" * size)], START)
        is_record = len(lines_of(log)[1]) - 1 <= MAX_LINE_BYTES
        assert check(tmp_path, log + sealer.seal([b"1"], START)).valid is is_record


def test_the_end_of_a_line_longer_than_any_record_is_none_wherever_a_reader_cuts_it(tmp_path: Path) -> None:
    first, second, *others = lines_of(small_log())
    junk = b"x" * (MAX_LINE_BYTES + 2 * BLOCK_BYTES - len(first) - MAX_LINE_BYTES % BLOCK_BYTES)
    assert (len(first) + len(junk)) % BLOCK_BYTES == 0
    report = check(tmp_path, b"".join([first, junk, second, *others]))
    assert kinds(report)[0] == "modified"
    assert report.records_checked == 23


@pytest.mark.parametrize("content", [lines_of(small_log())[0][:-1], small_log()[:100]])
def test_half_a_first_record_is_no_log(tmp_path: Path, content: bytes) -> None:
    assert kinds(check(tmp_path, content)) == ["malformed"]
    with pytest.raises(ConfigurationError, match="no log"):
        last_state(tmp_path / "log.0", STREAM)


def test_a_file_that_cannot_be_read_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(StorageOperationError):
        StreamChecker(TestTrust()).check([LogFile(tmp_path / "absent")])
