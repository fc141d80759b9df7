from __future__ import annotations

import asyncio
import gc

from keystead.runtime.locks import NamedLocks


async def test_a_name_is_one_lock_while_somebody_uses_it() -> None:
    locks = NamedLocks()
    held = locks("one")
    async with held:
        assert locks("one") is held
        assert locks("one").locked()
        assert not locks("two").locked()


async def test_an_unused_name_takes_no_memory() -> None:
    locks = NamedLocks()
    for number in range(100):
        async with locks(str(number)):
            pass
    gc.collect()
    assert len(locks._locks) == 0


def test_event_loops_do_not_wait_for_each_other() -> None:
    locks = NamedLocks()

    async def hold() -> asyncio.Lock:
        lock = locks("one")
        await lock.acquire()
        return lock

    first = asyncio.run(hold())
    assert asyncio.run(hold()) is not first
