"""The demonstration's table: people from a CSV file, their personal columns encrypted cell by cell in SQLite."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, Protocol

from keystead.errors import InvalidInputError

PERSONAL: Final = ("name", "email", "phone", "street", "birth_date", "national_id")
"""Columns of the built-in file that say who somebody is."""


class Cipher(Protocol):
    """What encrypts a cell: a manager's ``local_encrypt`` or ``local_decrypt``."""

    def __call__(self, data: bytes, /, *, context: dict[str, str] | None = None) -> bytes:
        """Encrypt or decrypt one cell."""


@dataclass(frozen=True, slots=True)
class People:
    """Rows of a CSV file and which of its columns are personal."""

    columns: list[str]
    personal: list[str]
    rows: list[dict[str, str]]

    @property
    def cells(self) -> int:
        """How many cells are personal."""
        return len(self.rows) * len(self.personal)

    def digest(self) -> str:
        """Return a SHA-256 over every personal cell, in order: what decryption must give again."""
        return _digest(row[column].encode() for row in self.rows for column in self.personal)


def read_people(path: Path | None, personal: list[str] | None) -> People:
    """Read a CSV file with a header, or the built-in one of 10 000 invented people.

    ``personal`` defaults to the built-in file's personal columns, or to every column but the first.

    Raises:
        InvalidInputError: not a CSV file with a header and rows, or an unknown column.
    """
    rows, columns = _read(path)
    if not columns or not rows:
        raise InvalidInputError("the CSV file needs a header line and at least one row")
    chosen = personal or (list(PERSONAL) if path is None else columns[1:] or columns)
    if unknown := [column for column in chosen if column not in columns]:
        raise InvalidInputError(f"the CSV file has no column {unknown[0]!r}; it has {', '.join(columns)}")
    if any(None in row or None in row.values() for row in rows):
        raise InvalidInputError("a row of the CSV file has more or fewer cells than the header")
    return People(columns, chosen, rows)


def create_table(database: Path, people: People) -> None:
    """Make the empty table: personal columns hold ciphertexts, the others what they held."""
    kinds = [f"{_quoted(c)} {'BLOB' if c in people.personal else 'TEXT'} NOT NULL" for c in people.columns]
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(f"CREATE TABLE people (row INTEGER PRIMARY KEY, {', '.join(kinds)})")


def insert(database: Path, people: People, start: int, stop: int, encrypt: Cipher) -> None:
    """Encrypt and insert rows ``start`` to ``stop``; each cell is bound to its row and column."""

    def cells(number: int) -> list[object]:
        row = people.rows[number]
        return [
            encrypt(row[c].encode(), context=_context(number, c)) if c in people.personal else row[c]
            for c in people.columns
        ]

    marks = ", ".join("?" * (len(people.columns) + 1))
    with closing(sqlite3.connect(database)) as db, db:
        rows = ([n, *cells(n)] for n in range(start, stop))
        db.executemany(f"INSERT INTO people VALUES ({marks})", rows)  # noqa: S608 - question marks only


def decrypted_digest(database: Path, personal: list[str], decrypt: Cipher) -> tuple[int, str]:
    """Decrypt every personal cell; return how many there were and the digest of ``People.digest``."""
    count = 0

    def plaintexts() -> Iterator[bytes]:
        nonlocal count
        names = ", ".join(_quoted(column) for column in personal)
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            for number, *cells in db.execute(f"SELECT row, {names} FROM people ORDER BY row"):  # noqa: S608 - quoted
                for column, cell in zip(personal, cells, strict=True):
                    count += 1
                    yield decrypt(cell, context=_context(number, column))

    digest = _digest(plaintexts())
    return count, digest


def _context(number: int, column: str) -> dict[str, str]:
    return {"table": "people", "row": str(number), "column": column}


def _read(path: Path | None) -> tuple[list[dict[str, str]], list[str]]:
    try:
        if path is None:
            packed = files("keystead.cli").joinpath("data/people.csv.gz").read_bytes()
            text = gzip.decompress(packed).decode()
        else:
            text = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        return list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise InvalidInputError(f"{path} cannot be read as a CSV file: {type(exc).__name__}") from None


def _digest(values: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
