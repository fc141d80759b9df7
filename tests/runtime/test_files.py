"""Files that are replaced, and folders that are made, so that a crash takes neither."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from keystead.runtime.files import make_folder, replace_file


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return what is synced and replaced, in its order."""
    made: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def synced(file: int) -> None:
        made.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{file}"))))
        sync(file)

    def replaced(source: Path, target: Path) -> None:
        made.append(("replace", target.name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    return made


def test_a_file_is_on_disk_before_it_has_its_name_and_its_name_before_the_call_returns(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old, and longer")
    replace_file(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    staged = calls[0][1]
    assert staged.startswith("kept.")
    assert staged.endswith(".new")
    assert calls == [("sync", staged), ("replace", "kept"), ("sync", tmp_path.name)]


def test_a_file_that_two_replace_at_once_is_one_of_theirs_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sync = tmp_path / "kept", os.fsync

    def overtaken(file: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        replace_file(path, b"overtakes, and is longer")
        assert path.read_bytes() == b"overtakes, and is longer"
        sync(file)

    monkeypatch.setattr(os, "fsync", overtaken)
    replace_file(path, b"was overtaken")
    assert path.read_bytes() == b"was overtaken"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_stays_and_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_has_its_name_on_disk_and_so_have_those_above_it(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    make_folder(tmp_path / "one" / "two", mode=0o700)
    assert stat.S_IMODE((tmp_path / "one" / "two").stat().st_mode) == 0o700
    assert calls == [("sync", "one"), ("sync", tmp_path.name)]


def test_of_a_folder_that_is_there_the_name_may_not_be_on_disk_yet(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    (tmp_path / "one").mkdir()
    make_folder(tmp_path / "one")
    assert calls == [("sync", tmp_path.name)]


def test_a_folder_whose_place_may_not_be_read_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    make_folder(tmp_path / "one")
    assert (tmp_path / "one").is_dir()
