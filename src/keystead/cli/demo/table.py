"""The demonstration's table: personal columns encrypted as fields in SQLite, one of them searchable."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from keystead.cli.demo.people import People, digest_of
from keystead.crypto.envelope import inspect
from keystead.fields import Exact, Field, FieldCipher
from keystead.manager.manager import KeyManager

TABLE: Final = "people"
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class DemoTable:
    """Where the people are: a table with a number for each row, and which of its columns are encrypted."""

    database: Path
    columns: Sequence[str]
    personal: Sequence[str]

    @property
    def url(self) -> str:
        """The database's URL."""
        return f"sqlite:///{self.database}"

    @property
    def searched(self) -> str:
        """The personal column that has an index: the e-mail address where there is one."""
        return "email" if "email" in self.personal else self.personal[0]

    def fields(self) -> dict[str, Field]:
        """Return the declaration of each personal column."""
        return {
            column: Field(TABLE, column, record="row", indexes=(Exact(),) if column == self.searched else ())
            for column in self.personal
        }

    def create(self) -> None:
        """Make the empty table: personal columns hold ciphertexts, the others what they held."""
        kinds = [f"{_quoted(c)} {'BLOB' if c in self.personal else 'TEXT'} NOT NULL" for c in self.columns]
        indexes = self.fields()[self.searched].index_columns
        kinds += [f"{_quoted(index)} BLOB" for index in indexes]
        with closing(self._connect()) as db, db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"CREATE TABLE {TABLE} (row INTEGER PRIMARY KEY, {', '.join(kinds)})")
            for index in indexes:
                db.execute(f"CREATE INDEX {_quoted('by_' + index)} ON {TABLE} ({_quoted(index)})")

    def insert(self, km: KeyManager, people: People, start: int, stop: int) -> None:
        """Encrypt and insert rows ``start`` to ``stop``, column by column; each value is bound to its row."""
        numbers = range(start, stop)
        ciphers = self._ciphers(km)
        kept: dict[str, Sequence[object]] = {}
        for column in self.columns:
            values = [people.rows[number][column] for number in numbers]
            kept[column] = values
            if column in ciphers:
                kept[column] = ciphers[column].encrypt_many(zip(values, numbers, strict=True))
            if column == self.searched:
                hashes = [ciphers[column].index_values(value) for value in values]
                for index in ciphers[column].field.index_columns:
                    kept[index] = [row[index] for row in hashes]
        names, marks = ", ".join(map(_quoted, kept)), ", ".join("?" * len(kept))
        with closing(self._connect()) as db, db:
            rows = zip(numbers, *kept.values(), strict=True)
            db.executemany(f"INSERT INTO {TABLE} (row, {names}) VALUES (?, {marks})", rows)  # noqa: S608 - quoted

    def change(self, km: KeyManager, row: int, column: str, value: str) -> None:
        """Encrypt a new value for one cell and write it, as an application does."""
        cipher = self._ciphers(km)[column]
        changed: dict[str, object] = {column: cipher.encrypt(value, record=row)}
        if cipher.field.indexes:
            changed |= cipher.index_values(value)
        columns = ", ".join(f"{_quoted(name)} = ?" for name in changed)
        with closing(self._connect()) as db, db:
            db.execute(f"UPDATE {TABLE} SET {columns} WHERE row = ?", [*changed.values(), row])  # noqa: S608 - quoted

    def digest(self, km: KeyManager) -> tuple[int, str]:
        """Decrypt every personal cell; return how many there were and the digest of ``People.digest``."""
        count = 0
        ciphers = self._ciphers(km)

        def plaintexts() -> Iterator[bytes]:
            nonlocal count
            for rows in self._pages(list(ciphers)):
                numbers = [row[0] for row in rows]
                sealed = list(zip(*(row[1:] for row in rows), strict=True))
                columns = [
                    cipher.decrypt_many(zip(cells, numbers, strict=True))
                    for cells, cipher in zip(sealed, ciphers.values(), strict=True)
                ]
                for cells in zip(*columns, strict=True):
                    for cell in cells:
                        count += 1
                        yield str(cell).encode()

        digest = digest_of(plaintexts())
        return count, digest

    def find(self, km: KeyManager, value: str) -> list[int]:
        """Return the rows whose searched column holds ``value``, without decrypting one."""
        query, hashes = self._query(km, value)
        with closing(self._connect()) as db:
            return [row for (row,) in db.execute(query, hashes)]

    def explain(self, km: KeyManager) -> str:
        """Return what the database says it does to answer ``find``."""
        query, hashes = self._query(km, "anybody")
        with closing(self._connect()) as db:
            return "; ".join(line[3] for line in db.execute(f"EXPLAIN QUERY PLAN {query}", hashes))

    def row_count(self) -> int:
        """Return how many rows there are."""
        with closing(self._connect()) as db:
            return int(db.execute(f"SELECT count(*) FROM {TABLE}").fetchone()[0])  # noqa: S608 - a constant

    def data_keys(self) -> set[int]:
        """Return the ids of the data keys that protect the table."""
        return {inspect(cell).data_key_id for rows in self._pages(self.personal) for row in rows for cell in row[1:]}

    def _query(self, km: KeyManager, value: str) -> tuple[str, list[bytes | None]]:
        cipher = self._ciphers(km)[self.searched]
        hashes = cipher.query_values(cipher.field.indexes[0], value)
        where = " OR ".join(f"{_quoted(index)} = ?" for index in cipher.field.index_columns)
        return f"SELECT row FROM {TABLE} WHERE {where}", [hashes.get(0), hashes.get(1)]  # noqa: S608 - quoted

    def _pages(self, columns: Sequence[str]) -> Iterator[list[tuple[int, *tuple[bytes, ...]]]]:
        names = ", ".join(map(_quoted, columns))
        with closing(self._connect()) as db:
            (last,) = db.execute(f"SELECT coalesce(max(row), -1) FROM {TABLE}").fetchone()  # noqa: S608 - a constant
            for start, stop in pairwise([*range(0, last + 1, PAGE), last + 1]):
                query = f"SELECT row, {names} FROM {TABLE} WHERE row >= ? AND row < ? ORDER BY row"  # noqa: S608 - quoted
                yield db.execute(query, (start, stop)).fetchall()

    def _ciphers(self, km: KeyManager) -> dict[str, FieldCipher]:
        return {column: km.field(field) for column, field in self.fields().items()}

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.database, timeout=60)


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
