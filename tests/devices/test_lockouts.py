"""Locks on secrets are seen and ended by who may reset secrets, in one tenant, and with an entry in the audit trail."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.devices.secrets import Reason
from keystead.errors import KeyNotFoundError
from keystead.model import Principal
from keystead.stores.schema import migrate
from tests.audit.places import Place, options, seal
from tests.devices.room import ADA, BOB, CODE, MINUTE, PIN, Client, devices, kept
from tests.fakes.world import World

HELP_DESK, NORTH = Principal("help desk"), Principal("help desk", "north")


async def locks(client: Client) -> None:
    """Give wrong PINs until none is tried any more."""
    while (await client.verify("915047", PIN)).reason is not Reason.LOCKED:
        pass


async def test_a_lock_that_is_released_lets_the_user_try_as_often_as_at_first(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        ada = await Client.of(room)
        await ada.set("915046", PIN)
        await locks(ada)
        (locked,) = await room.lockouts.all(HELP_DESK)
        assert (locked.user_id, locked.kind, locked.failures) == ("ada", PIN, room.lockouts.rule.free)
        assert await room.lockouts.get(HELP_DESK, "ada", PIN) == locked
        assert await room.lockouts.release(HELP_DESK, "ada", PIN) == locked
        assert await room.lockouts.all(HELP_DESK) == []
        assert (await kept(world, PIN)).failures == 0
        for _ in range(room.lockouts.rule.free - 1):
            assert (await ada.verify("915047", PIN)).reason is Reason.WRONG
        assert await ada.is_right("915046", PIN)


async def test_what_is_not_locked_now_in_ones_own_tenant_is_not_released(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        ada = await Client.of(room)
        await ada.set("915046", PIN)
        await locks(ada)
        assert await room.lockouts.all(NORTH) == []
        for who, user, kind in ((NORTH, "ada", PIN), (HELP_DESK, "ada", CODE), (HELP_DESK, BOB.user, PIN)):
            with pytest.raises(KeyNotFoundError, match="is not locked"):
                await room.lockouts.release(who, user, kind)
        before = await kept(world, PIN)
        world.clock.advance(MINUTE)
        with pytest.raises(KeyNotFoundError, match="or not any more"):
            await room.lockouts.release(HELP_DESK, ADA.user, PIN)
        assert await kept(world, PIN) == before
        assert await room.lockouts.all(HELP_DESK) == []


async def test_who_released_whose_lock_stands_in_the_audit_trail(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/keys.db")
    migrate(place.url)
    async with place.open(audit=options()) as km:
        room = await devices(km)
        await locks(await Client.of(room))
        await room.lockouts.release(HELP_DESK, "ada", PIN)
        await seal(km)
    ((line,),) = place.execute("SELECT line FROM audit_log WHERE action = 'secret.release'")
    told = bytes(line).decode()
    for part in ('"released":"ada"', '"kind":"transaction_pin"', '"user":"help desk"'):
        assert part in told
