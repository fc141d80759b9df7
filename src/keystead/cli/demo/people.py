"""The demonstration's people: rows of a CSV file, and which of their columns are personal."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from keystead.errors import InvalidInputError

PERSONAL: Final = ("name", "email", "phone", "street", "birth_date", "national_id")
"""Columns of the built-in file that say who somebody is."""


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
        return digest_of(row[column].encode() for row in self.rows for column in self.personal)


def read_people(path: Path | None, personal: list[str] | None) -> People:
    """Read a CSV file with a header, or the built-in one of 10 000 invented people.

    ``personal`` defaults to the built-in file's personal columns, or to every column but the first.

    Raises:
        InvalidInputError: not a CSV file with a header and rows, or an unknown column.
    """
    rows, columns = _read(path)
    if not columns or not rows:
        raise InvalidInputError("the CSV file needs a header line and at least two rows")
    chosen = personal or (list(PERSONAL) if path is None else columns[1:] or columns)
    if unknown := [column for column in chosen if column not in columns]:
        raise InvalidInputError(f"the CSV file has no column {unknown[0]!r}; it has {', '.join(columns)}")
    if any(None in row or None in row.values() for row in rows):
        raise InvalidInputError("a row of the CSV file has more or fewer cells than the header")
    if len(rows) < 2:
        raise InvalidInputError("the CSV file needs at least two rows, one for each key version of the demonstration")
    return People(columns, chosen, rows)


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


def digest_of(values: Iterator[bytes]) -> str:
    """Return a SHA-256 over values and their boundaries."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()
