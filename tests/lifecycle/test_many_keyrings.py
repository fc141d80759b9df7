"""Many keyrings are loaded by one read, and are the ones that everybody else has in use."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from keystead.errors import InvalidInputError, KeyDecryptionFailError, KeyStateError
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyState
from tests.fakes.world import World, polled, session_of

NAMES = [f"people-{number}" for number in range(12)]


async def live_of(km: KeyManager) -> LiveKeyrings:
    return (await session_of(km)).live


async def filled(world: World) -> dict[str, bytes]:
    """Return a ciphertext of each keyring."""
    async with world.open() as km:
        return {name: (await km.keyring(name)).local_encrypt(name.encode()) for name in NAMES}


def count_reads(km: KeyManager, live: LiveKeyrings, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    store, reads = live.surroundings.store, list[None]()
    reading = store.reading

    def counted(**how: Any) -> Any:
        reads.append(None)
        return reading(**how)

    monkeypatch.setattr(store, "reading", counted)
    return reads


async def test_many_are_loaded_by_one_read_and_what_is_not_there_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = await filled(world)
    async with world.open() as km:
        live = await live_of(km)
        held = await live.load(NAMES[0])
        reads = count_reads(km, live, monkeypatch)
        rings = await live.load_all([*NAMES, "absent"])
        assert len(reads) == 1
        assert rings.keys() == {*NAMES}
        assert rings[NAMES[0]] is held
        for name, ring in rings.items():
            assert ring.local_decrypt(sealed[name]) == name.encode()
            assert live.owner_of(int.from_bytes(sealed[name][2:10], "big")) == name
            assert await live.load(name) is ring


async def test_two_who_load_the_same_at_once_share_the_keyrings(world: World) -> None:
    await filled(world)
    async with world.open() as km:
        live = await live_of(km)
        one, two, alone = await asyncio.gather(
            live.load_all(NAMES), live.load_all([*reversed(NAMES)]), live.load(NAMES[5])
        )
        assert all(one[name] is two[name] for name in NAMES)
        assert one[NAMES[5]] is alone


async def test_a_change_that_a_refresh_read_meanwhile_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(world)
    async with world.open() as km, world.open() as other:
        live = await live_of(km)
        unwrap = live._unwrap_all

        async def slowly(*given: Any) -> Any:
            monkeypatch.setattr(live, "_unwrap_all", unwrap)
            await (await other.keyring(NAMES[3])).rotate(promote="now")
            await live.refresh()
            return await unwrap(*given)

        monkeypatch.setattr(live, "_unwrap_all", slowly)
        rings = await live.load_all(NAMES)
        newer = (await other.keyring(NAMES[3])).local_encrypt(b"x")
        assert rings[NAMES[3]].local_decrypt(newer) == b"x"


async def test_one_that_does_not_unwrap_is_left_out_and_says_why_by_itself(world: World) -> None:
    sealed = await filled(world)
    [row] = await world.rows(NAMES[2])
    async with world.store.transaction() as work:
        await work.change_key(row.id, row.state, wrapped_key=bytes(60))
    async with world.open() as km:
        live = await live_of(km)
        assert NAMES[2] not in await live.load_all(NAMES)
        assert await live.load_keys([row.id], skip_damaged=True) == {}
        with pytest.raises(KeyDecryptionFailError):
            await live.load_keys([row.id])
        with pytest.raises(KeyDecryptionFailError):
            await km.prefetch([sealed[NAMES[2]]])


async def test_keys_are_found_by_their_ids_and_one_that_came_later_is_added(world: World) -> None:
    sealed = await filled(world)
    ids = {name: int.from_bytes(blob[2:10], "big") for name, blob in sealed.items()}
    async with world.open() as km, world.open() as other:
        live = await live_of(km)
        found = await live.load_keys([*ids.values(), 1])
        assert {key_id: ring.name for key_id, ring in found.items()} == {ids[name]: name for name in NAMES}
        await (await other.keyring(NAMES[1])).rotate(promote="now")
        newer = (await other.keyring(NAMES[1])).local_encrypt(b"x")
        [ring] = (await live.load_keys([int.from_bytes(newer[2:10], "big")])).values()
        assert ring is found[ids[NAMES[1]]]
        assert ring.local_decrypt(newer) == b"x"


async def test_a_wrap_keyring_is_not_loaded_among_others(world: World) -> None:
    sealed = await filled(world)
    [wrap] = await world.rows(WRAP_KEYRING)
    async with world.open() as km:
        live = await live_of(km)
        with pytest.raises(InvalidInputError, match="wraps keys"):
            await asyncio.wait_for(live.load_keys([wrap.id, int.from_bytes(sealed[NAMES[0]][2:10], "big")]), 30)


async def test_a_key_that_may_not_be_used_is_known_by_whose_it_is(world: World) -> None:
    sealed = await filled(world)
    key_id = int.from_bytes(sealed[NAMES[0]][2:10], "big")
    async with world.store.transaction() as work:
        await work.change_key(key_id, DataKeyState.ACTIVE, state=DataKeyState.DISABLED)
    async with world.open() as km:
        live = await live_of(km)
        assert live.holder_of(key_id) is None
        await km.prefetch([sealed[NAMES[0]]])
        ring = live.holder_of(key_id)
        assert ring is not None
        assert ring.name == NAMES[0]
        with pytest.raises(KeyStateError, match="disabled"):
            ring.local_decrypt(sealed[NAMES[0]])


async def test_what_was_loaded_with_others_is_bounded_by_the_cache(world: World) -> None:
    await filled(world)
    async with world.open(keyring_cache=3) as km:
        live = await live_of(km)
        rings = await live.load_all(NAMES)
        assert len(live._recent) == 3
        ring = rings[NAMES[0]]
        del rings
        gc.collect()
        assert live.find(NAMES[0]) is ring
        assert live.find(NAMES[1]) is None
        await polled(km)
