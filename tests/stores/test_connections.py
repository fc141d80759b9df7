"""Connections to a PostgreSQL server: how a transaction begins, and what becomes of one that the server has left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from keystead.errors import StoreUnavailableError
from keystead.stores import engines
from keystead.stores.schema import migrate
from keystead.stores.sql import SqlKeyStore

_OTHERS = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[SqlKeyStore]:
    migrate(postgres_url)
    opened = SqlKeyStore(postgres_url)
    await opened.open()
    yield opened
    await opened.aclose()


async def setting(connection: AsyncConnection, name: str) -> Any:
    return (await connection.execute(text(f"SHOW {name}"))).scalar_one()


async def test_a_writing_transaction_has_its_limits_from_its_begin(store: SqlKeyStore) -> None:
    async with store._connections.begin(is_writing=True) as connection:
        assert await setting(connection, "transaction_isolation") == "read committed"
        assert await setting(connection, "transaction_read_only") == "off"
        assert await setting(connection, "lock_timeout") == "10s"
    async with store._connections.begin(is_writing=False) as connection:
        assert await setting(connection, "transaction_isolation") == "repeatable read"
        assert await setting(connection, "transaction_read_only") == "on"
        assert await setting(connection, "lock_timeout") == "0", "what a session keeps is its owner's"


@pytest.mark.parametrize("is_one", [False, True])
async def test_one_statement_needs_no_transaction(store: SqlKeyStore, is_one: bool) -> None:
    async with store._connections.begin(is_writing=False, is_one=is_one) as connection:
        began = [(await connection.execute(text("SELECT now()"))).scalar_one() for _ in range(2)]
    assert (began[0] != began[1]) is is_one


@pytest.mark.parametrize("rested_s", [0.0, 3600.0])
async def test_a_connection_that_its_server_has_closed_is_made_anew(
    store: SqlKeyStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch, rested_s: float
) -> None:
    monkeypatch.setattr(engines, "RESTED_S", rested_s)
    other = SqlKeyStore(postgres_url)
    for _ in range(3):
        async with other._connections.begin(is_writing=False) as connection:
            assert (await connection.execute(_OTHERS)).scalar_one() >= 1
        async with store.transaction() as work:
            await work.state()
    await other.aclose()


async def test_a_connection_that_is_closed_while_it_is_used_fails_once(store: SqlKeyStore, postgres_url: str) -> None:
    other = SqlKeyStore(postgres_url)
    with pytest.raises(StoreUnavailableError):
        async with store.transaction() as work:
            async with other._connections.begin(is_writing=False) as connection:
                await connection.execute(_OTHERS)
            await work.state()
    async with store.transaction() as work:
        await work.state()
    await other.aclose()
