"""Connections that wait for single statements: taken again and again, and never one that something is wrong with."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from keystead.errors import KeyNotFoundError, StorageOperationError
from keystead.stores import spare
from keystead.stores.engines import EngineOfLoop
from keystead.stores.schema import migrate
from keystead.stores.sql import SqlKeyStore
from keystead.stores.unit_of_work import SqlUnitOfWork
from tests.stores.test_connections import let_the_server_leave

_BACKEND = text("SELECT pg_backend_pid()")


async def backend(work: SqlUnitOfWork) -> int:
    return int((await work._connection.execute(_BACKEND)).scalar_one())


async def asked(server: SqlKeyStore) -> int:
    """Return which process of the server ran a single statement."""
    async with server.reading(once=True) as work:
        return await backend(work)


def engine_of(server: SqlKeyStore) -> EngineOfLoop:
    found = server._connections._engine
    assert found is not None
    return found


def lent(server: SqlKeyStore) -> int:
    """Return how many connections are out of the pool."""
    return int(engine_of(server).engine.pool.checkedout())  # type: ignore[attr-defined]


async def test_one_statement_after_another_has_the_same_connection_and_the_pool_is_not_asked(
    server: SqlKeyStore,
) -> None:
    assert lent(server) == 0
    backends = {await asked(server) for _ in range(5)}
    async with server.transaction(once=True) as work:
        backends.add(await backend(work))
    assert (len(backends), lent(server)) == (1, 1)


async def test_no_more_are_kept_than_are_worth_it(server: SqlKeyStore) -> None:
    both = asyncio.Barrier(5)

    async def ask() -> None:
        async with server.reading(once=True) as work:
            await backend(work)
            await both.wait()

    await asyncio.gather(*(ask() for _ in range(5)))
    assert lent(server) == spare.KEPT


async def test_one_that_its_server_has_left_is_replaced(server: SqlKeyStore, other: SqlKeyStore) -> None:
    before = await asked(server)
    await let_the_server_leave(other)
    assert await asked(server) != before


async def test_one_that_has_rested_goes_back_to_the_pool(server: SqlKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await asked(server)
    monkeypatch.setattr(spare, "RESTED_S", 0.0)
    async with server.reading(once=True) as work:
        await backend(work)
        assert lent(server) == 1
    await asked(server)
    assert lent(server) == 1


async def test_one_whose_statement_failed_is_not_kept(server: SqlKeyStore) -> None:
    with pytest.raises(StorageOperationError, match="only reads"):
        async with server.reading(once=True) as work:
            await work.bump_epoch()
    assert lent(server) == 0
    with pytest.raises(KeyNotFoundError):
        async with server.reading(once=True):
            raise KeyNotFoundError
    assert lent(server) == 0


async def test_one_on_which_a_statement_is_given_up_is_closed(server: SqlKeyStore) -> None:
    before = await asked(server)

    async def wait() -> None:
        async with server.reading(once=True) as work:
            await work._connection.execute(text("SELECT pg_sleep(30)"))

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asked(server) != before


async def test_closing_the_store_closes_them(server: SqlKeyStore, other: SqlKeyStore) -> None:
    gone = await asked(server)
    await server.aclose()
    async with other.reading() as work:
        found = await work._connection.execute(text(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {gone}"))
        for _ in range(50):
            if found.scalar_one() == 0:
                break
            await asyncio.sleep(0.1)
            found = await work._connection.execute(text(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {gone}"))
        else:
            pytest.fail("it is open still")


def test_another_loop_gets_its_own(postgres_url: str) -> None:
    migrate(postgres_url)
    server = SqlKeyStore(postgres_url)
    backends = [asyncio.run(asked(server)) for _ in range(3)]
    assert len(set(backends)) == 3
    asyncio.run(server.aclose())


@pytest.mark.parametrize("threshold", ["", "?prepare_threshold=0"])
async def test_the_server_keeps_statements_prepared_where_it_is_told_to(postgres_url: str, threshold: str) -> None:
    migrate(postgres_url)
    joined = threshold.replace("?", "&") if "?" in postgres_url else threshold
    server = SqlKeyStore(postgres_url + joined)
    await server.open()
    for _ in range(3):
        async with server.reading(once=True) as work:
            await work.has_audit_entries()
    # Where each statement is prepared, a transaction begins all the same.
    async with server.transaction() as work:
        await work.now_ms()
    async with server.reading() as work:
        await work.now_ms()
    async with server.reading(once=True) as work:
        kept = (await work._connection.execute(text("SELECT statement FROM pg_prepared_statements"))).scalars().all()
    assert any("audit_entries" in statement for statement in kept) is bool(threshold)
    await server.aclose()
