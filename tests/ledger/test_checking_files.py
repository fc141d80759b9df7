"""A stream through several files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from keystead.crypto.merkle import Frontier
from keystead.ledger.format.records import Kind, parse_line
from keystead.ledger.writing.sealer import Sealer
from tests.ledger.logs import (
    START,
    STREAM,
    check,
    kinds,
    lines_of,
    payloads,
    roots_of,
    session,
    session_key,
    small_log,
    two_files,
)
from tests.ledger.vectors import unbase64


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
    tree = Frontier(30, roots_of(first + second + third))
    sealer = Sealer(STREAM, session("two", START + 2_700_006), session_key("two"), tree=tree)
    sealer.tag = unbase64(parse_line(lines_of(third)[-1][:-1]).tag.decode() + "=")
    sealer.time_ms = START + 2_700_005
    removed = {"files": [{"file": 1, "first": 0, "last": 9}], "reason": "older than a year"}
    fourth = sealer.file(4, START + 2_700_006) + sealer.control(Kind.RETENTION, removed, START + 2_700_006)
    report = check(tmp_path, second, third, fourth, is_whole=True)
    assert report.errors == []
    assert kinds(check(tmp_path, third, fourth, is_whole=True)) == ["missing"]


def with_the_second_removed(first: int, last: int) -> list[bytes]:
    """Return three files, of which the third says that the second was removed, with such records."""
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    files = []
    for number in range(1, 4):
        content = sealer.file(number, START)
        if number == 3:
            told = {"files": [{"file": 2, "first": first, "last": last}], "reason": "too many"}
            content += sealer.control(Kind.RETENTION, told, START)
        files.append(content + sealer.seal(payloads(3), START) + sealer.control(Kind.CLOSE, {}, START))
    return files


def test_what_is_cut_before_a_file_that_was_removed_is_found(tmp_path: Path) -> None:
    first, second, third = with_the_second_removed(5, 9)
    assert check(tmp_path, first, second, third, is_whole=True).errors == []
    assert check(tmp_path, first, third, is_whole=True).errors == []
    cut = b"".join(lines_of(first)[:-2])
    report = check(tmp_path, cut, third, is_whole=True)
    assert [(error.error_type, error.message.split(",")[0]) for error in report.errors] == [
        ("missing", "records from 3 on")
    ]


@pytest.mark.parametrize("span", [(6, 9), (4, 9), (5, 8), (5, 10)])
def test_a_file_that_was_removed_had_all_records_that_are_not_here(tmp_path: Path, span: tuple[int, int]) -> None:
    first, _, third = with_the_second_removed(*span)
    assert kinds(check(tmp_path, first, third)) == ["missing"]


def test_a_stream_begins_with_its_first_record(tmp_path: Path) -> None:
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    sealer.file(1, START)
    later = sealer.file(1, START) + sealer.seal(payloads(3), START)
    assert kinds(check(tmp_path, later, is_whole=True)) == ["missing"]


def test_a_file_that_the_one_before_it_names_is_missed(tmp_path: Path) -> None:
    first, second, _ = two_files()
    report = check(tmp_path, first, second, is_whole=True)
    assert (report.errors, report.closed) == ([], False)
    assert "goes on in file 3, which is not here" in report.warnings[-1]
    assert not any("file 2" in each for each in check(tmp_path, first).warnings)


def test_a_compressed_file_is_read_as_it_is(tmp_path: Path) -> None:
    assert check(tmp_path, *(gzip.compress(content) for content in two_files())).errors == []


def test_a_damaged_compressed_file_is_a_finding(tmp_path: Path) -> None:
    content = gzip.compress(small_log())
    assert not check(tmp_path, content[: len(content) // 2]).valid
    assert not check(tmp_path, content[:100] + b"\xff\xff\xff" + content[103:]).valid
