"""Foreign exceptions become ours here, and nowhere else. No message repeats a driver's text, parameter or URL."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

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
from keystead.runtime.files import DISK_FULL

_FULL: Final = "the disk under the store is full; nothing of this transaction was kept: free space and try again"
_READ_ONLY: Final = "the store can be read and not written; check the file's permissions, mount or the server's mode"
_LOCKED: Final = "the store stayed locked by another process for too long; try again"
_UNREACHABLE: Final = "the store cannot be reached; check that its server, file and network are there"

_SQLITE_PRIMARY: Final[dict[int, tuple[type[KMSError], str]]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailableError, _LOCKED),
    sqlite3.SQLITE_LOCKED: (StoreUnavailableError, _LOCKED),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailableError, _LOCKED),
    sqlite3.SQLITE_READONLY: (StoreReadOnlyError, _READ_ONLY),
    sqlite3.SQLITE_PERM: (StoreReadOnlyError, _READ_ONLY),
    sqlite3.SQLITE_FULL: (StoreFullError, _FULL),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailableError,
        "the store's file cannot be opened; check that it exists and that this user may read it",
    ),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "the disk under the store fails to read or write; check it"),
    sqlite3.SQLITE_CORRUPT: (
        StorageOperationError,
        "the store's file is damaged: stop writing to it and import an export or restore a backup",
    ),
    sqlite3.SQLITE_NOTADB: (ForeignSchemaError, "the file at the store's URL is not an SQLite database; name another"),
    sqlite3.SQLITE_TOOBIG: (InvalidInputError, "a value is too large for the store"),
}
_SQLITE_CANNOT_GROW: Final = (
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
)
_SQLITE_TAKEN: Final = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)

_TAKEN: Final = "a row of that name, id, version or active state exists already; reread and decide again"
_FORBIDDEN: Final = "the store's own rules forbid this change of a key"

_ABSENT: Final = "a table or column that should be there is not"

FORBIDDEN: Final = "42501"
"""PostgreSQL's state for a right that is missing, and for a query that row-level security would change."""
_POSTGRESQL: Final[dict[str, tuple[type[KMSError], str]]] = {
    "08": (StoreUnavailableError, _UNREACHABLE),
    "57": (StoreUnavailableError, "the database is stopping, starting or cancelled the statement; try again"),
    "53": (StoreUnavailableError, "the database is out of memory or connections; try again"),
    "53100": (StoreFullError, _FULL),
    "55P03": (StoreUnavailableError, _LOCKED),
    "25006": (StoreReadOnlyError, _READ_ONLY),
    "25P03": (StoreUnavailableError, "the transaction waited too long and was ended by the database; try again"),
    "40": (ConflictError, "another transaction changed the same rows first; reread and decide again"),
    "23505": (ConflictError, _TAKEN),
    "23": (StorageOperationError, _FORBIDDEN),
    "P0001": (StorageOperationError, _FORBIDDEN),
    "58": (StoreUnavailableError, "the disk under the database fails; check the server"),
    FORBIDDEN: (
        StorageOperationError,
        "the database role lacks a right on the store's tables; `keystead migrate --roles` prints the grants",
    ),
    "28": (StorageOperationError, "the database refused the credentials"),
    "3D": (StorageOperationError, "the database that the URL names does not exist; create it first"),
    "42P01": (StorageOperationError, _ABSENT),
    "42703": (StorageOperationError, _ABSENT),
    "3F": (StorageOperationError, _ABSENT),
    "22": (InvalidInputError, "the store cannot hold a value: too long, out of range, or with a NUL character"),
}


@contextmanager
def ours_only() -> Iterator[None]:
    """Let only errors of ``keystead.errors`` (and cancellation) leave the block."""
    try:
        yield
    except KMSError:
        raise
    except Exception as failure:
        raise translate(failure) from None


def translate(failure: BaseException) -> KMSError:
    """Return the error of ours that says what ``failure`` means for the caller."""
    if isinstance(failure, sa.TimeoutError):
        return StoreUnavailableError("every connection of the store is in use; try again")
    if isinstance(failure, sa.StatementError) and failure.orig is not None:
        return _driver(failure.orig, lost=isinstance(failure, sa.DBAPIError) and failure.connection_invalidated)
    if isinstance(failure, sa.DisconnectionError | sa.InvalidatePoolError):
        return StoreUnavailableError(_UNREACHABLE)
    return _driver(failure, lost=False)


def _driver(failure: BaseException, *, lost: bool) -> KMSError:
    if isinstance(failure, KMSError):
        return failure
    if isinstance(failure, sqlite3.Error):
        return _sqlite(failure)
    if isinstance(failure, OSError):
        return _system(failure)
    if isinstance(failure, UnicodeEncodeError):
        return InvalidInputError("a text that the store is asked for has a lone surrogate; name it by UTF-8")
    state = getattr(failure, "sqlstate", None)
    if isinstance(state, str):
        for prefix in (state, state[:2]):
            if prefix in _POSTGRESQL:
                kind, message = _POSTGRESQL[prefix]
                return kind(message)
    if lost or type(failure).__name__ in ("OperationalError", "InterfaceError", "ConnectionTimeout"):
        return StoreUnavailableError(_UNREACHABLE)
    if type(failure).__name__ == "DataError":
        return InvalidInputError(_POSTGRESQL["22"][1])
    return StorageOperationError(f"the store failed with {type(failure).__name__}")


def _sqlite(failure: sqlite3.Error) -> KMSError:
    code = getattr(failure, "sqlite_errorcode", None)
    if code is None:
        return StorageOperationError(f"the store failed with {type(failure).__name__}")
    if code in _SQLITE_TAKEN:
        return ConflictError(_TAKEN)
    if code in _SQLITE_CANNOT_GROW:
        return StoreFullError(_FULL)
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return StorageOperationError(_FORBIDDEN)
    if primary in _SQLITE_PRIMARY:
        kind, message = _SQLITE_PRIMARY[primary]
        return kind(message)
    return StorageOperationError(f"the store failed with {type(failure).__name__}")


def _system(failure: OSError) -> KMSError:
    if failure.errno in (*DISK_FULL, errno.EFBIG):
        return StoreFullError(_FULL)
    if failure.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreReadOnlyError(_READ_ONLY)
    return StoreUnavailableError(_UNREACHABLE)
