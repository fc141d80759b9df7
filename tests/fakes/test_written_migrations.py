"""A store that is made by the written migrations is one that Alembic made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from keystead.stores.memory import MemoryKeyStore
from keystead.stores.schema import check_schema, migrate
from tests.fakes.world import raw
from tests.fakes.written_migrations import WrittenMigrations

POSTGRESQL = """
SELECT concat_ws(' ', n.nspname, c.relname, c.relkind, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
                 a.attnotnull)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.oid >= 16384 AND n.nspname <> 'pg_toast' AND a.attnum > 0
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname <> ALL ('{pg_catalog,pg_toast}')
UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
WHERE oid >= 16384
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE oid >= 16384
"""


@pytest.fixture
def written(_written_migrations: WrittenMigrations) -> WrittenMigrations:
    return _written_migrations


def in_postgresql(url: str, *, schema: str | None = None) -> list[str]:
    """Return what a new schema is made of, and remove it."""
    migrate(url, schema=schema)
    check_schema(url, schema=schema)
    with psycopg.connect(url) as connection:
        found = sorted(row[0] for row in connection.execute(POSTGRESQL.encode()))
        connection.execute(f'DROP SCHEMA "{schema or "public"}" CASCADE'.encode())
        connection.execute("CREATE SCHEMA IF NOT EXISTS public")
    return found


@pytest.mark.parametrize("schema", [None, "keys_of_app"])
def test_the_same_is_made_in_postgresql(
    written: WrittenMigrations, postgres_url: str, schema: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = in_postgresql(postgres_url, schema=schema)
    monkeypatch.setattr(written, "is_used", False)
    assert made == in_postgresql(postgres_url, schema=schema)


async def in_memory() -> dict[str, list[Any]]:
    """Return what a new store in memory is made of.

    Alembic writes spaces where it executes tabs, and no empty lines at an end.
    """
    store = MemoryKeyStore()
    await store.open()
    connection = raw(store)
    rules = (
        "SELECT type, name, tbl_name, rtrim(replace(sql, char(9), '    '), char(10)) FROM sqlite_master ORDER BY name"
    )
    made: dict[str, list[Any]] = {"": connection.execute(rules).fetchall()}
    for table in [name for kind, name, *_ in made[""] if kind == "table"]:
        made[table] = connection.execute(f"SELECT * FROM {table}").fetchall()
    await store.aclose()
    (state,) = made.pop("store_state")
    made["id"] = [state[1], state[5]]
    made["state"] = [*state[:1], *state[2:5], *state[6:]]
    return made


async def test_the_same_is_made_in_memory(written: WrittenMigrations, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await in_memory(), await in_memory()
    assert first.pop("id") != second.pop("id")
    monkeypatch.setattr(written, "is_used", False)
    third = await in_memory()
    del third["id"]
    assert first == second == third


def test_a_file_is_made_that_is_migrated_again_without_a_change(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    migrate(url)
    check_schema(url)
    before = (tmp_path / "keys.db").read_bytes()
    migrate(url)
    assert (tmp_path / "keys.db").read_bytes() == before
