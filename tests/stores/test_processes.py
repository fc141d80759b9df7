"""One store, several processes, forks and event loops."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import StorageOperationError, StoreUnavailableError
from keystead.ports import KeyStore
from keystead.stores import creation, open_store
from keystead.stores.memory import MemoryKeyStore
from tests.stores.records import fill, keyring

pytestmark = pytest.mark.usefixtures("by_alembic")

OPEN_AND_PRINT = """
import asyncio, sys
from keystead.stores import creation, open_store

async def main():
    store = open_store(sys.argv[1])
    print((await store.open()).store_id)
    await store.aclose()

asyncio.run(main())
"""


def in_fork(work: Callable[[], object]) -> str:
    """Run ``work`` in a forked child and return what it returned, or the error it raised, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = str(work())
        except BaseException as failure:
            answer = f"{type(failure).__name__}: {failure}"
        os.write(writing, answer.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer


async def add(store: KeyStore, name: str) -> str:
    async with store.transaction() as work:
        return str(await work.add_keyring(keyring(name)))


async def names(store: KeyStore) -> list[str]:
    async with store.reading() as work:
        return [record.name for record in await work.keyrings()]


def test_four_processes_that_start_at_once_make_one_store(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_AND_PRINT, f"sqlite:///{tmp_path}/keys.db"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate(timeout=120)[0] for process in started]
    assert (len(set(answers)), len(answers[0])) == (1, 33)


async def test_a_new_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    await store.aclose()
    assert modes == {0o600}


@pytest.mark.parametrize("lock", ["DEFERRED", "EXCLUSIVE"])
def test_a_file_that_another_process_is_creating_is_waited_for(tmp_path: Path, lock: str) -> None:
    other = sqlite3.connect(tmp_path / "keys.db", isolation_level=None, check_same_thread=False)
    other.execute(f"BEGIN {lock}")
    other.execute("SELECT * FROM sqlite_master")
    release = threading.Timer(0.3, other.close)
    release.start()
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    asyncio.run(store.open())
    asyncio.run(store.aclose())


def test_a_file_that_another_process_keeps_locked_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "BUSY_TIMEOUT_S", 0.1)
    other = sqlite3.connect(tmp_path / "keys.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        asyncio.run(open_store(f"sqlite:///{tmp_path}/keys.db").open())
    other.close()


def test_a_child_of_a_fork_uses_the_store_and_so_does_its_parent(durable_url: str) -> None:
    store = open_store(durable_url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(add(store, "parent's"))
    assert in_fork(lambda: asyncio.run(add(store, "child's"))) == "True"
    loop.run_until_complete(add(store, "parent's second"))
    assert loop.run_until_complete(names(store)) == ["child's", "parent's", "parent's second"]
    loop.run_until_complete(store.aclose())
    loop.close()


def test_what_a_child_commits_outlives_the_parents_close(tmp_path: Path) -> None:
    """With a handle inherited over the fork, SQLite would delete the log under the child."""
    url = f"sqlite:///{tmp_path}/keys.db"
    store = open_store(url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(store.open())
    loop.run_until_complete(add(store, "before"))
    to_child, to_parent = multiprocessing.Pipe()
    child = os.fork()
    if child == 0:

        async def write_twice() -> None:
            await add(store, "first")
            to_parent.send("written")
            to_parent.recv()
            await add(store, "second")

        asyncio.run(write_twice())
        os._exit(0)
    to_child.recv()
    loop.run_until_complete(store.aclose())
    to_child.send("parent has closed")
    os.waitpid(child, 0)
    assert loop.run_until_complete(names(store)) == ["before", "first", "second"]
    loop.run_until_complete(store.aclose())
    loop.close()


def test_a_fork_waits_for_the_transaction_of_another_thread(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    asyncio.run(store.open())
    inside = threading.Event()

    async def slow() -> None:
        async with store.transaction() as work:
            await work.add_keyring(keyring("slow"))
            inside.set()
            await asyncio.sleep(0.3)
        await store.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(slow()))
    thread.start()
    inside.wait()
    other = open_store(f"sqlite:///{tmp_path}/keys.db")
    assert in_fork(lambda: asyncio.run(names(other))) == "['slow']"
    thread.join()


def test_a_child_forked_inside_its_own_transaction_is_refused(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")

    async def fork_inside() -> str:
        await store.open()
        async with store.transaction():
            answer = await asyncio.to_thread(str, in_fork(lambda: _in_new_loop(names(store))))
        await store.aclose()
        return answer

    assert "forked while its parent was using an SQLite store" in asyncio.run(fork_inside())


def _in_new_loop(work: Coroutine[Any, Any, object]) -> object:
    answers: list[object] = []

    def run() -> None:
        try:
            answers.append(asyncio.run(work))
        except StorageOperationError as failure:
            answers.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return answers[0]


def test_a_memory_store_says_that_it_does_not_survive_a_fork() -> None:
    store = MemoryKeyStore()
    asyncio.run(fill(store))
    assert "does not survive a fork" in in_fork(lambda: asyncio.run(names(store)))
    assert asyncio.run(names(store)) == ["default"]


def test_a_store_goes_on_in_another_event_loop(durable_url: str) -> None:
    store = open_store(durable_url)
    asyncio.run(add(store, "first"))
    asyncio.run(add(store, "second"))

    async def last() -> list[str]:
        found = await names(store)
        await store.aclose()
        return found

    assert asyncio.run(last()) == ["first", "second"]


def test_a_store_closes_from_another_event_loop(durable_url: str) -> None:
    store = open_store(durable_url)
    asyncio.run(add(store, "first"))
    asyncio.run(store.aclose())


def test_a_store_that_could_not_connect_closes_from_another_event_loop(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    with pytest.raises(StoreUnavailableError) as caught:
        asyncio.run(names(store))
    asyncio.run(asyncio.wait_for(store.aclose(), 5))
    assert caught.value.retryable


async def test_a_store_on_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    await fill(store)
    await store.aclose()
    if os.geteuid() != 0:
        (tmp_path / "keys.db").chmod(0o400)
        tmp_path.chmod(0o500)
        answer = in_fork(lambda: asyncio.run(names(store)))
        tmp_path.chmod(0o700)
    else:
        answer = in_fork(lambda: _as_nobody(tmp_path, store))
    assert answer == "['default']"


def _as_nobody(folder: Path, store: KeyStore) -> list[str]:
    for parent in [folder, *folder.parents]:
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    (folder / "keys.db").chmod(0o444)
    os.setgid(65534)
    os.setuid(65534)
    return asyncio.run(names(store))


async def test_a_backup_of_the_file_alone_after_close_holds_everything(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    await fill(store)
    await store.aclose()
    shutil.copyfile(tmp_path / "keys.db", tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("SELECT name FROM keyrings").fetchall() == [("default",)]
    copy.close()


@pytest.mark.parametrize("pragma", [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)])
async def test_an_sqlite_store_is_durable_at_commit(tmp_path: Path, pragma: tuple[str, object]) -> None:
    from sqlalchemy import text

    from keystead.stores.sql import SqlKeyStore

    store = SqlKeyStore(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    async with store._connections.begin(is_writing=True) as connection:
        assert (await connection.execute(text(f"PRAGMA {pragma[0]}"))).scalar() == pragma[1]
    await store.aclose()


@pytest.mark.parametrize(("configured", "used"), [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply",) * 2])
async def test_a_postgresql_store_is_durable_at_commit(postgres_url: str, configured: str, used: str) -> None:
    from sqlalchemy import text

    from keystead.stores.sql import SqlKeyStore

    store = SqlKeyStore(f"{postgres_url}&options=-csynchronous_commit%3D{configured}")
    async with store._connections.begin(is_writing=True) as connection:
        assert (await connection.execute(text("SHOW synchronous_commit"))).scalar() == used
    await store.aclose()


async def test_a_file_that_another_one_took_the_place_of_is_opened_anew(tmp_path: Path) -> None:
    paths = [tmp_path / "keys.db", tmp_path / "backup.db"]
    opened = [open_store(f"sqlite:///{path}") for path in paths]
    ids = [(await store.open()).store_id for store in opened]
    await opened[1].aclose()
    paths[0].with_name("keys.db-wal").unlink(missing_ok=True)
    paths[0].with_name("keys.db-shm").unlink(missing_ok=True)
    paths[1].replace(paths[0])
    async with opened[0].reading() as work:
        assert (await work.state()).store_id == ids[1] != ids[0]
    await opened[0].aclose()


async def test_a_file_that_is_gone_is_not_written_to_any_more(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    for path in tmp_path.glob("keys.db*"):
        path.unlink()
    with pytest.raises(StoreUnavailableError):
        async with store.transaction() as work:
            await work.bump_epoch()
    await store.aclose()
