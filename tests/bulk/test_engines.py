"""What every engine does, whatever runs its workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keystead import bulk
from keystead.blocking import KeyManager
from keystead.bulk import BulkEngine, BulkProgress, ProcessPool
from keystead.bulk.tasks import FileResult, FileToDo, Operation, Task
from keystead.bulk.worker import Worker
from keystead.errors import ConfigurationError
from tests.bulk.conftest import FILES, ROWS, RULES, content_of, plain_rows_of, rows_of


def test_the_same_dataset_comes_back_and_a_second_run_does_nothing(
    km: KeyManager, engine: BulkEngine, plain: Path, tmp_path: Path, settings: Path
) -> None:
    target = tmp_path / "encrypted"
    seen: list[BulkProgress] = []
    report = bulk.encrypt(km, plain, target, RULES, engine=engine, settings=settings, on_progress=seen.append)
    assert (report.done, report.unchanged, report.rows, report.failures) == (FILES, 0, FILES * ROWS, [])
    assert report.engine == engine.name
    assert rows_of(km, target).equals(plain_rows_of(plain))
    assert [each.files_done for each in seen] == [*range(1, FILES + 1)]
    assert seen[-1].bytes_done == seen[-1].bytes == report.bytes_read
    before = content_of(target)
    again = bulk.encrypt(km, plain, target, RULES, engine=engine, settings=settings)
    assert (again.done, again.unchanged) == (0, FILES)
    assert content_of(target) == before


def test_every_operation_runs_on_it(
    km: KeyManager, engine: BulkEngine, plain: Path, encrypted: Path, settings: Path
) -> None:
    assert bulk.verify(km, encrypted, RULES, engine=engine, settings=settings).rows == FILES * ROWS
    assert bulk.reencrypt(km, encrypted, engine=engine, settings=settings).done == FILES
    km.keyring("pii").rotate(promote="now")
    assert bulk.rotate_master_keys(km, encrypted, engine=engine, settings=settings).done == FILES
    assert bulk.rotate_master_keys(km, encrypted, engine=engine, settings=settings).done == 0
    assert bulk.verify(km, encrypted, RULES, engine=engine, settings=settings).is_complete
    assert rows_of(km, encrypted).equals(plain_rows_of(plain))


def test_a_file_that_fails_fails_alone_and_is_done_when_it_is_mended(
    km: KeyManager, engine: BulkEngine, plain: Path, tmp_path: Path, settings: Path
) -> None:
    bad = plain / "country=DE" / "part-3.parquet"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-20])
    target = tmp_path / "encrypted"
    report = bulk.encrypt(km, plain, target, RULES, engine=engine, settings=settings)
    assert (report.done, report.is_complete) == (FILES - 1, False)
    assert [(each.name, each.code) for each in report.failures] == [("country=DE/part-3.parquet", "invalid_input")]
    assert not (target / "country=DE" / "part-3.parquet").exists()
    bad.write_bytes(whole)
    again = bulk.encrypt(km, plain, target, RULES, engine=engine, settings=settings)
    assert (again.done, again.unchanged, again.failures) == (1, FILES - 1, [])
    assert rows_of(km, target).equals(plain_rows_of(plain))


def verifying(home: Worker, folder: Path, number: int) -> Iterator[Task]:
    """Yield tasks that read a file again and again."""
    for each in range(number):
        todo = (FileToDo("country=DE/part-1.parquet"),)
        yield Task(each, Operation.VERIFY, 1, home.store_id, str(folder), "", todo)


def test_tasks_are_taken_as_they_are_needed_and_a_stop_ends_it_soon(
    km: KeyManager, engine: BulkEngine, encrypted: Path, settings: Path
) -> None:
    home, stop, taken, ended = Worker(km, str(settings)), threading.Event(), 0, 0

    def tasks() -> Iterator[Task]:
        nonlocal taken
        for task in verifying(home, encrypted, 1000):
            taken += 1
            yield task

    def on_result(task: Task, results: list[FileResult]) -> None:
        nonlocal ended
        ended += 1
        assert [each.rows for each in results] == [ROWS]
        assert taken - ended <= 8
        if ended == 5:
            stop.set()

    engine.run(tasks(), home, on_result, stop)
    assert 5 <= ended < 100


def test_what_the_caller_raises_ends_the_run(
    km: KeyManager, engine: BulkEngine, encrypted: Path, settings: Path
) -> None:
    def on_result(task: Task, results: list[FileResult]) -> None:
        raise KeyboardInterrupt

    home = Worker(km, str(settings))
    with pytest.raises(KeyboardInterrupt):
        engine.run(verifying(home, encrypted, 1000), home, on_result, threading.Event())


@pytest.mark.parametrize("engine", ["processes", "dask"], indirect=True)
def test_a_worker_with_another_store_does_nothing(
    km: KeyManager, engine: BulkEngine, plain: Path, tmp_path: Path, initialised: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "keystead.yaml").write_text(
        f'store: "sqlite:///{other}/keys.db"\nkms: "file:{initialised}/keystead.kek"\n'
    )
    with KeyManager.from_config(other / "keystead.yaml", background=False):
        pass
    with pytest.raises(ConfigurationError, match="another store"):
        bulk.encrypt(km, plain, tmp_path / "encrypted", RULES, engine=engine, settings=other / "keystead.yaml")
    assert not list((tmp_path / "encrypted").rglob("*.parquet"))


def test_workers_are_above_zero() -> None:
    with pytest.raises(ValueError, match="above zero"):
        ProcessPool(0)
