"""Key pairs from time to time: ready ones, expiry, erasure, and another WRAP key."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from keystead.devices.upkeep import UpkeepReport
from keystead.errors import ConflictError, KeyExpiredError, KeyInUseError, KeyNotFoundError
from keystead.model import Principal
from keystead.ports import PairKind, UnitOfWork
from tests.devices.room import ADA, DAY, SECOND, Maker, client_keys, disable_wrap, opens, upkeep
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, session_of


async def test_upkeep_erases_private_halves_keeps_their_ids_and_forgets_these_in_the_end(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        first = await keys.generate(ADA, "phone")
        assert await (await upkeep(km)).run() == UpkeepReport()
        clock.advance(30 * DAY)
        assert await (await upkeep(km)).run() == UpkeepReport(deprecated=1)
        clock.advance(timedelta(minutes=5))
        assert await (await upkeep(km)).run() == UpkeepReport(erased=1)
        async with world.store.reading() as work:
            found = await work.find_client_key(first.id)
        assert found is not None
        assert (found.wrapped_private_key, found.wrapped_by, found.deprecated) == (None, None, True)
        with pytest.raises(KeyExpiredError):
            await keys.find(ADA, first.id)
        clock.advance(90 * DAY - timedelta(minutes=5) - SECOND)
        assert await (await upkeep(km)).run() == UpkeepReport()
        clock.advance(SECOND)
        assert await (await upkeep(km)).run() == UpkeepReport(dropped=1)
        with pytest.raises(KeyNotFoundError, match="Encryption key not found"):
            await keys.find(ADA, first.id)


async def test_pairs_that_are_ready_are_given_without_making_one(world: World) -> None:
    async with world.open() as km:
        maker = Maker()
        keys, filling = await client_keys(km, make_pair=maker), await upkeep(km, make_pair=maker)
        assert await filling.fill(PairKind.X25519, 3) == 3
        assert await filling.fill(PairKind.X25519, 3) == 0
        given = [await keys.generate(ADA, f"phone {number}") for number in range(3)]
        assert maker.made == 3
        assert [await opens(keys, ADA, key) for key in given] == [True] * 3
        await keys.generate(ADA, "another phone")
        assert maker.made == 4


async def test_a_burst_is_served_by_the_pairs_that_are_ready(world: World) -> None:
    async with world.open() as km:
        maker = Maker()
        keys, filling = await client_keys(km, make_pair=maker), await upkeep(km, make_pair=maker)
        assert await filling.fill(PairKind.X25519, 50) == 50
        asked = (keys.generate(Principal(f"user {number}"), f"phone {number}") for number in range(50))
        given = await asyncio.gather(*asked)
        assert len({key.public_key for key in given}) == 50
        assert maker.made == 50


@pytest.mark.parametrize("damage", ["another row's", "of a WRAP key that is gone", "no envelope"])
async def test_a_pair_that_was_ready_and_does_not_open_is_passed_over(
    world: World, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open() as km:
        maker = Maker()
        keys, filling = await client_keys(km, make_pair=maker), await upkeep(km, make_pair=maker)
        await filling.fill(PairKind.X25519, 1)
        async with world.store.transaction() as work:
            pair = await work.take_ready_pair(PairKind.X25519)
            assert pair is not None
            whole = pair.wrapped_private_key
            if damage == "another row's":
                await work.add_ready_pair(replace(pair, id="key_other"))
            else:
                wrong = (
                    whole[:2] + bytes(7) + b"\x05" + whole[10:] if damage.startswith("of a WRAP") else b"no envelope"
                )
                await work.add_ready_pair(replace(pair, wrapped_private_key=wrong))
        assert await opens(keys, ADA, await keys.generate(ADA, "phone"))
        assert maker.made == 2
        assert "does not open" in caplog.text
        async with world.store.reading() as work:
            assert await work.count_ready_pairs(PairKind.X25519) == 0


async def test_a_pair_that_nobody_opens_is_not_taken_from_those_that_are_ready(world: World) -> None:
    async with world.open() as km:
        keys = await client_keys(km)
        await (await upkeep(km)).fill(PairKind.X25519, 1)
        for _ in range(3):
            await keys.generate(ADA, "phone", kind=PairKind.RSA_2048)
        async with world.store.reading() as work:
            assert await work.count_ready_pairs(PairKind.X25519) == 1


async def test_private_halves_move_to_the_active_wrap_key_and_the_old_one_may_go(world: World) -> None:
    async with world.open() as km:
        keys, keeping = await client_keys(km), await upkeep(km)
        given = [await keys.generate(ADA, f"phone {number}") for number in range(3)]
        await keeping.fill(PairKind.X25519, 1)
        old = given[0].wrapped_by
        assert old is not None
        assert await keeping.run() == UpkeepReport()
        session = await session_of(km)
        await session.lifecycle.rewrap.run()
        assert await opens(await client_keys(km), ADA, given[0])
        with pytest.raises(KeyInUseError, match=r"private halves of 4 key pair\(s\)"):
            await session.lifecycle.destruction.schedule(old)
        assert await keeping.run() == UpkeepReport(moved=3)
        assert await keeping.run() == UpkeepReport()
        async with world.store.reading() as work:
            assert await work.count_private_halves(old) == 0
            assert await work.count_ready_pairs(PairKind.X25519) == 0
        await session.lifecycle.destruction.schedule(old)
    async with world.open() as later:
        assert [await opens(await client_keys(later), ADA, key) for key in given] == [True] * 3


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_half_that_does_not_open_stays_and_keeps_no_other_from_moving(
    world: World, caplog: pytest.LogCaptureFixture, *, is_gone: bool
) -> None:
    async with world.open() as km:
        keys, keeping = await client_keys(km), await upkeep(km)
        first, second = await keys.generate(ADA, "phone"), await keys.generate(ADA, "tablet")
        old, whole = first.wrapped_by, first.wrapped_private_key
        assert old is not None
        assert whole is not None
        async with world.store.transaction() as work:
            assert await work.rewrap_client_key(first.id, whole, whole[:-1] + bytes([whole[-1] ^ 1]), old)
            assert not await work.rewrap_client_key(first.id, whole, whole, old)
            if is_gone:
                assert await work.rewrap_client_key(second.id, second.wrapped_private_key or b"", b"none", old)
        await (await session_of(km)).lifecycle.rewrap.run()
        assert (await keeping.run()).moved == (0 if is_gone else 1)
        assert "does not open" in caplog.text
        async with world.store.reading() as work:
            assert await work.count_private_halves(old) == (2 if is_gone else 1)


async def test_halves_under_a_wrap_key_that_is_out_of_use_wait(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with world.open() as km:
        first = await (await client_keys(km)).generate(ADA, "phone")
        await disable_wrap(world, km, first)
        assert (await (await upkeep(km)).run()).moved == 0
        assert "out of use wraps private halves" in caplog.text


async def test_a_wrap_key_that_is_replaced_while_halves_move_to_it_takes_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        first = await (await client_keys(km)).generate(ADA, "phone")
        session, keeping = await session_of(km), await upkeep(km)
        await session.lifecycle.rewrap.run()

        async def gone(work: UnitOfWork, key_id: int) -> None:
            raise ConflictError("WRAP key went out of use")

        with monkeypatch.context() as patched:
            patched.setattr(session.live, "hold_wrap_key", gone)
            assert (await keeping.run()).moved == 0
        assert (await keeping.run()).moved == 1
        assert await opens(await client_keys(km), ADA, first)


async def test_what_was_spent_is_forgotten_with_the_time_in_which_it_could_come_again(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        async with world.store.transaction() as work:
            await work.spend("key_1", bytes(32), until=clock.now() + DAY)
        keeping = await upkeep(km)
        assert await keeping.run() == UpkeepReport()
        clock.advance(DAY)
        assert await keeping.run() == UpkeepReport(unspent=1)
