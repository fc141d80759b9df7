"""Reading a log as it grows, and what it says of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from keystead.errors import InvalidInputError
from keystead.ledger import SealedFile
from keystead.ledger.reading.following import LogFollower
from keystead.ledger.reading.overview import LogReader
from keystead.testing import FakeKMS


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SealedFile]:
    with SealedFile(tmp_path / "app.log", stream="example.org/app", kms=FakeKMS(), key_id="audit") as made:
        yield made


def numbers(records: object) -> list[int]:
    return [int(record.payload) for record in records if record.kind is None]  # type: ignore[attr-defined]


def test_records_come_in_their_order_through_all_files(log: SealedFile) -> None:
    for number in range(9):
        log.append(str(number).encode())
        if number % 3 == 2:
            log.rotate()
    log.flush()
    follower = LogFollower(log.path)
    assert numbers(follower.since(0)) == list(range(9))
    assert numbers(follower.last(4)) == [5, 6, 7, 8]
    assert numbers(follower.last(0)) == []
    assert numbers(LogFollower(f"{log.path}.000002").since(0)) == [3, 4, 5]


def test_what_is_written_while_it_is_followed_is_seen_once_whatever_ends_meanwhile(log: SealedFile) -> None:
    log.append(b"0")
    log.flush()
    steps = iter(range(1, 30))

    def pause() -> bool:
        number = next(steps, None)
        if number is None:
            return False
        log.append(str(number).encode())
        if number % 4 == 0:
            log.rotate()
        if number % 7 == 0:
            log.rotate()
        log.flush()
        return True

    assert numbers(LogFollower(log.path, pause).since(0)) == list(range(30))


def test_a_file_that_was_removed_is_passed_over(log: SealedFile) -> None:
    for number in range(3):
        log.append(str(number).encode())
        log.rotate()
    log.retire([2], "too old")
    assert numbers(LogFollower(log.path).since(0)) == [0, 2]


def test_the_last_records_are_found_without_reading_all(log: SealedFile) -> None:
    log.append_many([b"1"] * 20_000)
    log.append_many([b"2", b"3"])
    log.flush()
    assert numbers(LogFollower(log.path).last(2)) == [2, 3]
    assert len(numbers(LogFollower(log.path).last(15_000))) == 15_000


def test_where_there_is_no_log_that_is_said(tmp_path: Path) -> None:
    follower = LogFollower(tmp_path / "a.log")
    for records in (follower.since(0), follower.last(1)):
        with pytest.raises(InvalidInputError):
            next(records)
    (tmp_path / "a.log").write_bytes(b"text\n")
    with pytest.raises(InvalidInputError):
        list(LogFollower(tmp_path / "a.log").since(0))


def test_what_a_log_says_of_itself(log: SealedFile) -> None:
    log.append(b"1")
    log.checkpoint()
    log.append(b"2")
    ended = log.rotate()
    seen = LogReader(ended).read()
    assert (seen.stream, seen.file, seen.first, seen.records, seen.ends) == ("example.org/app", 1, 0, 6, 2)
    assert seen.kinds == {"file": 1, "application": 2, "checkpoint": 2, "close": 1}
    assert [each["size"] for each in seen.checkpoints] == [2, 5]
    assert seen.sessions[0]["key_id"] == "fake:audit:1"
    assert (seen.junk_bytes, seen.payload_bytes) == (0, 2)


def test_what_is_no_record_is_counted(log: SealedFile) -> None:
    log.append(b"1")
    log.flush()
    with log.path.open("ab") as file:
        file.write(b"garbage\nhalf a li")
    seen = LogReader(log.path).read()
    assert (seen.junk_bytes, seen.kinds["application"]) == (16, 1)


def test_whatever_a_file_holds_reading_it_ends(tmp_path: Path, log: SealedFile) -> None:
    log.append(b"1")
    log.checkpoint()
    content = log.path.read_bytes()
    path = tmp_path / "other.log"
    for at in range(0, len(content), 3):
        path.write_bytes(content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :])
        with contextlib.suppress(InvalidInputError):
            LogReader(path).read()
        with contextlib.suppress(InvalidInputError):
            list(LogFollower(path).last(5))
