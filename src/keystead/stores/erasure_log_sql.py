"""Erasure logs in a second database. Spec: docs/spec/erasure-v1.md, 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, select

from keystead.errors import ErasureLogError
from keystead.ports import LogPosition
from keystead.stores.creation import create_file
from keystead.stores.engines import IS_WRITING, sync_engine
from keystead.stores.erasure_logs import moved_on
from keystead.stores.failures import ours_only
from keystead.stores.handles import open_handles
from keystead.stores.tables.columns import BIG
from keystead.stores.urls import StoreUrl


class SqlErasureLog:
    """A table of its own in another database than the store's."""

    def __init__(self, url: StoreUrl) -> None:
        self._url = url
        self._lines = Table(
            "keystead_erasures",
            MetaData(schema=url.schema),
            Column("n", BIG, primary_key=True, autoincrement=False),
            Column("line", LargeBinary, nullable=False),
        )

    def read(self, position: LogPosition) -> tuple[list[bytes], LogPosition]:
        """Return the lines behind a place, which is the number of a line."""
        if self._url.path is None or self._url.path.exists():
            with self._connected(is_writing=False) as connection:
                if connection.dialect.has_table(connection, self._lines.name, schema=self._lines.schema):
                    return self._read(connection, position)
        if position.at:
            raise ErasureLogError("the erasure log is gone from its database: put it back from a copy")
        return [], position

    def append(self, position: LogPosition, line: bytes) -> None:
        """Add a line."""
        if position.at == 0 and self._url.path is not None:
            create_file(self._url.path)
        with self._connected(is_writing=True) as connection:
            if position.at == 0:
                self._lines.create(connection, checkfirst=True)
            lines, _ = self._read(connection, position)
            if lines:
                raise moved_on()
            connection.execute(self._lines.insert().values(n=position.at + 1, line=line))

    def _read(self, connection: Connection, position: LogPosition) -> tuple[list[bytes], LogPosition]:
        table = self._lines
        rows = connection.execute(select(table.c.n, table.c.line).where(table.c.n >= position.at).order_by(table.c.n))
        found = [(int(number), bytes(line)) for number, line in rows]
        first = position.at if position.at else 1
        is_there = not position.at or (bool(found) and found[0] == (position.at, position.last))
        if not is_there or [number for number, _ in found] != list(range(first, first + len(found))):
            raise ErasureLogError(
                "the erasure log has fewer lines than it had, or others: put back the one that this store was used with"
            )
        lines = [line for number, line in found if number > position.at]
        return lines, LogPosition(position.at + len(lines), lines[-1] if lines else position.last)

    @contextmanager
    def _connected(self, *, is_writing: bool) -> Iterator[Connection]:
        engine = sync_engine(self._url).execution_options(**{IS_WRITING: is_writing})
        with ours_only(), open_handles.transaction(), engine.begin() as connection:
            yield connection
