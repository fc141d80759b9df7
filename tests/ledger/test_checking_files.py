"""A stream through several files."""

from __future__ import annotations

import gzip
from pathlib import Path

from keystead.crypto.merkle import Frontier
from keystead.ledger.format.records import Kind, parse_line
from keystead.ledger.writing.sealer import Sealer
from tests.ledger.logs import (
    START,
    STREAM,
    check,
    kinds,
    lines_of,
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


def test_a_compressed_file_is_read_as_it_is(tmp_path: Path) -> None:
    assert check(tmp_path, *(gzip.compress(content) for content in two_files())).errors == []


def test_a_damaged_compressed_file_is_a_finding(tmp_path: Path) -> None:
    content = gzip.compress(small_log())
    assert not check(tmp_path, content[: len(content) // 2]).valid
    assert not check(tmp_path, content[:100] + b"\xff\xff\xff" + content[103:]).valid
