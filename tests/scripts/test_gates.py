"""The gates on coverage and file length let nothing through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import check_coverage, check_file_length


def report(folder: Path, name: str, lines: list[int], branches: list[tuple[int, int]]) -> Path:
    path = folder / "coverage.json"
    path.write_text(json.dumps({"files": {name: {"missing_lines": lines, "missing_branches": branches}}}))
    return path


def test_an_unexecuted_line_of_a_complete_room_is_a_gap(tmp_path: Path) -> None:
    path = report(tmp_path, "src/keystead/crypto/envelope.py", [3, 4, 5, 9], [])
    assert check_coverage.gaps(path) == ["src/keystead/crypto/envelope.py: not executed: 3-5, 9"]


def test_an_unexecuted_branch_of_a_complete_room_is_a_gap(tmp_path: Path) -> None:
    path = report(tmp_path, "src/keystead/lifecycle/rotation.py", [], [(7, 9), (8, -1)])
    assert check_coverage.gaps(path) == ["src/keystead/lifecycle/rotation.py: not executed: 7->9, 8->exit"]


def test_other_rooms_have_only_the_floor_of_the_whole_package(tmp_path: Path) -> None:
    assert check_coverage.gaps(report(tmp_path, "src/keystead/cli/main.py", [1], [])) == []


def test_a_report_that_is_missing_is_no_success(tmp_path: Path) -> None:
    assert check_coverage.main([str(tmp_path / "none.json")]) == 2


def test_no_file_of_this_repository_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_file_length.main() == 0, capsys.readouterr().out
