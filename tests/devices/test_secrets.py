"""Passcodes and PINs: who may set and change them, and what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from keystead.devices.assembly import Devices
from keystead.devices.hashing import Cost, SecretHash
from keystead.devices.policy import SecretPolicy
from keystead.devices.secrets import PEPPER_KEYRING, Authority, Reason, SecretRules, Verdict
from keystead.errors import (
    ConflictError,
    DecryptionError,
    ForbiddenError,
    InvalidInputError,
    KeyInUseError,
    KMSError,
    StoreRestoredError,
)
from keystead.model import Principal
from keystead.ports import CredentialRecord
from tests.audit.worlds import waiting
from tests.devices.room import ADA, BOB, CHEAP, CODE, MINUTE, PIN, Client, devices, kept, later
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled, session_of


async def test_the_secret_that_was_set_is_right_and_no_other_is(world: World) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        assert await ada.verify("correct horse") == Verdict(Reason.NOT_SET)
        await ada.set("correct horse")
        assert await ada.verify("correct horse") == Verdict(Reason.VERIFIED)
        assert await ada.verify("Correct horse") == Verdict(Reason.WRONG)
        assert await ada.verify("correct horse") == Verdict(Reason.VERIFIED)


async def test_passcode_and_pin_and_users_and_tenants_have_nothing_to_do_with_each_other(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        ada, bob = await Client.of(room), await Client.of(room, BOB, "laptop")
        north = await Client.of(room, Principal("ada", "north"))
        await ada.set("918273")
        for other, kind in ((ada, PIN), (bob, CODE), (north, CODE)):
            assert await other.verify("918273", kind) == Verdict(Reason.NOT_SET)
        await ada.set("4711", PIN)
        assert not await ada.is_right("918273", PIN)
        assert await ada.is_right("4711", PIN)
        assert await ada.is_right("918273")


async def test_a_secret_is_the_same_from_each_device_of_a_user(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        phone, tablet = await Client.of(room), await Client.of(room, ADA, "tablet")
        await phone.set("correct horse")
        assert await tablet.is_right("correct horse")


async def test_a_secret_in_another_form_of_unicode_is_the_same(world: World) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("Amélie")
        assert await ada.is_right("Ame\u0301lie")


async def test_what_the_policy_does_not_take_is_refused_with_its_rule_and_nothing_is_kept(world: World) -> None:
    rules = replace(CHEAP, policy=SecretPolicy(passcode_length=(6, 64)))
    async with world.open() as km:
        ada = await Client.of(await devices(km, rules=rules))
        for secret, kind, told in (
            ("short", CODE, "6 to 64 characters"),
            ("12a4", PIN, "4 to 12 digits"),
            ("1234", PIN, "first that are guessed"),
        ):
            with pytest.raises(InvalidInputError, match=told) as caught:
                await ada.set(secret, kind)
            assert secret not in str(caught.value)
        async with world.store.reading() as work:
            assert await work.find_credential("", "ada", PIN) is None


async def test_a_change_takes_the_current_secret_or_a_verification_a_moment_ago(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        with pytest.raises(ForbiddenError, match="a change of the passcode takes the current one"):
            await ada.set("battery staple")
        await ada.set("battery staple", current="correct horse")
        assert [await ada.is_right(secret) for secret in ("correct horse", "battery staple")] == [False, True]
        await later(km, clock, 5 * MINUTE)
        await ada.set("third secret")
        with pytest.raises(ForbiddenError, match="takes the current one"):
            await ada.set("fourth secret")  # a verification serves for one change
        assert await ada.is_right("third secret")
        await later(km, clock, 5 * MINUTE + timedelta(microseconds=1))
        with pytest.raises(ForbiddenError):
            await ada.set("fourth secret")
        assert await ada.is_right("third secret")


@pytest.mark.parametrize("authority", [Authority.RESET, Authority.DEVELOPMENT])
async def test_who_has_the_right_replaces_a_secret_and_ends_its_lock(world: World, authority: Authority) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        for _ in range(5):
            await ada.verify("wrong horse")
        await ada.set("battery staple", authority=authority)
        assert await ada.is_right("battery staple")


async def test_expired_keys_are_told_to_who_asks_for_a_reason(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        await later(km, clock, timedelta(days=31))
        assert await ada.verify("correct horse") == Verdict(Reason.KEY_EXPIRED)


async def test_of_two_who_set_the_first_secret_at_once_one_is_told_so(world: World) -> None:
    async with world.open() as km, world.open() as other:
        rooms = [await devices(km), await devices(other)]
        ada = await Client.of(rooms[0])
        answers = await asyncio.gather(
            *(ada.on(room).set(f"secret {number}") for number, room in enumerate(rooms)), return_exceptions=True
        )
        refused = [answer for answer in answers if answer is not None]
        assert len(refused) == 1
        assert isinstance(refused[0], ConflictError | ForbiddenError)
        assert sum([await ada.is_right(f"secret {number}") for number in range(2)]) == 1


async def meanwhile(room: Devices, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen between the comparison of a guess and what follows from it."""
    inside = room.secrets._is_right

    async def compared(counted: CredentialRecord, stored: SecretHash | None, secret: str) -> bool:
        is_right = await inside(counted, stored, secret)
        monkeypatch.undo()
        await act()  # type: ignore[misc]
        return is_right

    monkeypatch.setattr(room.secrets, "_is_right", compared)


