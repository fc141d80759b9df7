"""A transaction of PostgreSQL that is prepared and not ended yet."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence

import psycopg

from tests.components import missing


@contextlib.contextmanager
def prepared(url: str, statement: str, values: Sequence[object]) -> Iterator[Callable[[], None]]:
    """Run a statement in a transaction that is prepared, and give what commits it; else it is rolled back at the end.

    A server that knows no prepared transactions, which those of the tests' own do, is a component that is missing.
    """
    name = f"waits {secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as ending:
        if ending.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
            missing("postgres", "prepared transactions: set max_prepared_transactions of the server")
        with contextlib.closing(psycopg.connect(url)) as writing:
            writing.tpc_begin(name)
            writing.execute(statement.encode(), values)
            writing.tpc_prepare()
        try:
            yield lambda: ending.tpc_commit(name)
        finally:
            for (left,) in ending.execute("SELECT gid FROM pg_prepared_xacts WHERE gid = %s", (name,)).fetchall():
                ending.tpc_rollback(left)
