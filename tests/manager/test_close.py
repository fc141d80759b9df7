"""Closing under difficult circumstances, and memory that was duplicated."""

from __future__ import annotations

import asyncio

import pytest

from keystead.errors import KMSError, ProviderConnectionError, StoreUnavailableError, SystemShutdownError
from keystead.testing.fake_kms import FakeKMS
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World, session_of


async def test_close_ends_even_while_a_job_runs_and_the_store_is_away(world: World) -> None:
    world.store = store = CountingStore(world.store)
    clock = FakeClock(instant=False)
    km = world.manager(background=True, clock=clock)
    await km.initialize()
    maintenance = (await session_of(km)).lifecycle.maintenance
    started = asyncio.Event()

    async def long() -> int:
        started.set()
        await asyncio.sleep(60)
        return 0

    maintenance.rotate_due = long  # type: ignore[method-assign]
    clock.advance(30)
    await asyncio.wait_for(started.wait(), 10)
    store.failure = StoreUnavailableError("away")
    await asyncio.wait_for(km.close(), 10)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "keystead-node"]


async def test_close_in_an_event_loop_other_than_the_tasks_ends_too(world: World) -> None:
    km = world.manager(background=True, clock=FakeClock(instant=False))
    await asyncio.to_thread(asyncio.run, km.initialize())
    await asyncio.wait_for(km.close(), 10)
    with pytest.raises(SystemShutdownError):
        km.local_encrypt(b"x")


class Closable(FakeKMS):
    """A provider that fails to close."""

    async def aclose(self) -> None:
        await super().aclose()
        raise StoreUnavailableError("odd")


async def test_what_was_given_stays_open_and_what_was_made_is_closed(world: World) -> None:
    given = Closable()
    async with world.open(providers={"cloud": given}):
        pass
    assert given.calls["aclose"] == 0
    km = world.manager(providers={"cloud": given})
    km._owned.append(given)
    await km.initialize()
    with pytest.raises(KMSError, match="odd"):
        await km.close()
    assert given.calls["aclose"] == 1
    assert km.default.ring.snapshot.keys == {}


async def test_a_snapshot_of_the_machine_is_gone_on_from_under_other_salts(world: World) -> None:
    async with world.open() as km:
        tenant = await km.keyring("tenant")
        before = [km.local_encrypt(b"x"), tenant.local_encrypt(b"x")]
        km.after_restore()
        after = [km.local_encrypt(b"x"), tenant.local_encrypt(b"x")]
        assert [one[2:10] for one in before] == [one[2:10] for one in after]
        assert all(one[10:26] != two[10:26] for one, two in zip(before, after, strict=True))


async def test_a_manager_that_does_not_start_gives_back_what_it_opened(world: World) -> None:
    owned = Closable()
    owned.fail_next(100, ProviderConnectionError("the network is down"))
    km = world.manager(providers={"cloud": owned})
    km._owned.append(owned)
    with pytest.raises(ProviderConnectionError, match="network"):
        async with km:
            pytest.fail("it started")
    assert owned.calls["aclose"] == 1
