"""Transactions that are cancelled at any moment leave a store that lasts as if they had never been asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from keystead.ports import KeyStore
from keystead.stores import open_store
from keystead.stores.schema import migrate

TURNS = 60
"""More turns of the loop than a transaction takes."""


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    """A store on a disk."""
    is_file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/keys.db" if is_file else request.getfixturevalue("postgres_url")
    migrate(url)
    return open_store(url)


async def test_a_store_goes_on_after_a_transaction_that_was_cancelled_at_any_moment(store: KeyStore) -> None:
    async def change() -> None:
        async with store.transaction() as work:
            await work.bump_epoch()

    before = (await store.open()).epoch
    for turns in range(TURNS):
        changing = asyncio.create_task(change())
        for _ in range(turns):
            await asyncio.sleep(0)
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        # A lock that was left behind would be waited for until the time-out of ten seconds.
        async with asyncio.timeout(9):
            await change()
    assert TURNS <= (await store.open()).epoch - before <= 2 * TURNS
    await store.aclose()
