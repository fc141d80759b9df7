"""What the store's failures become: a typed error, nothing lost, and a store that goes on once the cause is gone."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy import exc as sa

from keystead.errors import (
    ConflictError,
    ForeignSchemaError,
    InvalidInputError,
    KMSError,
    StorageOperationError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from keystead.model import DataKeyState
from keystead.stores import engines, open_store
from keystead.stores.failures import ours_only, translate
from keystead.stores.schema import migrate
from keystead.stores.sql import SqlKeyStore
from tests.fakes.postgres import PostgresServer
from tests.stores.records import data_key, fill, keyring

FILL_UP_TO_A_LIMIT = """
import asyncio, resource, signal, sys
from keystead.errors import StoreFullError
from keystead.stores import open_store
from tests.stores.records import fill, keyring

async def main():
    store = open_store(sys.argv[1])
    await store.open()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    kept = 0
    try:
        while True:
            async with store.transaction() as work:
                for n in range(50):
                    await work.add_keyring(keyring(f"{kept}-{n}-" + "x" * 200))
            kept += 50
    except StoreFullError:
        print("full")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    async with store.transaction() as work:
        await work.add_keyring(keyring("~after"))
    async with store.reading() as work:
        print(len(await work.keyrings(limit=10**6)) == kept + 1)
    await store.aclose()

