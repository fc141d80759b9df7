"""A time limit with one timer for all: it ends what takes too long, and nothing else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from keystead.runtime.patience import Patience

SOON_S = 0.05


async def test_what_takes_too_long_is_ended() -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Patience(SOON_S):
            await asyncio.sleep(60)
    assert SOON_S * 0.9 <= time.monotonic() - begun < 30
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_what_is_done_in_time_is_left_alone_whatever_comes_after_it() -> None:
    for _ in range(3):
        async with Patience(SOON_S):
            await asyncio.sleep(0)
    await asyncio.sleep(3 * SOON_S)


async def test_each_has_its_own_time() -> None:
    async def take(seconds: float) -> str:
        try:
            async with Patience(0.3):
                await asyncio.sleep(seconds)
        except TimeoutError:
            return "ended"
        return "done"

    early = asyncio.create_task(take(60))
    await asyncio.sleep(0.2)
    late, quick = asyncio.create_task(take(60)), asyncio.create_task(take(0.01))
    begun = time.monotonic()
    assert (await early, await quick) == ("ended", "done")
    assert not late.done()
    assert await late == "ended"
    assert time.monotonic() - begun >= 0.25


async def test_who_cancels_from_outside_is_obeyed() -> None:
    async def wait() -> None:
        async with Patience(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_cancels_while_the_time_is_over_is_obeyed() -> None:
    async def wait() -> None:
        async with Patience(SOON_S):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                # Somebody else wants it to end too, before this has been told.
                current: Any = asyncio.current_task()
                current.cancel()
                raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(wait())


async def test_what_was_raised_in_time_is_what_is_raised() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Patience(SOON_S):
            raise ValueError("mine")


async def test_one_within_the_other_ends_first() -> None:
    async with Patience(60):
        with pytest.raises(TimeoutError):
            async with Patience(SOON_S):
                await asyncio.sleep(60)
        await asyncio.sleep(0)


async def test_none_is_for_ever() -> None:
    async with Patience(None):
        await asyncio.sleep(0)


def test_each_event_loop_has_its_own() -> None:
    async def take_too_long() -> None:
        with pytest.raises(TimeoutError):
            async with Patience(SOON_S):
                await asyncio.sleep(60)

    asyncio.run(take_too_long())
    asyncio.run(take_too_long())
