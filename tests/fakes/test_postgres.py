"""The tests' own PostgreSQL behaves as the tests that use it believe."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from tests.fakes.postgres import PostgresServer


def test_the_url_works_with_synchronous_psycopg(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


async def test_the_url_works_with_asynchronous_psycopg(postgres_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        cursor = await connection.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)


async def test_the_url_works_with_sqlalchemy(postgres_url: str) -> None:
    engine = create_async_engine(make_url(postgres_url).set(drivername="postgresql+psycopg"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


@pytest.mark.parametrize("turn", ["first", "second"])
def test_every_test_gets_an_empty_database(postgres_url: str, turn: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE mine (turn text)")
        connection.execute("INSERT INTO mine VALUES (%s)", [turn])
        assert connection.execute("SELECT count(*) FROM mine").fetchone() == (1,)


@pytest.mark.parametrize("crash", [False, True])
def test_what_was_committed_is_there_after_a_stop_and_a_start(
    postgres_server: PostgresServer, postgres_url: str, crash: bool
) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    postgres_server.stop(crash=crash)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_url)
    postgres_server.start()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_silent_server_answers_nobody_and_forgets_nobody(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        with postgres_server.silent(), pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(postgres_server.url(), connect_timeout=2)
        assert connection.execute("SELECT 1").fetchone() == (1,)
