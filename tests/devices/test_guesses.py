"""Guesses at passcodes and PINs: no more are compared than are free, whatever way they come."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from keystead.devices.attempts import Lockout
from keystead.devices.secrets import Authority, Reason, Verdict
from keystead.errors import (
    ForbiddenError,
    LockedError,
    ReplayedError,
    StorageOperationError,
)
from keystead.stores import open_store
from keystead.stores.schema import migrate
from tests.devices.room import ADA, BOB, CHEAP, CODE, PIN, Client, devices, kept, later
from tests.fakes.clock import FakeClock
from tests.fakes.world import World


async def test_a_wrong_current_secret_is_a_guess(world: World) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        for _ in range(5):
            with pytest.raises(ForbiddenError, match="the current passcode is another one"):
                await ada.set("mine now", current="wrong horse")
        with pytest.raises(LockedError, match="60 seconds"):
            await ada.set("mine now", current="correct horse")
        assert await ada.verify("correct horse") == Verdict(Reason.LOCKED, 60.0)


async def test_a_locked_secret_is_not_changed_by_who_verified_it_before(world: World) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        assert await ada.is_right("correct horse")
        for _ in range(5):
            assert not await ada.is_right("wrong horse")
        with pytest.raises(LockedError):
            await ada.set("mine now")


async def test_five_wrong_ones_lock_the_right_one_out_too_and_each_lock_is_twice_as_long(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        for _ in range(5):
            assert await ada.verify("wrong horse") == Verdict(Reason.WRONG)
        for minutes in (1, 2, 4, 8):
            lock = timedelta(minutes=minutes)
            assert await ada.verify("correct horse") == Verdict(Reason.LOCKED, lock.total_seconds())
            await later(km, clock, lock - timedelta(seconds=1))
            assert await ada.verify("correct horse") == Verdict(Reason.LOCKED, 1.0)
            await later(km, clock, timedelta(seconds=1))
            assert await ada.verify("wrong horse") == Verdict(Reason.WRONG)
        assert (await ada.verify("correct horse")).reason is Reason.LOCKED
        await later(km, clock, timedelta(minutes=16))
        assert await ada.verify("correct horse") == Verdict(Reason.VERIFIED)
        # And everything begins anew.
        for _ in range(5):
            assert await ada.verify("wrong horse") == Verdict(Reason.WRONG)
        assert await ada.verify("correct horse") == Verdict(Reason.LOCKED, 60.0)


@pytest.mark.parametrize("audit", [None, True])
async def test_of_two_hundred_guesses_at_once_on_several_nodes_no_more_than_five_are_compared(
    world: World, audit: bool | None
) -> None:
    async with world.open(audit=audit) as km, world.open(audit=audit) as other:
        rooms = [await devices(km), await devices(other)]
        ada = await Client.of(rooms[0])
        await ada.set("4711", PIN)
        guesses = [ada.on(rooms[number % 2]).verify(f"{number:04d}", PIN) for number in range(200)]
        verdicts = await asyncio.gather(*guesses)
        assert sum(verdict.reason is Reason.WRONG for verdict in verdicts) == 5
        assert sum(verdict.reason is Reason.LOCKED for verdict in verdicts) == 195
        assert sum(room.secrets.evaluated for room in rooms) == 5
        assert (await kept(world, PIN)).counted == 5


async def test_a_restart_and_another_device_give_no_more_guesses(world: World) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("4711", PIN)
        for _ in range(4):
            await ada.verify("0000", PIN)
    async with world.open() as km:
        room = await devices(km)
        tablet = await Client.of(room, ADA, "tablet")
        assert [(await tablet.verify("0000", PIN)).reason for _ in range(2)] == [Reason.WRONG, Reason.LOCKED]
        assert room.secrets.evaluated == 1


@pytest.mark.parametrize("audit", [None, True])
async def test_the_right_one_among_wrong_ones_at_once_forgives_what_came_before_it(
    world: World, audit: bool | None
) -> None:
    async with world.open(audit=audit) as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        secrets = ["wrong 1", "wrong 2", "correct horse", "wrong 3"]
        verdicts = await asyncio.gather(*(ada.verify(secret) for secret in secrets))
        assert [verdict.is_right for verdict in verdicts] == [False, False, True, False]
        assert (await kept(world)).failures <= 3
        assert (await kept(world)).locked_until is None


async def test_junk_is_no_guess(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        ada, bob = await Client.of(room), await Client.of(room, BOB, "laptop")
        await ada.set("correct horse")
        junk = ada.sealed("x")
        for wrong in (replace(junk, text="AAAA"), replace(junk, key_id="key_other"), bob.sealed("x")):
            assert await room.secrets.verify(ADA, CODE, wrong) == Verdict(Reason.DECRYPTION_FAILED)
        assert (await kept(world)).counted == 0


async def test_a_ciphertext_that_was_right_is_not_right_again_and_is_no_guess(world: World) -> None:
    async with world.open() as km, world.open() as other:
        room, elsewhere = await devices(km), await devices(other)
        ada = await Client.of(room)
        given = ada.sealed("correct horse")
        await room.secrets.set(ADA, CODE, given)
        with pytest.raises(ReplayedError):
            await room.secrets.set(ADA, CODE, given, authority=Authority.RESET)
        for node in (room, elsewhere):
            assert await node.secrets.verify(ADA, CODE, given) == Verdict(Reason.REPLAYED)
        right, wrong = ada.sealed("correct horse"), ada.sealed("wrong horse")
        assert await room.secrets.verify(ADA, CODE, right) == Verdict(Reason.VERIFIED)
        assert await elsewhere.secrets.verify(ADA, CODE, right) == Verdict(Reason.REPLAYED)
        # One that did not succeed is as wrong the second time, and a guess each time.
        counted = (await kept(world)).counted
        for node in (room, elsewhere):
            assert await node.secrets.verify(ADA, CODE, wrong) == Verdict(Reason.WRONG)
        assert (await kept(world)).counted == counted + 2


async def test_of_one_right_ciphertext_many_times_at_once_one_succeeds(world: World) -> None:
    async with world.open() as km, world.open() as other:
        rooms = [await devices(km), await devices(other)]
        ada = await Client.of(rooms[0])
        await ada.set("correct horse")
        right = ada.sealed("correct horse")
        sent = [rooms[number % 2].secrets.verify(ADA, CODE, right) for number in range(4)]
        reasons = [verdict.reason for verdict in await asyncio.gather(*sent)]
        assert reasons.count(Reason.VERIFIED) == 1
        assert reasons.count(Reason.REPLAYED) == 3


async def test_nothing_is_compared_where_the_guess_cannot_be_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        room = ada.room

        def away() -> None:
            raise StorageOperationError("the database is away")

        with monkeypatch.context() as patched:
            patched.setattr(room.secrets._s.store, "transaction", away)
            with pytest.raises(StorageOperationError):
                await ada.verify("correct horse")
        assert room.secrets.evaluated == 0
        assert await ada.is_right("correct horse")


async def test_another_lockout_is_kept(world: World, clock: FakeClock) -> None:
    rules = replace(CHEAP, lockout=Lockout(free=1, first=timedelta(seconds=10), longest=timedelta(seconds=10)))
    async with world.open() as km:
        ada = await Client.of(await devices(km, rules=rules))
        await ada.set("correct horse")
        assert await ada.verify("wrong") == Verdict(Reason.WRONG)
        assert await ada.verify("correct horse") == Verdict(Reason.LOCKED, 10.0)
        await later(km, clock, timedelta(seconds=10))
        assert await ada.is_right("correct horse")


@pytest.mark.parametrize(
    "default", ["default_transaction_isolation TO 'serializable'", "default_transaction_read_only TO on"]
)
async def test_what_a_servers_sessions_are_by_default_changes_no_count(
    clock: FakeClock, postgres_url: str, default: str
) -> None:
    migrate(postgres_url)
    world = World(clock)
    world.store = open_store(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {owner.info.dbname} SET {default}")
        try:
            async with world.open(audit=True) as km:
                room = await devices(km)
                ada = await Client.of(room)
                await ada.set("4711", PIN)
                verdicts = await asyncio.gather(*(ada.verify(pin, PIN) for pin in ("1111", "4711", "2222")))
                assert [each.is_right for each in verdicts] == [False, True, False]
                for _ in range(5):
                    await ada.verify("1111", PIN)
                assert await ada.verify("4711", PIN) == Verdict(Reason.LOCKED, 60.0)
        finally:
            owner.execute(f"ALTER DATABASE {owner.info.dbname} RESET {default.partition(' ')[0]}")
            await world.store.aclose()
