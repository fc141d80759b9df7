"""The statements of ``RowTable``, in each database's SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any, Final, Protocol

from keystead.ports.rows import RowChange, RowKey, Unfinished
from keystead.stores.rows_arrays import bytea_array, int8_array

_INTEGERS: Final = frozenset({"smallint", "integer", "bigint"})
_TEXTS: Final = ("text", "character", "citext")
_LIMITED: Final = re.compile(r"character(?: varying)?\(([0-9]+)\)")
_WITHIN_YEARS: Final = "CASE WHEN {0} > '0001-01-02' AND {0} < '9999-12-31' THEN {0} END"
"""A date that Python has, whatever the zone: a driver refuses the whole batch for one that it has not."""
SQLITE_PARAMETERS: Final = 30_000
"""SQLite takes 32 766 parameters in a statement."""


POSTGRES_COLUMNS: Final = (
    "WITH RECURSIVE found AS (SELECT attname, attnotnull, atttypid AS type, atttypmod AS modifier FROM pg_attribute "
    "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped UNION ALL "
    "SELECT f.attname, f.attnotnull, t.typbasetype, t.typtypmod FROM found f JOIN pg_type t ON t.oid = f.type "
    "WHERE t.typtype = 'd') SELECT f.attname, format_type(f.type, f.modifier), f.attnotnull "
    "FROM found f JOIN pg_type t ON t.oid = f.type WHERE t.typtype <> 'd'"
)
"""Name, type and whether it is NOT NULL of a table's columns; of a domain the type beneath. Any type has a name there,
one of an extension as well, which SQLAlchemy would not know."""


POSTGRES_PREPARED: Final = (
    "SELECT count(*) FROM (SELECT DISTINCT virtualtransaction FROM pg_locks WHERE pid IS NULL "
    "AND locktype = 'relation' AND mode = 'RowExclusiveLock' AND relation = to_regclass(%s) "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) found"
)
"""How many transactions have written to a table and are prepared: nobody sees their rows, and any may be committed."""


@dataclass(frozen=True, slots=True)
class TableNames:
    """The names of a table and of those of its columns that take part."""

    schema: str | None
    table: str
    column: str
    key: tuple[str, ...]
    record: tuple[str, ...]
    tenant: str | None
    subject: str | None
    tokens: str | None
    plaintext: str | None
    indexes: tuple[str, ...]

    @property
    def owner(self) -> tuple[str, ...]:
        """The columns that say whose a row is: those of its record, the tenant's and the subject's."""
        return (*self.record, *filter(None, (self.tenant, self.subject)))

    @property
    def bound(self) -> tuple[str, ...]:
        """Those of them by which rows are not read."""
        return tuple(dict.fromkeys(name for name in self.owner if name not in self.key))

    def with_key(self, key: tuple[str, ...]) -> TableNames:
        """Return the same with a key."""
        return replace(self, key=key)

    def qualified(self, table: str, quote: Callable[[str], str]) -> str:
        """Return a table's quoted name, in the schema of these."""
        return (f"{quote(self.schema)}." if self.schema else "") + quote(table)


class Statements(Protocol):
    """What ``RowTable`` sends."""

    keys_at_once: int

    def unique_columns(self) -> tuple[str, Sequence[object]]: ...
    def null_key(self) -> str: ...
    def count(self) -> str: ...
    def versions(self) -> str: ...
    def count_plaintext(self) -> str: ...
    def upper_key(self, after: RowKey | None) -> str: ...
    def read(self, after: RowKey | None, until: RowKey | None) -> str: ...
    def read_unfinished(self, wanted: Unfinished, after: RowKey | None) -> str | None: ...
    def read_keys(self, keys: Sequence[RowKey]) -> tuple[str, Sequence[object]]: ...
    def read_tokens(self, records: Sequence[object]) -> tuple[str, Sequence[object]]: ...
    def swap(self, cursor: Any, changes: Sequence[RowChange], *, wait: bool) -> Iterable[RowKey]: ...
    def put_tokens(self, cursor: Any, changes: Sequence[RowChange]) -> None: ...
    def empty(self, starts: Sequence[bytes]) -> list[str]: ...


