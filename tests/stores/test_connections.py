"""Connections to a PostgreSQL server: how a transaction begins, and what becomes of one that the server has left."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from keystead.errors import StoreUnavailableError
from keystead.stores import engines
from keystead.stores.sql import SqlKeyStore

_OTHERS = text(
    # With a time to wait for: without one, whoever was told to end may still be at work.
    "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def setting(connection: AsyncConnection, name: str) -> Any:
    return (await connection.execute(text(f"SHOW {name}"))).scalar_one()


async def test_a_writing_transaction_has_its_limits_from_its_begin(server: SqlKeyStore) -> None:
    async with server._connections.begin(is_writing=True) as connection:
        assert await setting(connection, "transaction_isolation") == "read committed"
        assert await setting(connection, "transaction_read_only") == "off"
        assert await setting(connection, "lock_timeout") == "10s"
    async with server._connections.begin(is_writing=False) as connection:
        assert await setting(connection, "transaction_isolation") == "repeatable read"
        assert await setting(connection, "transaction_read_only") == "on"
        assert await setting(connection, "lock_timeout") == "0", "what a session keeps is its owner's"


@pytest.mark.parametrize("is_one", [False, True])
async def test_one_statement_needs_no_transaction(server: SqlKeyStore, is_one: bool) -> None:
    async with server._connections.begin(is_writing=False, is_one=is_one) as connection:
        began = [(await connection.execute(text("SELECT now()"))).scalar_one() for _ in range(2)]
    assert (began[0] != began[1]) is is_one


async def let_the_server_leave(other: SqlKeyStore) -> None:
    """Have the server end everybody's connections but this one's."""
    async with other._connections.begin(is_writing=False) as connection:
        assert (await connection.execute(_OTHERS)).scalar_one() >= 1


@pytest.mark.parametrize("rested_s", [0.0, 3600.0])
async def test_a_connection_that_its_server_has_closed_is_made_anew(
    server: SqlKeyStore, other: SqlKeyStore, monkeypatch: pytest.MonkeyPatch, rested_s: float
) -> None:
    monkeypatch.setattr(engines, "RESTED_S", rested_s)
    for _ in range(3):
        await let_the_server_leave(other)
        async with server.transaction() as work:
            await work.state()


async def test_a_connection_that_is_lost_after_it_was_looked_at_is_made_anew(
    server: SqlKeyStore, other: SqlKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "RESTED_S", 3600.0)
    monkeypatch.setattr(engines, "_is_closed", lambda pgconn: False)
    await let_the_server_leave(other)
    async with server.transaction() as work:
        await work.state()


async def test_a_connection_that_is_closed_while_it_is_used_fails_once(server: SqlKeyStore, other: SqlKeyStore) -> None:
    with pytest.raises(StoreUnavailableError):
        async with server.transaction() as work:
            await let_the_server_leave(other)
            await work.state()
    async with server.transaction() as work:
        await work.state()