async def test_a_secret_that_was_replaced_while_it_was_compared_is_wrong_and_forgives_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        await meanwhile(ada.room, monkeypatch, lambda: ada.set("battery staple", authority=Authority.RESET))
        assert await ada.verify("correct horse") == Verdict(Reason.WRONG)
        assert (await kept(world)).verified_at is None
        with pytest.raises(ForbiddenError):
            await ada.set("mine now")
        assert await ada.is_right("battery staple")


async def test_a_change_by_the_current_secret_that_was_replaced_meanwhile_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        await meanwhile(ada.room, monkeypatch, lambda: ada.set("battery staple", authority=Authority.RESET))
        with pytest.raises(ConflictError, match="changed at the same moment"):
            await ada.set("mine now", current="correct horse")
        assert await ada.is_right("battery staple")


async def test_a_hash_moves_to_the_newest_pepper_and_cost_when_its_secret_is_verified(world: World) -> None:
    async with world.open() as km, world.open() as other:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        await ada.set("4711", PIN)
        old = (await kept(world)).pepper_id
        assert old is not None
        session = await session_of(km)
        new = (await session.lifecycle.rotation.rotate(PEPPER_KEYRING, promote="now")).id
        with pytest.raises(KeyInUseError, match=r"the pepper of 2 passcode\(s\) and PIN\(s\)"):
            await session.lifecycle.destruction.schedule(old, without_sources=True)
        assert await ada.is_right("correct horse")
        assert not await ada.is_right("4712", PIN)
        assert ((await kept(world)).pepper_id, (await kept(world, PIN)).pepper_id) == (new, old)
        # On a node that has not heard of the new pepper yet.
        elsewhere = ada.on(await devices(other, rules=SecretRules(cost=Cost(memory_kib=16, iterations=2))))
        assert await elsewhere.is_right("correct horse")
        await polled(other)
        assert await elsewhere.is_right("4711", PIN)
        hashed = SecretHash.parse((await kept(world, PIN)).hash or "")
        assert (hashed.pepper_id, hashed.cost) == (new, Cost(memory_kib=16, iterations=2))
        async with world.store.reading() as work:
            assert await work.count_credentials(old) in (0, 1)


async def test_a_dump_of_the_store_has_no_secret_and_nothing_that_can_be_tried_without_the_pepper(
    world: World,
) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("4711", PIN)
        hashed = SecretHash.parse((await kept(world, PIN)).hash or "")
        from keystead.devices.hashing import Owner

        assert not hashed.is_of("4711", Owner(PIN, "ada"), bytes(32))
        assert "4711" not in repr(await kept(world, PIN))


async def test_a_restored_store_verifies_and_takes_no_new_secret(world: World) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await polled(km)
        assert await ada.is_right("correct horse")
        with pytest.raises(StoreRestoredError):
            await ada.set("battery staple", current="correct horse")


async def test_a_hash_that_somebody_has_put_there_is_no_secret_and_an_error_that_blames_no_client(
    world: World,
) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        hashed = (await kept(world)).hash
        async with world.store.transaction() as work:
            await work.set_credential(
                "", "ada", CODE, hashed=("$argon2id$", 7), at=world.clock.now(), instead_of=hashed
            )
        with pytest.raises(KMSError) as caught:
            await ada.verify("correct horse")
        assert not isinstance(caught.value, DecryptionError)


async def test_what_was_done_is_in_the_trail_and_no_secret_is(world: World) -> None:
    async with world.open(audit=True) as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        await ada.verify("wrong horse")
        await ada.verify("correct horse")
        entries = [entry for entry in await waiting(world) if entry["action"].startswith("secret.")]
    assert [entry["action"] for entry in entries] == ["secret.set", "secret.attempt", "secret.attempt", "secret.verify"]
    for entry in entries:
        assert (entry["details"]["user"], entry["details"]["device"]) == ("ada", "phone")
        assert "horse" not in str(entry)
