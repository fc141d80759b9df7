"""The hot path costs no call to the KMS, however much it is used and whatever runs beside it."""

from __future__ import annotations

import asyncio
import os

from tests.fakes.clock import FakeClock
from tests.fakes.world import World

COUNT = 1_000_000 if os.environ.get("KEYSTEAD_SOAK") else 100_000


async def naps(clock: FakeClock, at_least: int) -> int:
    for _ in range(10_000):
        if len(clock.slept) >= at_least:
            break
        await asyncio.sleep(0.005)
    return len(clock.slept)


async def woken(clock: FakeClock) -> None:
    """Let the background task poll, count and look for what is due, once."""
    before = await naps(clock, 1)
    clock.advance(30)
    await naps(clock, before + 1)


async def test_any_number_of_local_encryptions_is_one_kms_call_a_process(world: World) -> None:
    clock = FakeClock(instant=False)
    async with world.open(background=True, clock=clock) as km:
        for number in range(COUNT):
            blob = km.local_encrypt(b"64 bytes")
            if number % (COUNT // 20) == 0:
                assert km.local_decrypt(blob) == b"64 bytes"
                await woken(clock)
        assert world.calls() == 1
        assert len(clock.slept) > 20
    [row] = await world.rows("default")
    assert row.messages == COUNT
    assert world.calls() == 1
    async with world.open() as km:
        assert km.local_decrypt(blob) == b"64 bytes"
    assert world.calls() == 2
