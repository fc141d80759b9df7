from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import StorageOperationError, StoreFullError
from keystead.ports import SeenState
from keystead.stores.journal import FileJournal

STORE = "0123456789abcdef" * 2
KEYS = {7: ("people", 1), 8: ("people", 2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "state" / "keystead"


def lines(folder: Path) -> list[str]:
    return (folder / f"{STORE}.journal").read_text().splitlines()


def test_nothing_is_known_of_a_new_store_and_asking_makes_no_file(folder: Path) -> None:
    assert FileJournal(folder).read(STORE) == SeenState()
    assert not folder.exists()


def test_what_was_written_is_read_by_this_and_by_another_process(folder: Path) -> None:
    one, two = FileJournal(folder), FileJournal(folder)
    one.append(STORE, epoch=3, keys=KEYS, destroyed=[7])
    two.append(STORE, epoch=5, keys={9: ("other", 1)})
    expected = SeenState(5, KEYS | {9: ("other", 1)}, frozenset({7}))
    for reader in (one, two, FileJournal(str(folder))):
        assert reader.read(STORE) == expected
    assert one.read("f" * 32) == SeenState()


def test_what_is_known_is_not_written_again(folder: Path) -> None:
    one = FileJournal(folder)
    one.append(STORE, epoch=3, keys=KEYS, destroyed=[7])
    before = lines(folder)
    for writer in (one, FileJournal(folder)):
        writer.append(STORE, epoch=3, keys=KEYS, destroyed=[7])
        writer.append(STORE, epoch=2)
        writer.append(STORE)
    assert lines(folder) == before


def test_the_lines_are_the_specs(folder: Path) -> None:
    FileJournal(folder).append(STORE, epoch=3, keys={7: ("people", 1)}, destroyed=[8])
    FileJournal(folder).append(STORE, epoch=3, audited=True)
    assert [json.loads(line) for line in lines(folder)] == [
        {"epoch": 3},
        {"key": 7, "keyring": "people", "version": 1},
        {"destroyed": 8},
        {"epoch": 3, "audited": True},
    ]


def test_only_the_owner_may_read_it(folder: Path) -> None:
    FileJournal(folder).append(STORE, epoch=3)
    assert stat.S_IMODE((folder / f"{STORE}.journal").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = FileJournal("state")
    monkeypatch.chdir("/")
    made.append(STORE, epoch=1)
    assert (tmp_path / "state" / f"{STORE}.journal").exists()


def test_a_line_torn_at_any_byte_is_passed_over_and_the_next_writer_starts_a_new_one(folder: Path) -> None:
    FileJournal(folder).append(STORE, epoch=3, keys=KEYS)
    path = folder / f"{STORE}.journal"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = whole[:length].count(b"\n")
        torn = FileJournal(folder)
        state = torn.read(STORE)
        assert (state.epoch > 0) + len(state.keys) == kept
        torn.append(STORE, epoch=9, destroyed=[7])
        again = FileJournal(folder).read(STORE)
        assert (again.epoch, again.destroyed) == (9, frozenset({7}))
        assert set(again.keys) >= set(state.keys)


@pytest.mark.parametrize(
    "odd",
    [
        "nonsense",
        "[]",
        "7",
        '{"epoch": "many"}',
        '{"key": 1}',
        '{"key": [], "keyring": 1, "version": 1}',
        "\udcff",
        "{}",
    ],
)
def test_a_line_that_cannot_be_read_is_passed_over(folder: Path, odd: str) -> None:
    FileJournal(folder).append(STORE, epoch=3)
    path = folder / f"{STORE}.journal"
    path.write_bytes(path.read_bytes() + odd.encode(errors="surrogateescape") + b"\n\n")
    reader = FileJournal(folder)
    reader.append(STORE, epoch=4)
    assert reader.read(STORE).epoch == 4
    assert FileJournal(folder).read(STORE).epoch == 4


def failing(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(code, "made up")

    monkeypatch.setattr(f"keystead.stores.journal.os.{name}", fail)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_may_not_be_written_is_reported_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    made = FileJournal(folder)
    made.append(STORE, epoch=1)
    failing(monkeypatch, "open", code)
    with caplog.at_level(logging.WARNING):
        for epoch in (2, 3):
            made.append(STORE, epoch=epoch)
    assert [record.message for record in caplog.records if "unnoticed" in record.message] == [
        "the state folder cannot be written: a restored store would go unnoticed here"
    ]
    assert made.read(STORE).epoch == 1


@pytest.mark.parametrize(
    ("call", "code", "expected"),
    [
        ("open", errno.ENOSPC, StoreFullError),
        ("fsync", errno.EDQUOT, StoreFullError),
        ("open", errno.EIO, StorageOperationError),
    ],
)
def test_a_disk_that_fails_is_a_typed_error_and_nothing_is_believed_to_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, expected: type[Exception]
) -> None:
    made = FileJournal(folder)
    made.append(STORE, epoch=1)
    with monkeypatch.context() as patch:
        failing(patch, call, code)
        with pytest.raises(expected) as refused:
            made.append(STORE, epoch=2)
    assert refused.type is expected
    made.append(STORE, epoch=2)
    assert FileJournal(folder).read(STORE).epoch == 2


def test_a_line_that_went_down_in_part_is_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = FileJournal(folder)
    made.append(STORE, epoch=1)
    write: Callable[[int, bytes], int] = os.write

    def short(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:5])

    with monkeypatch.context() as patch:
        patch.setattr("keystead.stores.journal.os.write", short)
        with pytest.raises(StoreFullError):
            made.append(STORE, epoch=2)
    made.append(STORE, epoch=3)
    assert FileJournal(folder).read(STORE).epoch == 3


def test_a_journal_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / f"{STORE}.journal").mkdir()
    made = FileJournal(tmp_path)
    with pytest.raises(StorageOperationError, match="state folder"):
        made.read(STORE)
    with pytest.raises(StorageOperationError, match="state folder"):
        made.append(STORE, epoch=1)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_of_a_fork_writes_beside_its_parent(folder: Path) -> None:
    made: Any = FileJournal(folder)
    made.append(STORE, epoch=1)
    with made._lock:
        child = os.fork()
        if child == 0:
            made.append(STORE, epoch=2, keys={9: ("child", 1)})
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert made.read(STORE) == SeenState(2, {9: ("child", 1)}, frozenset())


def test_the_latest_export_is_remembered_with_the_epoch_it_had(folder: Path) -> None:
    first, second = datetime(2030, 1, 2, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    journal = FileJournal(folder)
    assert journal.read(STORE).exported_at is None
    for moment in (first, second):
        journal.append(STORE, epoch=7, exported_at=moment)
    assert FileJournal(folder).read(STORE) == SeenState(7, exported_at=first)
    assert json.loads(lines(folder)[0]) == {"epoch": 7, "exported": "2030-01-02T00:00:00.000000Z"}


def test_an_export_whose_time_is_unreadable_is_passed_over(folder: Path) -> None:
    FileJournal(folder).append(STORE, epoch=1)
    with (folder / f"{STORE}.journal").open("a") as file:
        file.write('{"epoch": 2, "exported": "soon"}\n')
    assert FileJournal(folder).read(STORE).exported_at is None


def test_the_highest_epoch_at_which_a_trail_was_kept_is_remembered_and_written_once(folder: Path) -> None:
    journal = FileJournal(folder)
    journal.append(STORE, epoch=5)
    assert journal.read(STORE).audited == 0
    for epoch in (7, 7, 6):
        journal.append(STORE, epoch=epoch, audited=True)
    journal.append(STORE, epoch=8)
    assert FileJournal(folder).read(STORE) == SeenState(8, audited=7)
    assert lines(folder) == ['{"epoch":5}', '{"epoch":7,"audited":true}', '{"epoch":8}']


def test_a_mark_that_is_none_is_passed_over_and_its_epoch_is_not(folder: Path) -> None:
    FileJournal(folder).append(STORE, epoch=1)
    with (folder / f"{STORE}.journal").open("a") as file:
        file.write('{"epoch": 2, "audited": 1}\n')
    assert FileJournal(folder).read(STORE) == SeenState(2)
