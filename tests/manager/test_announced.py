"""What is told of a keyring's version, and what is written under: the same, whatever the store says meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from keystead.crypto.context import encode_context
from keystead.crypto.envelope import parse_header
from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    KeyStateError,
    NoActiveKeyError,
    StoreUnavailableError,
    SystemShutdownError,
)
from keystead.manager.announced import ASKED_WITHIN_S, FOLLOW_S, AnnouncedKeyring
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState
from tests.fakes.clock import FakeClock
from tests.fakes.world import World

CONTEXT = encode_context({"keystead.use": "a test"})


async def announced(km: KeyManager) -> AnnouncedKeyring:
    """Return the default keyring of a manager that is a node."""
    session = await km.session()
    await session.run_due()
    return AnnouncedKeyring(session, km.default.ring)


async def test_what_is_written_is_under_the_version_told_last_until_another_is_told() -> None:
    world = World()
    async with world.open() as km:
        keyring = await announced(km)
        first = keyring.tell()
        assert (first.keyring, first.number) == ("default", 1)
        await km.rotate_data_key()
        assert km.default.ring.snapshot.active != first.data_key_id
        version, blob = keyring.seal(b"x", CONTEXT)
        assert (version, parse_header(blob).key_id) == (first, first.data_key_id)
        # Nobody has found out yet whether every node has it.
        assert keyring.tell() == first
        await keyring.look()
        assert keyring.seal(b"x", CONTEXT)[0] == first
        second = keyring.tell()
        assert second.number == 2
        assert keyring.told == second
        assert keyring.seal(b"x", CONTEXT)[0] == second
        assert await keyring.open(blob, CONTEXT) == (first, b"x")


async def test_before_anybody_has_asked_the_active_version_is_written_under() -> None:
    async with World().open() as km:
        keyring = await announced(km)
        assert keyring.told is None
        version, _ = keyring.seal(b"x", CONTEXT)
        assert keyring.tell() == version


async def test_a_node_that_lacks_the_version_holds_it_back() -> None:
    world = World()
    async with world.open() as km, world.open() as other:
        await (await other.session()).run_due()
        keyring = await announced(km)
        first = keyring.tell()
        await km.rotate_data_key(promote="now")
        await keyring.look()
        assert keyring.tell() == first
        await (await other.session()).run_due()
        await keyring.look()
        assert keyring.tell().number == 2


async def test_the_version_told_is_not_written_under_for_ever_after_it_was_replaced(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        keyring = await announced(km)
        first = keyring.tell()
        clock.advance(ASKED_WITHIN_S * 3)
        await km.run_due()
        assert keyring.seal(b"x", CONTEXT)[0] == first
        await km.rotate_data_key()
        with pytest.raises(KeyStateError, match="ask for the status"):
            keyring.seal(b"x", CONTEXT)
        keyring.tell()
        assert keyring.seal(b"x", CONTEXT)[0] == first


async def test_who_asks_in_vain_has_asked(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        keyring = await announced(km)
        first = keyring.tell()
        await km.rotate_data_key()
        for _ in range(4):
            clock.advance(ASKED_WITHIN_S / 2)
            with pytest.raises(StoreUnavailableError):
                keyring.tell()
            assert keyring.seal(b"x", CONTEXT)[0] == first


async def test_who_has_not_read_the_store_for_too_long_tells_nothing_and_encrypts_on(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        keyring = await announced(km)
        first = keyring.tell()
        clock.advance(61)
        with pytest.raises(StoreUnavailableError):
            keyring.tell()
        assert keyring.told == first
        version, blob = keyring.seal(b"x", CONTEXT)
        assert version == first
        assert await keyring.open(blob, CONTEXT) == (first, b"x")
        await km.run_due()
        assert keyring.tell() == first


async def test_a_version_that_may_not_be_used_is_told_no_more() -> None:
    async with World().open() as km:
        keyring = await announced(km)
        first = keyring.tell()
        await km.rotate_data_key()
        await (await km.session()).lifecycle.destruction.disable(first.data_key_id)
        assert keyring.told is None
        with pytest.raises(KeyStateError, match="ask for the status"):
            keyring.seal(b"x", CONTEXT)
        assert keyring.tell().number == 2


async def test_without_an_active_version_nothing_is_told_or_written(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        keyring = await announced(km)
        version = keyring.tell()
        async with world.store.transaction() as work:
            epoch = await work.bump_epoch()
            await work.change_key(
                version.data_key_id, DataKeyState.ACTIVE, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch
            )
        await km.run_due()
        for call in (keyring.tell, lambda: keyring.seal(b"x", CONTEXT)):
            with pytest.raises(NoActiveKeyError, match="keystead key rotate"):
                call()
        await keyring.look()


async def test_what_is_written_opens_under_its_context_and_keyring_alone() -> None:
    async with World().open() as km:
        keyring = await announced(km)
        _, blob = keyring.seal(b"x", CONTEXT)
        with pytest.raises(DecryptionError):
            await keyring.open(blob, b"")
        with pytest.raises(DecryptionError):
            await keyring.open((await km.keyring("other")).local_encrypt(b"x"), CONTEXT)
        with pytest.raises(DataKeyNotLoadedError):
            await keyring.open(blob[:2] + (7).to_bytes(8, "big") + blob[10:], CONTEXT)


async def test_a_version_that_another_node_writes_under_already_is_fetched() -> None:
    world = World()
    async with world.open() as km, world.open() as other:
        keyring = await announced(km)
        await other.rotate_data_key(promote="now")
        there = await announced(other)
        version, blob = there.seal(b"x", CONTEXT)
        assert version.data_key_id not in km.default.ring.snapshot.keys
        assert await keyring.open(blob, CONTEXT) == (version, b"x")


async def test_it_is_looked_again_and_again_also_when_the_store_was_away() -> None:
    clock = FakeClock(instant=False)
    world = World(clock)
    async with world.open() as km:
        keyring = await announced(km)
        keyring.tell()
        await km.rotate_data_key()
        looks = list[str]()
        whole = keyring.look

        async def look() -> None:
            looks.append("look")
            if len(looks) == 1:
                raise StoreUnavailableError
            await whole()

        keyring.look = look  # type: ignore[method-assign]
        following = asyncio.create_task(keyring.follow())
        while keyring.tell().number == 1:
            clock.wake(FOLLOW_S)
            await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait({following})
        assert len(looks) >= 2


async def test_a_closed_manager_tells_nothing() -> None:
    async with World().open() as km:
        keyring = await announced(km)
    with pytest.raises(SystemShutdownError):
        keyring.tell()


async def test_an_expired_version_that_was_replaced_gives_way_at_once(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km, world.open() as other:
        keyring = await announced(km)
        keyring.tell()
        clock.advance(timedelta(days=91))
        await (await other.session()).run_due()
        await km.run_due()
        await km.run_due()
        await keyring.look()
        assert keyring.tell().number == 2