asyncio.run(main())
"""


def test_a_disk_that_fills_up_loses_nothing_and_the_store_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILL_UP_TO_A_LIMIT, f"sqlite:///{tmp_path}/keys.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout.split(), done.stderr) == (["full", "True"], "")


async def test_a_file_at_its_page_limit_is_full(tmp_path: Path) -> None:
    store = SqlKeyStore(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    with pytest.raises(StoreFullError):
        async with store._connections.begin(is_writing=True) as connection:
            await connection.exec_driver_sql("PRAGMA max_page_count = 1")
            with ours_only():
                await connection.exec_driver_sql("CREATE TABLE big AS SELECT zeroblob(1000000)")
    await fill(store)
    await store.aclose()


async def test_a_locked_file_is_unavailable_for_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_S", 0.1)
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    other = sqlite3.connect(tmp_path / "keys.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked") as caught:
        await fill(store)
    other.close()
    assert caught.value.retryable
    await fill(store)
    await store.aclose()


async def test_a_read_only_connection_reads_and_says_so_when_it_must_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    await fill_new(store)
    await store.aclose()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    async with store.reading() as work:
        assert await work.find_keyring("default") is not None
    with pytest.raises(StoreReadOnlyError):
        await fill(store)
    await store.aclose()


async def fill_new(store: Any) -> None:
    await store.open()
    await fill(store)


async def test_a_read_only_database_reads_and_says_so_when_it_must_write(postgres_url: str) -> None:
    migrate(postgres_url)
    store = open_store(f"{postgres_url}&options=-cdefault_transaction_read_only%3Don")
    await store.open()
    async with store.reading() as work:
        assert await work.keyrings() == []
    async with store._connections.begin(is_writing=False) as connection:  # type: ignore[attr-defined]
        with pytest.raises(StoreReadOnlyError), ours_only():
            await connection.exec_driver_sql("UPDATE store_state SET epoch = 0")
        await connection.rollback()
    await store.aclose()


async def test_a_file_that_is_gone_is_not_made_anew_by_use(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        await fill(store)
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageOperationError, match=r"create .*absent first"):
        await open_store(f"sqlite:///{tmp_path}/absent/keys.db").open()


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_bytes(b"notes, not a database\n" * 500)
    with pytest.raises(ForeignSchemaError, match="not an SQLite database"):
        await open_store(f"sqlite:///{tmp_path}/keys.db").open()
    assert (tmp_path / "keys.db").read_bytes() == b"notes, not a database\n" * 500


async def test_a_damaged_file_is_an_error_of_ours(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    await fill(store, *(data_key(version=n, state=DataKeyState.PRE_ACTIVE) for n in range(1, 3)))
    await store.aclose()
    content = (tmp_path / "keys.db").read_bytes()
    (tmp_path / "keys.db").write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StorageOperationError):
        await store.open()
    await store.aclose()


async def test_a_server_that_stops_and_starts_is_survived(postgres_server: PostgresServer, postgres_url: str) -> None:
    migrate(postgres_url)
    store = open_store(postgres_url)
    await store.open()
    await fill(store)
    postgres_server.stop()
    with pytest.raises(StoreUnavailableError) as caught:
        async with store.reading() as work:
            await work.keyrings()
    assert caught.value.retryable
    postgres_server.start()
    async with store.reading() as work:
        assert [record.name for record in await work.keyrings()] == ["default"]
    await store.aclose()


async def test_a_server_that_crashes_inside_a_transaction_leaves_nothing(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    migrate(postgres_url)
    store = open_store(postgres_url)
    with pytest.raises(StoreUnavailableError):
        async with store.transaction() as work:
            await work.add_keyring(keyring())
            postgres_server.stop(crash=True)
            await work.keyrings()
    postgres_server.start()
    async with store.transaction() as work:
        assert await work.add_keyring(keyring())
    await store.aclose()


async def test_two_transactions_that_wait_for_each_other_end_in_a_conflict(postgres_url: str) -> None:
    migrate(postgres_url)
    store = open_store(postgres_url)
    await fill(store)
    async with store.transaction() as work:
        await work.add_keyring(keyring("second"))
    first_has_one, second_has_one = asyncio.Event(), asyncio.Event()

    async def lock(names: tuple[str, str], mine: asyncio.Event, theirs: asyncio.Event) -> None:
        async with store.transaction() as work:
            await work.find_keyring(names[0], lock=True)
            mine.set()
            await theirs.wait()
            await work.find_keyring(names[1], lock=True)

    outcomes = await asyncio.gather(
        lock(("default", "second"), first_has_one, second_has_one),
        lock(("second", "default"), second_has_one, first_has_one),
        return_exceptions=True,
    )
    await store.aclose()
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [ConflictError]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://keystead:test-password@127.0.0.1:1/keys?connect_timeout=2",
        "postgresql://keystead:test-password@/keys?host=/nowhere&connect_timeout=2",
    ],
)
async def test_a_server_that_is_not_there_is_unavailable_and_its_password_untold(url: str) -> None:
    store = open_store(url)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.open()
    await store.aclose()
    assert "test-password" not in str(caught.value) + repr(store.__dict__)
    assert caught.value.__cause__ is None


async def test_no_parameter_reaches_a_log(durable_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    store = open_store(durable_url)
    await store.open()
    await fill(store, data_key(wrapped_key=b"canary" * 12, kek_key_id="canary"))
    await store.aclose()
    assert "canary" not in caplog.text


def _sqlite(code: int) -> sqlite3.OperationalError:
    failure = sqlite3.OperationalError("text that is not repeated")
    failure.sqlite_errorcode = code
    return failure


def _postgresql(state: str | None) -> psycopg.Error:
    failure = psycopg.OperationalError("text that is not repeated")
    failure.sqlstate = state
    return failure


def _internal() -> psycopg.Error:
    failure = psycopg.InternalError("text that is not repeated")
    failure.sqlstate = "XX000"
    return failure


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (_sqlite(sqlite3.SQLITE_BUSY), StoreUnavailableError),
        (_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), StoreUnavailableError),
        (_sqlite(sqlite3.SQLITE_LOCKED), StoreUnavailableError),
        (_sqlite(sqlite3.SQLITE_READONLY_DIRECTORY), StoreReadOnlyError),
        (_sqlite(sqlite3.SQLITE_FULL), StoreFullError),
        (_sqlite(sqlite3.SQLITE_IOERR_WRITE), StoreFullError),
        (_sqlite(sqlite3.SQLITE_IOERR_READ), StoreUnavailableError),
        (_sqlite(sqlite3.SQLITE_CANTOPEN), StoreUnavailableError),
        (_sqlite(sqlite3.SQLITE_CORRUPT), StorageOperationError),
        (_sqlite(sqlite3.SQLITE_TOOBIG), InvalidInputError),
        (_sqlite(sqlite3.SQLITE_CONSTRAINT_UNIQUE), ConflictError),
        (_sqlite(sqlite3.SQLITE_CONSTRAINT_CHECK), StorageOperationError),
        (_sqlite(sqlite3.SQLITE_MISUSE), StorageOperationError),
        (sqlite3.ProgrammingError("text that is not repeated"), StorageOperationError),
        (_postgresql(None), StoreUnavailableError),
        (_postgresql("08006"), StoreUnavailableError),
        (_postgresql("57P01"), StoreUnavailableError),
        (_postgresql("55P03"), StoreUnavailableError),
        (_postgresql("53100"), StoreFullError),
        (_postgresql("53300"), StoreUnavailableError),
        (_postgresql("25006"), StoreReadOnlyError),
        (_postgresql("40001"), ConflictError),
        (_postgresql("40P01"), ConflictError),
        (_postgresql("23505"), ConflictError),
        (_postgresql("23514"), StorageOperationError),
        (_postgresql("42501"), StorageOperationError),
        (_postgresql("28P01"), StorageOperationError),
        (_postgresql("22001"), InvalidInputError),
        (_internal(), StorageOperationError),
        (psycopg.DataError("text that is not repeated"), InvalidInputError),
        (sa.TimeoutError("text that is not repeated"), StoreUnavailableError),
        (sa.DisconnectionError("text that is not repeated"), StoreUnavailableError),
        (OSError(errno.ENOSPC, "text that is not repeated"), StoreFullError),
        (OSError(errno.EROFS, "text that is not repeated"), StoreReadOnlyError),
        (ConnectionRefusedError("text that is not repeated"), StoreUnavailableError),
        (RuntimeError("text that is not repeated"), StorageOperationError),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(getattr(value, "sqlstate", None) or type(value).__name__),
)
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_foreign_failure_becomes_ours(failure: Exception, kind: type[KMSError], is_wrapped: bool) -> None:
    if is_wrapped and not isinstance(failure, sa.SQLAlchemyError):
        failure = sa.DBAPIError("SELECT 1", {"key": "text that is not repeated"}, failure)
    told = translate(failure)
    assert type(told) is kind
    assert "not repeated" not in str(told)


async def test_a_value_that_postgresql_cannot_hold_is_invalid_input(postgres_url: str) -> None:
    migrate(postgres_url)
    store = open_store(postgres_url)
    with pytest.raises(InvalidInputError):
        async with store.transaction() as work:
            await work.add_keyring(keyring("with\0nul"))
    await store.aclose()


async def test_a_text_that_utf8_cannot_encode_is_invalid_input(durable_url: str) -> None:
    store = open_store(durable_url)
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        async with store.reading() as work:
            await work.find_keyring("a\ud800b")
    await store.aclose()


async def test_connections_that_all_are_in_use_make_the_store_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_S", 0.2)
    store = open_store(f"sqlite:///{tmp_path}/keys.db")
    await store.open()

    async def read() -> None:
        async with store.reading():
            await asyncio.sleep(1)

    outcomes = await asyncio.gather(*(read() for _ in range(9)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [StoreUnavailableError]
    await store.aclose()


async def test_a_commit_that_fails_is_told_and_rolled_back(tmp_path: Path) -> None:
    store = SqlKeyStore(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    engine = (await store._connections._current()).engine.sync_engine

    def fail(connection: object) -> None:
        raise _sqlite(sqlite3.SQLITE_FULL)

    event.listen(engine, "commit", fail)
    with pytest.raises(StoreFullError):
        await fill(store)
    event.remove(engine, "commit", fail)
    async with store.reading() as work:
        assert await work.keyrings() == []
    await store.aclose()


async def test_a_rollback_that_fails_tells_the_first_failure(tmp_path: Path) -> None:
    store = SqlKeyStore(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    engine = (await store._connections._current()).engine.sync_engine

    def fail(connection: object) -> None:
        raise _sqlite(sqlite3.SQLITE_IOERR)

    event.listen(engine, "rollback", fail)
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as work:
            await work.add_keyring(keyring())
            raise ZeroDivisionError
    event.remove(engine, "rollback", fail)
    async with store.reading() as work:
        assert await work.keyrings() == []
    await store.aclose()


async def test_a_store_without_its_state_row_says_what_to_do(tmp_path: Path) -> None:
    store = SqlKeyStore(f"sqlite:///{tmp_path}/keys.db")
    await store.open()
    async with store._connections.begin(is_writing=True) as connection:
        await connection.exec_driver_sql("DELETE FROM store_state")
    with pytest.raises(StorageOperationError, match="restore a backup"):
        await store.open()
    with pytest.raises(StorageOperationError, match="restore a backup"):
        await fill(store)
    await store.aclose()
