"""What each statement of a process reads, by the databases' own account: neither the load of a machine nor a cache
changes it.

PostgreSQL executes each query a second time under EXPLAIN ANALYZE, and tells how many rows its plan has read from
tables and indexes. SQLite tells how many steps of its machine a statement has taken; what it counts by walking over
pages alone takes one, and so the rows are counted that it has walked over.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import psycopg

from keystead.stores.messages import Messages
from soak.places import POSTGRESQL, Place

EXPLAIN: Final = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
STEPS: Final = 100
"""So often SQLite is asked for its steps, and so exact they are."""
_QUERY: Final = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)
_LOCKING: Final = re.compile(r"\bFOR (NO KEY )?(UPDATE|SHARE)\b|\b(INSERT|UPDATE|DELETE|pg_advisory)\b", re.IGNORECASE)


@dataclass(slots=True)
class Reading:
    """A statement, and what it has read: rows in PostgreSQL, steps in SQLite."""

    sql: str
    read: int = 0


@dataclass(slots=True)
class Statements:
    """Notes statements while ``is_on``; ``counted`` tells of a text what its steps do not."""

    counted: Callable[[str], int] = lambda _: 0
    is_on: bool = False
    seen: list[Reading] = field(default_factory=list)

    @contextmanager
    def noted(self) -> Iterator[list[Reading]]:
        """Note what the block runs, in a list of its own."""
        self.seen, self.is_on = [], True
        try:
            yield self.seen
        finally:
            self.is_on = False
        for each in self.seen:
            each.read += self.counted(each.sql)


@contextmanager
def watched(place: Place) -> Iterator[Statements]:
    """Have the statements of this process watched that run on connections which are opened in the block."""
    with _watched_postgresql() if place.kind == POSTGRESQL else _watched_sqlite(place.path) as statements:
        yield statements


@contextmanager
def _watched_postgresql() -> Iterator[Statements]:
    noted = Statements()
    ask, execute = Messages.ask, psycopg.AsyncCursor.execute

    def wants(sql: str) -> bool:
        return noted.is_on and _QUERY.match(sql) is not None and _LOCKING.search(sql) is None

    async def ask_watched(self: Messages, sql: bytes, values: Sequence[Any]) -> Any:
        if wants(sql.decode()):
            [[plan]] = await ask(self, EXPLAIN.encode() + sql, values)
            noted.seen.append(Reading(sql.decode(), rows_of(plan)))
        return await ask(self, sql, values)

    async def execute_watched(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
        text = query if isinstance(query, str) else query.decode() if isinstance(query, bytes) else ""
        if wants(text):
            cursor = psycopg.AsyncCursor(self.connection)
            await execute(cursor, EXPLAIN.encode() + text.encode(), params)
            [[plan]] = await cursor.fetchall()
            noted.seen.append(Reading(text, rows_of(plan)))
        return await execute(self, query, params, **options)

    with patch.object(Messages, "ask", ask_watched), patch.object(psycopg.AsyncCursor, "execute", execute_watched):
        yield noted


def rows_of(plan: Any) -> int:
    """Return how many rows the leaves of an explained plan have read, those included that a condition left out."""
    [told] = json.loads(plan) if isinstance(plan, str | bytes) else plan
    return round(sum(_leaves(told["Plan"])))


def _leaves(node: dict[str, Any]) -> Iterator[float]:
    below = node.get("Plans", [])
    if not below or "Relation Name" in node:
        left_out = sum(value for name, value in node.items() if name.startswith("Rows Removed by"))
        yield (node["Actual Rows"] + left_out) * node["Actual Loops"]
    for each in below:
        yield from _leaves(each)


@contextmanager
def _watched_sqlite(path: Path) -> Iterator[Statements]:
    connect = sqlite3.connect
    noted = Statements(lambda sql: counted_rows(connect(path), sql))

    def connect_watched(*given: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*given, **options)
        now: list[Reading] = []

        def begun(sql: str) -> None:
            now[:] = [Reading(sql)]
            if noted.is_on and _QUERY.match(sql):
                noted.seen += now

        def stepped() -> int:
            for each in now:
                each.read += STEPS
            return 0

        connection.set_trace_callback(begun)
        connection.set_progress_handler(stepped, STEPS)
        return connection

    with patch.object(sqlite3, "connect", connect_watched):
        yield noted


def counted_rows(database: sqlite3.Connection, sql: str) -> int:
    """Return how many rows of tables a statement of SQLite counts by walking over their pages; close the database."""
    with closing(database):
        if "count(" not in sql.lower():
            return 0
        opcodes = database.execute(f"EXPLAIN {sql}").fetchall()
        opened = {p1: p2 for _, opcode, p1, p2, *_ in opcodes if opcode == "OpenRead"}
        roots = [opened[p1] for _, opcode, p1, *_ in opcodes if opcode == "Count"]
        tables = [database.execute("SELECT tbl_name FROM sqlite_master WHERE rootpage = ?", (root,)) for root in roots]
        names = [name for found in tables for (name,) in found]
        return sum(database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names)