class _Common:
    """Quoted names, and the statements that both databases read alike."""

    mark = "?"
    guard_of = "{}"
    literal_of = "x'{}'"

    def __init__(
        self, names: TableNames, columns: Sequence[str], quote: Callable[[str], str], plaintext_of: str = "{}"
    ) -> None:
        self._names = names
        self._table = names.qualified(names.table, quote)
        self._tokens = names.qualified(names.tokens, quote) if names.tokens else ""
        self._column = quote(names.column)
        self._plaintext = quote(names.plaintext) if names.plaintext else ""
        self._indexes = [quote(name) for name in names.indexes]
        self._keys = [quote(name) for name in names.key]
        self._bound = [quote(name) for name in names.bound]
        self._quote = quote
        wanted = [quote(name) for name in columns]
        if self._plaintext:
            wanted += [form.format(self._plaintext) for form in (plaintext_of, self.guard_of)]
        self._wanted = ", ".join([*wanted, *self._indexes])
        self._key = ", ".join(self._keys)

    def null_key(self) -> str:
        return f"SELECT 1 FROM {self._table} WHERE {' OR '.join(f'{name} IS NULL' for name in self._keys)} LIMIT 1"

    def count(self) -> str:
        return f"SELECT count(*) FROM {self._table}"

    def count_plaintext(self) -> str:
        return f"SELECT count(*) FROM {self._table} WHERE {self._column} IS NULL AND {self._plaintext} IS NOT NULL"

    def upper_key(self, after: RowKey | None) -> str:
        where = f" WHERE {self._compare('>')}" if after is not None else ""
        return f"SELECT {self._key} FROM {self._table}{where} ORDER BY {self._key} LIMIT 1 OFFSET {self.mark}"

    def read(self, after: RowKey | None, until: RowKey | None) -> str:
        bounds = [self._compare(sign) for sign, bound in ((">", after), ("<=", until)) if bound is not None]
        where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
        return f"SELECT {self._wanted} FROM {self._table}{where} ORDER BY {self._key} LIMIT {self.mark}"

    def read_unfinished(self, wanted: Unfinished, after: RowKey | None) -> str | None:
        missing = []
        for name, mark in wanted.hashes.items():
            column = self._quote(name)
            missing.append(f"{column} IS NULL OR NOT {self._begins(column, mark)}")
        for mark in wanted.tokens if self._tokens else ():
            record = f"{self._table}.{self._quote(self._names.record[0])}"
            own = f"k.record = {record} AND {self._begins('k.token', mark)}"
            missing.append(f"NOT EXISTS (SELECT 1 FROM {self._tokens} k WHERE {own})")
        found = [f"({self._column} IS NOT NULL AND ({' OR '.join(missing)}))"] if missing else []
        found += [f"{self._plaintext} IS NOT NULL"] if self._plaintext else []
        found += [f"{self._column} IS NULL"] if wanted.is_null_sealed else []
        if not found:
            return None
        where = f"({' OR '.join(found)})" + (f" AND {self._compare('>')}" if after is not None else "")
        return f"SELECT {self._wanted} FROM {self._table} WHERE {where} ORDER BY {self._key} LIMIT {self.mark}"

    def empty(self, starts: Sequence[bytes]) -> list[str]:
        named_by = ", ".join(self.literal_of.format(start.hex()) for start in starts)
        is_named = f"substr({self._column}, 1, {len(starts[0])}) IN ({named_by})"
        statements = []
        if self._tokens:
            record = self._quote(self._names.record[0])
            named = f"SELECT {record} FROM {self._table} WHERE {is_named}"
            statements.append(f"DELETE FROM {self._tokens} WHERE record IN ({named})")
        if self._indexes:
            emptied = ", ".join(f"{name} = NULL" for name in self._indexes)
            is_filled = " OR ".join(f"{name} IS NOT NULL" for name in self._indexes)
            statements.append(f"UPDATE {self._table} SET {emptied} WHERE {is_named} AND ({is_filled})")
        return statements

    def _begins(self, column: str, start: bytes) -> str:
        """Return whether a column of bytes begins with some."""
        return f"substr({column}, 1, {len(start)}) = {self.literal_of.format(start.hex())}"

    def _compare(self, sign: str) -> str:
        if len(self._keys) == 1:
            return f"{self._key} {sign} {self.mark}"
        return f"({self._key}) {sign} ({', '.join([self.mark] * len(self._keys))})"

    def _values(self, changes: Sequence[RowChange]) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return the columns that changes set after the ciphertext, and the rows: key, old, new, set, guard, bound."""
        has_indexes, has_guard = changes[0].indexes is not None, changes[0].guard is not None
        columns = self._indexes if has_indexes else []
        if not has_indexes and not has_guard and not changes[0].bound:
            return columns, [(*change.key, change.old, change.new) for change in changes]
        guards = [(change.guard,) if has_guard else () for change in changes]
        return columns, [
            (*change.key, change.old, change.new, *(change.indexes or ()), *guard, *change.bound)
            for change, guard in zip(changes, guards, strict=True)
        ]


class SqliteStatements(_Common):
    """Values travel as parameters of one statement, so that SQLite works through a batch without the interpreter."""

    def __init__(self, names: TableNames, columns: Sequence[str], quote: Callable[[str], str]) -> None:
        super().__init__(names, columns, quote)
        self.keys_at_once = SQLITE_PARAMETERS // len(self._keys)

    def unique_columns(self) -> tuple[str, Sequence[object]]:
        # The name of an expression's column is NULL. A primary key that is the row id has no index. Rows are read in
        # the order of the column's own collation: an index that tells more texts apart than that says nothing.
        loose = " UNION ALL ".join(
            f"SELECT ?{number} WHERE (SELECT count(*) FROM (SELECT {column} FROM {self._table} WHERE 0 "
            "UNION SELECT 'a' UNION SELECT 'A' UNION SELECT 'a ')) < 3"
            for number, column in enumerate(self._keys, 3)
        )
        statement = (
            "SELECT l.name, i.name FROM pragma_index_list(?1, ?2) l, pragma_index_xinfo(l.name, ?2) i "
            f"WHERE l.\"unique\" AND NOT l.partial AND i.key AND (i.coll <> 'BINARY' OR i.name NOT IN ({loose})) "
            "UNION ALL SELECT NULL, name FROM pragma_table_info(?1, ?2) WHERE pk "
            "AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, ?2) WHERE origin = 'pk')"
        )
        return statement, (self._names.table, self._names.schema or "main", *self._names.key)

    def versions(self) -> str:
        return f"SELECT substr({self._column}, 3, 8), count(*) FROM {self._table} GROUP BY 1"

    def read_keys(self, keys: Sequence[RowKey]) -> tuple[str, Sequence[object]]:
        values = _values(len(keys), len(self._keys))
        key = f"({self._key})" if len(self._keys) > 1 else self._key
        found = f"SELECT {self._wanted} FROM {self._table} WHERE {key} IN ({values}) ORDER BY {self._key}"
        return found, _flat(keys)

    def read_tokens(self, records: Sequence[object]) -> tuple[str, Sequence[object]]:
        marks = ", ".join("?" * len(records))
        return f"SELECT record, token FROM {self._tokens} WHERE record IN ({marks})", records

    def swap(self, cursor: Any, changes: Sequence[RowChange], *, wait: bool) -> Iterable[RowKey]:
        columns, rows = self._values(changes)
        width = len(rows[0])
        names = [*(f"k{i}" for i in range(len(self._keys))), "old", "new", *(f"i{i}" for i in range(len(columns)))]
        sets = [f"{self._column} = v.new", *(f"{name} = v.i{i}" for i, name in enumerate(columns))]
        on = [f"{self._table}.{name} = v.k{i}" for i, name in enumerate(self._keys)]
        on.append(f"{self._table}.{self._column} IS v.old")
        if changes[0].guard is not None:
            names.append("guard")
            sets.append(f"{self._plaintext} = NULL")
            on.append(f"{self._table}.{self._plaintext} IS v.guard")
        if changes[0].bound:
            names += [f"b{i}" for i in range(len(self._bound))]
            # Whatever the column takes for equal: another spelling names another tenant.
            on += [f"{self._table}.{name} COLLATE BINARY IS v.b{i}" for i, name in enumerate(self._bound)]
        head = f"WITH v({', '.join(names)}) AS ("
        found = ", ".join(f"{self._table}.{name}" for name in self._keys)
        update = f") UPDATE {self._table} SET {', '.join(sets)} FROM v WHERE {' AND '.join(on)}"
        is_plain = width == len(self._keys) + 2
        for at in range(0, len(rows), SQLITE_PARAMETERS // width):
            part = rows[at : at + SQLITE_PARAMETERS // width]
            values, given = _values(len(part), width), _flat(part)
            if not is_plain:
                cursor.execute(f"{head}{values}{update} RETURNING {found}", given)
                yield from cursor.fetchall()
                continue
            # For each row that it returned, SQLite would give the interpreter away and wait to have it back.
            cursor.execute(f"{head}{values}{update}", given)
            cursor.execute("SELECT changes()")
            if cursor.fetchone() == (len(part),):
                yield from (row[: len(self._keys)] for row in part)
                continue
            # No two ciphertexts are alike: where a new one stands, it has been written.
            on_new = " AND ".join([*on[: len(self._keys)], f"{self._table}.{self._column} IS v.new"])
            cursor.execute(f"{head}{values}) SELECT {found} FROM {self._table} JOIN v ON {on_new}", given)
            yield from cursor.fetchall()

    def put_tokens(self, cursor: Any, changes: Sequence[RowChange]) -> None:
        cursor.executemany(f"DELETE FROM {self._tokens} WHERE record = ?", [(change.record,) for change in changes])
        rows = [(change.record, token) for change in changes for token in change.tokens or ()]
        cursor.executemany(f"INSERT INTO {self._tokens} (record, token) VALUES (?, ?)", rows)


class PostgresStatements(_Common):
    """Values travel as binary arrays, a third of the time that text takes."""

    mark = "%s"
    guard_of = "{}::text"
    literal_of = "'\\x{}'::bytea"
    keys_at_once = 1_000_000

    def __init__(
        self,
        names: TableNames,
        columns: Sequence[str],
        quote: Callable[[str], str],
        kinds: Mapping[str, str],
        record_kind: str,
    ) -> None:
        is_date = names.plaintext is not None and kinds[names.plaintext].startswith(("date", "timestamp"))
        super().__init__(names, columns, quote, _WITHIN_YEARS if is_date else "{}")
        self._key_kinds = [kinds[name] for name in names.key]
        self._bound_kinds = [kinds[name] for name in names.bound]
        self._record_kind = record_kind
        self._value_kind = "text" if kinds[names.column].startswith(_TEXTS) else "bytea"

    def unique_columns(self) -> tuple[str, Sequence[object]]:
        table = self._table.replace("'", "''")
        statement = (
            "SELECT i.indexrelid, a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
            "AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1]) "
            f"WHERE i.indrelid = '{table}'::regclass AND i.indisunique AND i.indisvalid "
            "AND i.indpred IS NULL AND i.indexprs IS NULL"
        )
        return statement, ()

    def versions(self) -> str:
        return f"SELECT substring({self._column} FROM 3 FOR 8), count(*) FROM {self._table} GROUP BY 1"

    def read_keys(self, keys: Sequence[RowKey]) -> tuple[str, Sequence[object]]:
        arrays = ", ".join(f"%b::{kind}[]" for kind in self._key_kinds)
        found = f"SELECT * FROM unnest({arrays})"
        key = f"({self._key})" if len(self._keys) > 1 else self._key
        wanted = f"SELECT {self._wanted} FROM {self._table} WHERE {key} IN ({found}) ORDER BY {self._key}"
        return wanted, _columns(keys)

    def read_tokens(self, records: Sequence[object]) -> tuple[str, Sequence[object]]:
        where = f"record = ANY(%b::{self._record_kind}[])"
        return f"SELECT record, token FROM {self._tokens} WHERE {where}", (list(records),)

    def swap(self, cursor: Any, changes: Sequence[RowChange], *, wait: bool) -> Iterable[RowKey]:
        columns, rows = self._values(changes)
        keys = [f"k{i}" for i in range(len(self._keys))]
        values = [f"i{i}" for i in range(len(columns))]
        names = [*keys, "old", "new", *values]
        kinds = [*self._key_kinds, self._value_kind, self._value_kind, *("bytea" for _ in columns)]
        sets = [f"{self._column} = l.new", *(f"{name} = l.i{i}" for i, name in enumerate(columns))]
        on = [f"t.{name} = v.k{i}" for i, name in enumerate(self._keys)]
        still = [f"t.{self._column} IS NOT DISTINCT FROM v.old", *self._between()]
        if changes[0].guard is not None:
            names.append("guard")
            kinds.append("text")
            sets.append(f"{self._plaintext} = NULL")
            still.append(f"t.{self._plaintext}::text IS NOT DISTINCT FROM v.guard")
        if changes[0].bound:
            names += [f"b{i}" for i in range(len(self._bound))]
            kinds += self._bound_kinds
            still += [f"t.{name} IS NOT DISTINCT FROM v.b{i}" for i, name in enumerate(self._bound)]
        arrays = ", ".join(f"%b::{kind}[]" for kind in kinds)
        taken = ", ".join(f"v.{name}" for name in [*keys, "new", *values])
        lock = "FOR UPDATE OF t" if wait else "FOR UPDATE OF t SKIP LOCKED"
        statement = (
            f"WITH l AS (SELECT {taken} FROM {self._table} t JOIN unnest({arrays}) v({', '.join(names)}) "
            f"ON {' AND '.join(on)} WHERE {' AND '.join(still)} "
            f"ORDER BY {', '.join(f't.{name}' for name in self._keys)} {lock}) "
            f"UPDATE {self._table} t SET {', '.join(sets)} FROM l "
            f"WHERE {' AND '.join(f't.{name} = l.k{i}' for i, name in enumerate(self._keys))} "
            f"RETURNING {', '.join(f't.{name}' for name in self._keys)}"
        )
        sent = [_array(kind, column) for kind, column in zip(kinds, zip(*rows, strict=True), strict=True)]
        cursor.execute(statement, (*sent, *changes[0].key, *changes[-1].key))
        written: list[RowKey] = cursor.fetchall()
        return written

    def _between(self) -> list[str]:
        """Return conditions that say nothing new: the planner learns that the rows lie together."""
        keys = ", ".join(f"t.{name}" for name in self._keys)
        marks = ", ".join(f"%s::{kind}" for kind in self._key_kinds)
        return [f"({keys}) >= ({marks})", f"({keys}) <= ({marks})"]

    def put_tokens(self, cursor: Any, changes: Sequence[RowChange]) -> None:
        records = [change.record for change in changes]
        cursor.execute(f"DELETE FROM {self._tokens} WHERE record = ANY(%b::{self._record_kind}[])", (records,))
        rows = [(change.record, token) for change in changes for token in change.tokens or ()]
        if rows:
            source = f"unnest(%b::{self._record_kind}[], %b::bytea[])"
            cursor.execute(f"INSERT INTO {self._tokens} (record, token) SELECT * FROM {source}", _columns(rows))


@lru_cache(16)
def limit_of(kind: str) -> int | None:
    """Return how many characters a column of a type of PostgreSQL takes; None where it says nothing of that."""
    found = _LIMITED.fullmatch(kind)
    return None if found is None else int(found[1])


def _values(rows: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"VALUES {', '.join([row] * rows)}"


def _flat(rows: Sequence[Sequence[object]]) -> tuple[object, ...]:
    return tuple(chain.from_iterable(rows))


def _array(kind: str, values: Sequence[Any]) -> object:
    if kind == "bytea":
        return bytea_array(values)
    return int8_array(values) if kind in _INTEGERS else list(values)


def _columns(rows: Sequence[Sequence[object]]) -> tuple[list[object], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))
