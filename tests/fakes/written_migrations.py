"""Schemas made by the SQL that the migrations write: a process asks Alembic for it once, instead of once a store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from alembic import command
from alembic.config import Config

from keystead.stores import schema
from keystead.stores.schema import read_facts
from keystead.stores.tables import VERSION_TABLE
from keystead.stores.urls import StoreUrl


class WrittenMigrations:
    """Stands in for Alembic's ``upgrade`` where a store of ours has no revision yet; anything else is Alembic's."""

    def __init__(self) -> None:
        self.is_used = True
        self._upgrade = command.upgrade

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand in while the block runs."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "upgrade", self.upgrade)
            yield

    def upgrade(self, config: Config, revision: str, sql: bool = False, tag: str | None = None) -> None:
        """Bring a database to ``revision``, as Alembic's own function of this name."""
        connection, made_in = (config.attributes.get(name) for name in ("connection", "schema"))
        is_ours = config.get_main_option("script_location") == "keystead.stores:migrations"
        if not self.is_used or sql or not is_ours or connection is None or revision != "head":
            return self._upgrade(config, revision, sql, tag)
        if VERSION_TABLE in read_facts(connection, made_in).tables:
            return self._upgrade(config, revision, sql, tag)
        driver: Any = connection.connection.driver_connection
        raw = getattr(driver, "_conn", driver)  # under aiosqlite, whose thread has nothing to do meanwhile
        for statement in _statements(connection.dialect.name, made_in):
            raw.execute(statement).close()
        return None


@cache
def _statements(dialect: str, made_in: str | None) -> tuple[str, ...]:
    """Return what is to be executed in a transaction: PostgreSQL takes all at once, SQLite one by one."""
    script = schema._as_sql(StoreUrl("postgresql" if dialect == "postgresql" else "sqlite", schema=made_in))
    body = script.partition("BEGIN;\n")[2].rpartition("COMMIT;")[0]
    if dialect == "postgresql":
        return (body,)
    statements, begun = list[str](), ""
    for line in body.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            statements.append(begun)
            begun = ""
    assert not begun.strip()
    return tuple(statements)
