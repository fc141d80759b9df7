"""The application's database beside the store: a table of people, seen past the library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from keystead.fields import Field
from keystead.manager.manager import KeyManager
from keystead.ports.rows import RowChange, RowKey
from keystead.stores.engines import sync_engine
from keystead.stores.rows import RowTable
from keystead.stores.urls import parse_url

EMAIL = Field("people", "email")


@dataclass(frozen=True)
class Application:
    """A database of the application's own."""

    url: str

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite, whose types are fewer."""
        return self.url.startswith("sqlite:")

    def run(self, *statements: str) -> None:
        """Run statements; BYTES and UUID stand for the database's own types."""
        with sync_engine(parse_url(self.url)).begin() as connection:
            for statement in statements:
                connection.execute(text(self._translated(statement)))

    def fill(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows; the statement names their members ``:a``, ``:b`` and so on."""
        named = [dict(zip("abcdefgh", row, strict=False)) for row in rows]
        if named:
            with sync_engine(parse_url(self.url)).begin() as connection:
                connection.execute(text(statement), named)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read rows."""
        with sync_engine(parse_url(self.url)).connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def make_people(self, km: KeyManager, count: int, field: Field = EMAIL) -> None:
        """Make the table, with rows 1 to ``count`` that hold an e-mail address each."""
        columns = ", ".join(["id BIGINT PRIMARY KEY", "email BYTES", "updated_at TEXT"])
        indexes = "".join(f", {name} BYTES UNIQUE" for name in field.index_columns)
        self.run(f"CREATE TABLE people ({columns}{indexes})")
        self.fill(
            "INSERT INTO people (id, email, updated_at) VALUES (:a, :b, 'then')",
            ((n, km.field(field).encrypt(address(n), record=n)) for n in range(1, count + 1)),
        )

    def _translated(self, statement: str) -> str:
        kinds = {"BYTES": "BLOB", "UUID": "CHAR(32)"} if self.is_sqlite else {"BYTES": "BYTEA"}
        for name, kind in kinds.items():
            statement = statement.replace(name, kind)
        return statement


def address(number: int) -> str:
    """Return the e-mail address of a row."""
    return f"person{number}@example.org"


def before_the_write(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Do ``action`` once, after the first batch was read and before it is written; later rows have not been read."""
    waiting, write = [action], RowTable.swap

    def swap(self: RowTable, changes: Sequence[RowChange], **how: Any) -> set[RowKey]:
        if waiting:
            waiting.pop()()
        return write(self, changes, **how)

    monkeypatch.setattr(RowTable, "swap", swap)
