"""Creating an SQLite store where there is none: several processes at once end with one store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from pathlib import Path

from keystead.errors import StorageOperationError, StoreNotFoundError
from keystead.stores import schema
from keystead.stores.engines import BUSY_TIMEOUT_S, IS_WRITING, sqlite_uri, sync_engine
from keystead.stores.failures import ours_only
from keystead.stores.handles import open_handles
from keystead.stores.urls import StoreUrl

_OWNER_ONLY = 0o600
_PAUSE_S = 0.02


async def create_if_empty(path: Path) -> None:
    """Create the file (mode 0600) and the schema if the file is absent or holds no table."""
    if not await asyncio.to_thread(is_filled, path):
        await asyncio.to_thread(create, path)


async def require_filled(path: Path) -> None:
    """Raise ``StoreNotFoundError`` if the file is absent or holds no table; nothing is made."""
    if not await asyncio.to_thread(is_filled, path):
        raise StoreNotFoundError(
            f"there is no store at {path}: correct its URL (--store, KEYSTEAD_STORE, or store in the settings), or "
            "make one there first, as `keystead init` and `keystead migrate` do"
        )


def is_filled(path: Path) -> bool:
    """Whether the file holds pages. Every database with a table does, once its log is written back or kept."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return path.stat().st_size > 0 and _has_tables(path)
    return False


def create(path: Path) -> None:
    """Create the file and, if it holds no table, the schema."""
    create_file(path)
    engine = sync_engine(StoreUrl("sqlite", path=path))
    with ours_only(), open_handles.transaction(), engine.connect() as connection:
        writing = connection.execution_options(**{IS_WRITING: True})
        with writing.begin():
            schema.migrate_if_empty(writing)


def create_file(path: Path) -> None:
    """Create an empty database at ``path`` with a write-ahead log, readable by its owner only."""
    if not path.parent.is_dir():
        raise StorageOperationError(f"the folder of the store does not exist: create {path.parent} first")
    with ours_only():
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))
        with open_handles.transaction():
            _log_ahead(path)


def _has_tables(path: Path) -> bool:
    with ours_only(), open_handles.transaction():
        connection = sqlite3.connect(sqlite_uri(path), uri=True, timeout=BUSY_TIMEOUT_S)
        try:
            return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None
        finally:
            connection.close()


def _log_ahead(path: Path) -> None:
    """Switch the database to a write-ahead log; SQLite does not wait for others here, so we do."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    connection = sqlite3.connect(sqlite_uri(path), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as failure:
                is_locked = failure.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not is_locked or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
            else:
                return
    finally:
        connection.close()
