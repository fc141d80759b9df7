"""Statements that are sent below the driver's cursors: the same values, errors and prepared statements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from keystead.stores import messages
from keystead.stores.messages import Messages

_NAMES = b"SELECT name FROM pg_prepared_statements ORDER BY name"
_DOUBLE = b"SELECT $1::bigint * 2"


@pytest.fixture
async def driver(postgres_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection that keeps a statement prepared from its third use on."""
    url = postgres_url.replace("postgresql+psycopg", "postgresql")
    opened = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=2)
    yield opened
    await opened.close()


async def prepared(driver: psycopg.AsyncConnection[Any]) -> list[str]:
    return [name for (name,) in await (await driver.execute(_NAMES, prepare=False)).fetchall()]


async def test_values_come_back_as_they_were_given(driver: psycopg.AsyncConnection[Any]) -> None:
    values = ("text", b"\0bytes", 7, None, True, [b"one", b"two"])
    asked = b"SELECT $1::text, $2::bytea, $3::bigint, $4::text, $5::boolean, $6::bytea[]"
    for _ in range(4):
        assert [tuple(row) for row in await Messages(driver).ask(asked, values)] == [values]


async def test_a_statement_is_prepared_once_it_was_used_as_often_as_the_driver_has_it(
    driver: psycopg.AsyncConnection[Any],
) -> None:
    by = Messages(driver)
    for number in range(2):
        assert await by.ask(_DOUBLE, [number]) == [(2 * number,)]
    assert await prepared(driver) == []
    for number in range(3):
        assert await by.ask(_DOUBLE, [number]) == [(2 * number,)]
    assert await prepared(driver) == ["keystead_0"]


async def test_a_value_of_another_size_is_another_statement(driver: psycopg.AsyncConnection[Any]) -> None:
    by = Messages(driver)
    for number in (1, 1, 1, 2**40, 2**40, 2**40, 1):
        assert await by.ask(_DOUBLE, [number]) == [(2 * number,)]
    assert await prepared(driver) == ["keystead_0", "keystead_1"]


async def test_where_nothing_may_be_prepared_nothing_is(driver: psycopg.AsyncConnection[Any]) -> None:
    driver.prepare_threshold = None
    by = Messages(driver)
    for number in range(9):
        assert await by.ask(_DOUBLE, [number]) == [(2 * number,)]
    assert await prepared(driver) == []


async def test_no_more_are_kept_prepared_than_are_worth_it(
    driver: psycopg.AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "KEPT", 3)
    by = Messages(driver)
    for turn in range(9):
        for number in range(5):
            assert await by.ask(b"SELECT $1::bigint + %d" % number, [turn]) == [(turn + number,)]
    assert len(await prepared(driver)) <= 3


async def test_what_changes_rows_and_returns_none_answers_nothing(driver: psycopg.AsyncConnection[Any]) -> None:
    by = Messages(driver)
    await by.ask(b"CREATE TEMPORARY TABLE things (id bigint)", [])
    for number in range(4):
        assert await by.ask(b"INSERT INTO things VALUES ($1)", [number]) == []
    assert await by.ask(b"SELECT count(*) FROM things", []) == [(4,)]


async def test_a_refusal_is_the_drivers_error_and_the_next_statement_is_answered(
    driver: psycopg.AsyncConnection[Any],
) -> None:
    by = Messages(driver)
    for _ in range(4):
        with pytest.raises(psycopg.errors.DivisionByZero):
            await by.ask(b"SELECT 1 / $1::bigint", [0])
        with pytest.raises(psycopg.errors.UndefinedTable):
            await by.ask(b"SELECT * FROM nowhere WHERE id = $1", [1])
    assert await by.ask(_DOUBLE, [4]) == [(8,)]


async def test_the_server_gives_up_what_is_given_up_here(driver: psycopg.AsyncConnection[Any]) -> None:
    begun = asyncio.get_running_loop().time()
    asking = asyncio.create_task(Messages(driver).ask(b"SELECT pg_sleep($1)", [30.0]))
    await asyncio.sleep(0.1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asyncio.get_running_loop().time() - begun < 10
    assert driver.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
