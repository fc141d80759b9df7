"""Keyrings of the store's own: whoever operates the service replaces their keys as those that encrypt."""

from __future__ import annotations

import pytest

from keystead.access.callers import Scope
from keystead.errors import KeyStateError
from keystead.manager import admin
from keystead.manager.access import tokens
from keystead.manager.devices import identity
from keystead.manager.own_keyrings import own_ring
from keystead.model import DataKeyState, KeyringPurpose
from tests.devices.room import CODE, Client, devices, kept
from tests.fakes.world import World, session_of


async def test_a_pepper_is_replaced_and_each_hash_follows_when_its_secret_is_given(world: World) -> None:
    async with world.open() as km:
        ada = await Client.of(await devices(km))
        await ada.set("correct horse")
        before = await kept(world, CODE)
        made = await admin.rotate_keyring(km, "keystead.pepper", promote="now", may_prove=True)
        await (await session_of(km)).live.refresh()
        assert (made.version, made.state) == (2, DataKeyState.ACTIVE)
        assert (await ada.verify("correct horse")).is_right
        after = await kept(world, CODE)
        assert after.pepper_id == made.id != before.pepper_id
        assert (await ada.verify("correct horse")).is_right


async def test_tokens_stay_good_and_the_old_signing_key_is_shown_when_their_keys_are_replaced(world: World) -> None:
    async with world.open() as km:
        room, signing = await tokens(km), await identity(km)
        text = "".join((await room.create("ada", [Scope.DEVICES_USE])).text)
        (shown,) = signing.public_keys()
        for name in ("keystead.tokens", "keystead.identity"):
            assert (await admin.rotate_keyring(km, name, promote="now", may_prove=True)).version == 2
        await (await session_of(km)).live.refresh()
        again = await tokens(km)
        assert (await again.authenticate(text)).principal.user == "ada"
        newest, oldest = signing.public_keys()
        assert newest != oldest == shown


@pytest.mark.parametrize(("name", "command"), [("keystead.wrap", "key rewrap"), ("index", "key rotate-index")])
async def test_keys_that_are_replaced_in_another_way_say_in_which(world: World, name: str, command: str) -> None:
    async with world.open() as km:
        await own_ring((await km.session()).live, "index", KeyringPurpose.INDEX, "HMAC-SHA256")
        with pytest.raises(KeyStateError, match=command):
            await admin.rotate_keyring(km, name)
