"""Statements that are run by the driver itself: each with its own values, the first time as every other time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Integer, String, bindparam, literal, select, type_coerce

from keystead.ports import KeyStore
from keystead.stores.prepared import Prepared


def asking(number: int, text: str) -> Prepared:
    """Return a statement that is like the others but for two values of its own."""
    given = type_coerce(bindparam("given", type_=BigInteger), BigInteger)
    query: Any = select((given + literal(number, BigInteger)).label("sum"), literal(text, String).label("text")).where(
        literal(number, Integer) > 0
    )
    return Prepared(query)


async def run(store: KeyStore, prepared: Prepared, given: int) -> list[dict[str, Any]]:
    async with store.reading() as work:
        return await work._run(prepared, {"given": given}, writes=False)  # type: ignore[attr-defined, no-any-return]


async def test_statements_that_are_alike_keep_their_own_values(store: KeyStore) -> None:
    statements = {number: asking(number, f"text {number}") for number in (1, 7, 100)}
    for given in (1000, 2000, 3000):
        for number, prepared in statements.items():
            assert await run(store, prepared, given) == [{"sum": given + number, "text": f"text {number}"}]
