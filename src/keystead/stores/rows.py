"""Rows of the application's own table, for re-encryption: read by key, written by compare-and-swap.

Plain SQL: no mapper, no event, and no column but the ciphertext, its indexes and the plaintext it replaces is named.
On PostgreSQL a batch first locks its rows in the order of their keys and leaves out those that somebody else holds, so
that it never waits while it holds a lock and cannot be part of a deadlock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy import CHAR, Connection, Engine, NullPool, create_engine, inspect

from keystead.errors import InvalidInputError, StorageOperationError
from keystead.ports.rows import Row, RowChange, RowKey, RowLayout, Unfinished
from keystead.stores import rows_arrays
from keystead.stores.engines import IS_WRITING, begin_explicitly, open_sqlite, sync_engine
from keystead.stores.failures import FORBIDDEN, ours_only
from keystead.stores.handles import open_handles
from keystead.stores.rows_sql import (
    POSTGRES_COLUMNS,
    POSTGRES_PREPARED,
    PostgresStatements,
    SqliteStatements,
    Statements,
    TableNames,
    limit_of,
)
from keystead.stores.urls import StoreUrl, parse_url

_UUID_LENGTH: Final = 32
_PLAIN: Final = RowChange((), None, None)[3:]


class RowTable:
    """One column of a table, over one connection; ``keystead.ports.rows.ApplicationRows``.

    Args:
        url: the application's database, in the form of a store URL.
        table: its name, ``schema.table`` on PostgreSQL where it is not in the search path.
        column: holds the ciphertext, in bytes or as text.
        key: columns by which rows are read in order, unique together; the primary key if none is named.
        record, tenant, subject: the columns of a field's record, tenant and subject.
        plaintext: the column that held the values in clear.
        indexes: the columns of its blind indexes.
        tokens: the table of its token index.

    Raises:
        ConfigurationError: the URL, as ``parse_url`` says.
        InvalidInputError: a database in memory. At the first use, a table or column that does not exist, or no key.
    """

    def __init__(
        self,
        url: str,
        table: str,
        column: str,
        *,
        key: tuple[str, ...] = (),
        record: tuple[str, ...] = (),
        tenant: str | None = None,
        subject: str | None = None,
        plaintext: str | None = None,
        indexes: tuple[str, ...] = (),
        tokens: str | None = None,
    ) -> None:
        parsed = parse_url(url)
        if parsed.kind == "memory":
            raise InvalidInputError(
                "a database in memory cannot be reached from here; give the URL of a file or server"
            )
        schema, _, name = table.rpartition(".")
        self._names = TableNames(
            schema or parsed.schema, name, column, key, record, tenant, subject, tokens, plaintext, indexes
        )
        self._is_sqlite = parsed.kind == "sqlite"
        self._engine = _sqlite_engine(parsed) if self._is_sqlite else sync_engine(parsed)
        self._connection: Connection | None = None
        self._generation = 0
        self._layout: RowLayout | None = None
        self._has_nullable_key = False
        self._sql: Statements

    @property
    def layout(self) -> RowLayout:
        """Where the columns stand in a row."""
        if self._layout is None:
            with ours_only(), self._busy():
                self._reflect(self._connected())
            self.close()
        assert self._layout is not None  # noqa: S101 -- reflecting made it or raised
        return self._layout

    def require_key(self) -> None:
        """Raise ``InvalidInputError`` where two rows may have one key, or a row has NULL in it."""
        statements = self._statements
        key = ", ".join(self._names.key)
        unique: dict[object, set[object]] = {}
        for index, column in self._all(*statements.unique_columns()):
            unique.setdefault(index, set()).add(column)
        if not any(columns.issubset(self._names.key) for columns in unique.values()):
            raise InvalidInputError(
                f"two rows of table {self._names.table!r} may have the same {key}, and one of them would be passed by; "
                "name columns that the primary key or a unique constraint keeps apart with key_column= (--key)"
            )
        if self._has_nullable_key and self._all(statements.null_key()):
            raise InvalidInputError(
                f"a row of table {self._names.table!r} has NULL in its key, {key}, and would be passed by; give it a "
                "value, or name columns that are never NULL with key_column= (--key)"
            )

    def has_tokens(self, name: str) -> bool:
        """Return whether there is a table of that name beside this one, and it is one of token rows."""
        with ours_only(), self._busy():
            columns = self._columns_of(self._connected(), name)
        self.close()
        return {column for column, _, _ in columns} == {"record", "token"}

    def prepared(self) -> int:
        """Return how many transactions that wrote to the table are prepared."""
        if self._is_sqlite:
            return 0
        with ours_only(), self._busy():
            connection = self._connected()
            found = connection.exec_driver_sql(POSTGRES_PREPARED, (self._regclass(connection, self._names.table),))
            prepared: int = found.scalar_one()
        self.close()
        return prepared

    def count(self) -> int:
        """Return how many rows there are."""
        return int(self._all(self._statements.count())[0][0])

    def versions(self) -> dict[bytes | None, int]:
        """Return how many rows are under each data key, by its id, and under None how many hold nothing."""
        found: dict[bytes | None, int] = {}
        for start, rows in self._all(self._statements.versions()):
            key_id = None if start is None else b"" if isinstance(start, str) else bytes(start)
            found[key_id] = found.get(key_id, 0) + rows
        return found

    def count_plaintext(self) -> int:
        """Return how many rows have a plaintext and no ciphertext."""
        return 0 if self._names.plaintext is None else int(self._all(self._statements.count_plaintext())[0][0])

    def upper_key(self, after: RowKey | None, rows: int) -> RowKey | None:
        """Return the key of the ``rows``-th row after ``after``, None where there are fewer."""
        found = self._all(self._statements.upper_key(after), (*(after or ()), rows - 1))
        return tuple(found[0]) if found else None

    def read(self, after: RowKey | None, until: RowKey | None, limit: int) -> list[Row]:
        """Return rows by key, after one and up to another."""
        return self._all(self._statements.read(after, until), (*(after or ()), *(until or ()), limit))

    def read_keys(self, keys: Collection[RowKey]) -> list[Row]:
        """Return the rows with these keys that are still there."""
        wanted = list(keys)
        found: list[Row] = []
        for at in range(0, len(wanted), self._statements.keys_at_once):
            part = wanted[at : at + self._statements.keys_at_once]
            found += self._all(*self._statements.read_keys(part))
        return found

    def read_unfinished(self, wanted: Unfinished, after: RowKey | None, limit: int) -> list[Row]:
        """Return rows by key, after one, that may need something still."""
        statement = self._statements.read_unfinished(wanted, after)
        return [] if statement is None else self._all(statement, (*(after or ()), limit))

    def read_tokens(self, records: Sequence[object]) -> dict[object, set[bytes]]:
        """Return the token rows of these records."""
        found: dict[object, set[bytes]] = {}
        for at in range(0, len(records), self._statements.keys_at_once):
            part = records[at : at + self._statements.keys_at_once]
            for record, token in self._all(*self._statements.read_tokens(part)):
                # What is no hash, as SQLite may hold in any column, is one that must not be there.
                found.setdefault(record, set()).add(bytes(token) if isinstance(token, bytes | memoryview) else b"")
        return found

    def swap(
        self, changes: Sequence[RowChange], *, before_commit: Callable[[], object] | None = None, wait: bool = False
    ) -> set[RowKey]:
        """Write the rows that are still as they were read, in one transaction, and return the keys of those."""
        statements = self._statements
        written: set[RowKey] = set()
        with self._transaction(is_writing=True) as cursor:
            for part in _alike(changes):
                written.update(statements.swap(cursor, part, wait=wait))
            marked = [change for change in changes if change.tokens is not None and change.key in written]
            if marked:
                statements.put_tokens(cursor, marked)
            if before_commit is not None:
                before_commit()
        return written

    def empty(self, starts: Sequence[bytes]) -> None:
        """Set the indexes of all rows to NULL whose ciphertexts begin with one of these, and delete their token rows.

        All of these are of one length. Waits for rows that another transaction holds, in a transaction of its own.
        """
        statements = self._statements.empty(starts) if starts else []
        if statements:
            with self._transaction(is_writing=True) as cursor:
                for statement in statements:
                    cursor.execute(statement, ())

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    @property
    def _statements(self) -> Statements:
        if self._layout is None:
            _ = self.layout
        return self._sql

    def _all(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        with self._transaction(is_writing=False) as cursor:
            cursor.execute(statement, tuple(parameters))
            rows: list[Row] = cursor.fetchall()
            return rows

    @contextmanager
    def _transaction(self, *, is_writing: bool) -> Iterator[Any]:
        """Give the driver's cursor: rows of SQLAlchemy's would cost more than the whole statement."""
        with ours_only(), self._busy():
            try:
                connection = self._connected().execution_options(**{IS_WRITING: is_writing})
                with connection.begin(), contextlib.closing(connection.connection.cursor()) as cursor:
                    if not self._is_sqlite:
                        # A row that a policy hides would be passed by without a word: this makes it an error.
                        cursor.execute("SET LOCAL row_security = off")
                    yield cursor
            except BaseException as failure:
                self.close()
                if isinstance(failure, UnicodeEncodeError):
                    raise StorageOperationError(
                        f"a row of table {self._names.table!r} has text in its key that is not UTF-8, and cannot be "
                        "named by it: write the key anew"
                    ) from None
                if getattr(failure, "sqlstate", None) == FORBIDDEN:
                    raise StorageOperationError(
                        f"the database role may not read and write every row of table {self._names.table!r}: grant it "
                        "SELECT and UPDATE, and BYPASSRLS where the table has row-level security"
                    ) from None
                raise

    def _busy(self) -> contextlib.AbstractContextManager[None]:
        return open_handles.transaction() if self._is_sqlite else contextlib.nullcontext()

    def _connected(self) -> Connection:
        if self._connection is not None and self._is_sqlite and self._generation != open_handles.generation:
            self.close()
        if self._connection is None:
            self._generation = open_handles.generation
            self._connection = self._engine.connect()
            driver: Any = self._connection.connection.driver_connection
            if self._is_sqlite:
                # SQLite holds text that is none. Of it one row fails, and not the batch that it is read with.
                driver.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
            else:
                rows_arrays.register(driver)
        return self._connection

    def _reflect(self, connection: Connection) -> None:
        """Ask the database for types and key, and prepare the statements."""
        names, quote = self._names, connection.dialect.identifier_preparer.quote
        found = self._columns_of(connection, names.table)
        if not found:
            raise InvalidInputError(f"the database has no table {names.table!r}; check the URL and the name")
        nullable = {name: is_nullable for name, _, is_nullable in found}
        key = names.key or tuple(
            inspect(connection).get_pk_constraint(names.table, names.schema)["constrained_columns"]
        )
        if not key:
            raise InvalidInputError(
                f"table {names.table!r} has no primary key; name columns that are unique together with key_column="
            )
        names = self._names = names.with_key(key)
        columns = list(key)
        for name in (*names.owner, names.column):
            if name not in columns:
                columns.append(name)
        for name in {*columns, *names.indexes, *((names.plaintext,) if names.plaintext else ())}:
            if name not in nullable:
                raise InvalidInputError(f"table {names.table!r} has no column {name!r}")
        self._has_nullable_key = any(nullable[name] for name in key)
        plaintext = guard = None
        if names.plaintext is not None:
            plaintext, guard = len(columns), len(columns) + 1
        end = len(columns) + (0 if plaintext is None else 2)
        record = tuple(columns.index(name) for name in names.record)
        kinds = {name: str(kind) for name, kind, _ in found}
        self._sql = (
            SqliteStatements(names, columns, quote)
            if self._is_sqlite
            else PostgresStatements(names, columns, quote, kinds, kinds[names.record[0]] if names.record else "")
        )
        self._layout = RowLayout(
            key=len(key),
            key_columns=key,
            record=record,
            tenant=columns.index(names.tenant) if names.tenant else None,
            subject=columns.index(names.subject) if names.subject else None,
            ciphertext=columns.index(names.column),
            plaintext=plaintext,
            guard=guard,
            indexes=slice(end, end + len(names.indexes)),
            bound=tuple(columns.index(name) for name in names.bound),
            perhaps_uuids=frozenset(name for name, kind, _ in found if self._is_sqlite and _may_hold_uuids(kind)),
            columns=frozenset(nullable),
            limit=None if self._is_sqlite else limit_of(kinds[names.column]),
        )

    def _columns_of(self, connection: Connection, table: str) -> list[tuple[str, object, bool]]:
        """Return name, type and whether it may be NULL of a table's columns; of a table that is not there, none."""
        if self._is_sqlite:
            looking = inspect(connection)
            found = (
                looking.get_columns(table, self._names.schema) if looking.has_table(table, self._names.schema) else []
            )
            return [(each["name"], each["type"], bool(each["nullable"])) for each in found]
        rows = connection.exec_driver_sql(POSTGRES_COLUMNS, (self._regclass(connection, table),)).all()
        return [(column, kind, not is_never_null) for column, kind, is_never_null in rows]

    def _regclass(self, connection: Connection, table: str) -> str:
        """Return a table's quoted name as a value, where a percent sign that quoting doubles stands for itself."""
        return self._names.qualified(table, connection.dialect.identifier_preparer.quote).replace("%%", "%")


def _alike(changes: Sequence[RowChange]) -> Collection[Sequence[RowChange]]:
    """Return changes apart by what they set and compare; where none has more than its ciphertext, all as they are."""
    if all(change[3:] == _PLAIN for change in changes):
        return [changes] if changes else []
    parts: dict[tuple[bool, bool, bool], list[RowChange]] = {}
    for change in changes:
        kind = change.indexes is None, change.guard is None, not change.bound
        parts.setdefault(kind, []).append(change)
    return parts.values()


def _sqlite_engine(url: StoreUrl) -> Engine:
    assert url.path is not None  # noqa: S101 -- parse_url gives every SQLite store a path
    creator = partial(open_sqlite, url.path)
    engine = create_engine("sqlite:///rows", creator=creator, poolclass=NullPool, hide_parameters=True)
    begin_explicitly(engine)
    return engine


def _may_hold_uuids(kind: object) -> bool:
    """Return whether a reflected type of SQLite is what SQLAlchemy makes of ``Uuid`` there."""
    return isinstance(kind, CHAR) and kind.length == _UUID_LENGTH
