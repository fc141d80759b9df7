"""Rules of a store as rows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from keystead.ports import KeyStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def begun(store: KeyStore) -> bool:
    async with store.transaction() as work:
        return await work.begin_rule("two_person", NOW)


async def test_of_processes_that_begin_a_rule_at_once_one_has_begun_it(store: KeyStore) -> None:
    assert sorted(await asyncio.gather(*(begun(store) for _ in range(8)))) == [False] * 7 + [True]
    async with store.transaction() as work:
        assert await work.has_rule("two_person")
        await work.end_rule("two_person")
    async with store.reading() as work:
        assert not await work.has_rule("two_person")
