from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from keystead.crypto.snapshot import KeyringSnapshot
from keystead.errors import (
    DataKeyNotLoadedError,
    KeyDecryptionFailError,
    KeyNotFoundError,
    KeyStateError,
    NoActiveKeyError,
    ProviderConnectionError,
    StorageOperationError,
    StoreRestoredError,
)
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyState, KeyRecord
from tests.fakes.world import CountingStore, World, polled, session_of


async def live_of(km: KeyManager) -> LiveKeyrings:
    return (await session_of(km)).live


# --- which keyrings are in memory


async def test_the_cache_of_keyrings_is_bounded_and_what_is_held_is_refreshed_all_the_same(world: World) -> None:
    async with world.open(keyring_cache=2) as km, world.open() as other:
        held = await km.keyring("held")
        for number in range(5):
            await km.keyring(f"tenant-{number}")
        gc.collect()
        live = await live_of(km)
        assert "held" not in live._recent
        await (await other.keyring("held")).rotate()
        sealed = (await other.keyring("held")).local_encrypt(b"x")
        with pytest.raises(DataKeyNotLoadedError):
            held.local_decrypt(sealed)
        await polled(km)
        assert held.local_decrypt(sealed) == b"x"
        assert held.local_encrypt(b"y")[2:10] == sealed[2:10]
        assert (await km.keyring("held")).ring is held.ring


async def test_what_nobody_holds_is_freed_and_what_it_counted_is_kept(world: World) -> None:
    async with world.open(keyring_cache=1) as km:
        ring = await km.keyring("brief")
        for _ in range(5):
            ring.local_encrypt(b"12345678")
        reference = weakref.ref(ring.ring)
        del ring
        await km.keyring("next")
        gc.collect()
        assert reference() is None
        await (await session_of(km)).uses.flush()
    [row] = await world.rows("brief")
    assert (row.messages, row.bytes) == (5, 40)


async def test_one_keyrings_ciphertext_never_opens_under_another(world: World) -> None:
    async with world.open() as km:
        one, two = await km.keyring("one"), await km.keyring("two")
        sealed = one.local_encrypt(b"x")
        for decrypt in (two.decrypt_local, km.decrypt_local):
            with pytest.raises(Exception, match="decryption failed") as refused:
                await decrypt(sealed)
            assert refused.value.retryable is False  # type: ignore[attr-defined]
            assert not isinstance(refused.value, DataKeyNotLoadedError)


# --- refreshing


async def test_nothing_is_refreshed_before_the_store_is_open(world: World) -> None:
    km = world.manager()
    live = LiveKeyrings(km._new_session().surroundings)
    assert await live.refresh() is False
    with pytest.raises(KeyNotFoundError, match="not open"):
        _ = live.store_id
    await km.close()


async def test_a_refresh_without_changes_reads_one_row_and_writes_nothing(world: World) -> None:
    world.store = store = CountingStore(world.store)
    async with world.open() as km:
        live = await live_of(km)
        await live.refresh()
        before = (store.reads, store.writes)
        assert await live.refresh() is False
        assert (store.reads - before[0], store.writes - before[1]) == (1, 0)


async def test_a_key_that_is_disabled_stops_decrypting_at_the_next_poll(world: World) -> None:
    async with world.open() as km, world.open() as other:
        sealed = km.local_encrypt(b"x")
        await km.rotate_data_key()
        [old, _] = await world.rows("default")
        await (await session_of(other)).lifecycle.destruction.disable(old.id)
        assert km.local_decrypt(sealed) == b"x"
        await polled(km)
        with pytest.raises(KeyStateError, match="disabled"):
            km.local_decrypt(sealed)
        with pytest.raises(KeyStateError, match="disabled"):
            await km.decrypt_local(sealed)
        await (await session_of(other)).lifecycle.destruction.enable(old.id)
        await polled(km)
        assert km.local_decrypt(sealed) == b"x"


def paused(live: LiveKeyrings, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold the next unwrapping back; the first event says it has been reached, the second lets it go on."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    unwrap = live.unwrap

    async def wait(*arguments: Any) -> Any:
        monkeypatch.setattr(live, "unwrap", unwrap)
        key = await unwrap(*arguments)
        reached.set()
        await go_on.wait()
        return key

    monkeypatch.setattr(live, "unwrap", wait)
    return reached, go_on


async def test_a_rotation_while_a_keyring_is_being_loaded_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open() as other:
        theirs = await other.keyring("tenant")
        reached, go_on = paused(await live_of(km), monkeypatch)
        loading = asyncio.create_task(km.keyring("tenant"))
        await reached.wait()
        await theirs.rotate(promote="now")
        await polled(km)  # the keyring is not in use yet, so this refresh passes it over
        go_on.set()
        ring = await loading
        assert ring.local_encrypt(b"x")[2:10] == theirs.local_encrypt(b"x")[2:10]


async def test_a_row_that_was_read_earlier_never_overwrites_a_newer_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open() as other:
        await other.rotate_data_key(promote="now")
        second = other.local_encrypt(b"x")
        live = await live_of(km)
        reached, go_on = paused(live, monkeypatch)
        fetching = asyncio.create_task(km.decrypt_local(second))
        await reached.wait()
        await other.rotate_data_key(promote="now")
        newest = other.local_encrypt(b"x")
        await polled(km)
        assert km.local_encrypt(b"y")[2:10] == newest[2:10]
        go_on.set()
        assert await fetching == b"x"
        assert km.local_encrypt(b"y")[2:10] == newest[2:10]


async def test_a_key_that_was_disabled_while_it_was_fetched_stays_disabled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open() as other:
        await other.rotate_data_key(promote="now")
        sealed = other.local_encrypt(b"x")
        await other.rotate_data_key(promote="now")
        reached, go_on = paused(await live_of(km), monkeypatch)
        fetching = asyncio.create_task(km.decrypt_local(sealed))
        await reached.wait()
        key_id = int.from_bytes(sealed[2:10], "big")
        await (await session_of(other)).lifecycle.destruction.disable(key_id)
        await polled(km)
        go_on.set()
        with pytest.raises(KeyStateError, match="disabled"):
            await fetching


async def test_a_wrap_rotation_while_the_kms_is_away_is_caught_up_with_later(world: World) -> None:
    async with world.open() as km, world.open() as other:
        await polled(km)
        sealed = km.local_encrypt(b"x")
        session = await session_of(other)
        await session.lifecycle.rewrap.run()
        await other.rotate_data_key(promote="now")
        world.kms.fail_always()
        seen = (await live_of(km)).state
        await polled(km)
        assert km.local_decrypt(sealed) == b"x"
        with pytest.raises(NoActiveKeyError):  # the new version is under a WRAP key only the KMS can give
            km.local_encrypt(b"y")
        own = (await session_of(km)).surroundings.node.value
        assert seen is not None
        # It does not claim to have loaded what it has not.
        assert {node.node_id: node.seen_epoch for node in await live_nodes(world)}[own] == seen.epoch
        world.kms.heal()
        await polled(km)
        assert km.local_encrypt(b"y")[2:10] == other.local_encrypt(b"y")[2:10]


async def live_nodes(world: World) -> list[Any]:
    async with world.store.reading() as work:
        return list(await work.live_nodes())


# --- what cannot be used


async def test_an_altered_active_row_that_appears_while_running_is_left_out_and_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open() as km, world.open() as other:
        before = km.local_encrypt(b"x")
        info = await other.rotate_data_key(promote="now")
        async with world.store.transaction() as work:
            row = await work.find_key(info.id)
            assert row is not None
            assert row.wrapped_key is not None
            epoch = await work.bump_epoch()
            broken = row.wrapped_key[:-1] + bytes([row.wrapped_key[-1] ^ 1])
            await work.change_key(info.id, row.state, wrapped_key=broken, published_epoch=epoch)
        await polled(km)
        assert "could not be unwrapped" in caplog.text
        assert km.local_decrypt(before) == b"x"
        with pytest.raises(NoActiveKeyError):
            km.local_encrypt(b"y")
        # Waiting would not help, so the node goes on.
        assert await (await live_of(km)).refresh() is False


async def test_a_wrap_key_that_is_not_there_is_a_row_that_does_not_unwrap(world: World) -> None:
    async with world.open() as km:
        live = await live_of(km)
        [row] = await world.rows("default")
        ring = await live.wrap_ring(WRAP_KEYRING)
        for wrapped_by in (row.id, 7):
            with pytest.raises(KeyDecryptionFailError, match="cannot use"):
                await live.ensure_wrap_key(ring, KeyRecord(**{**fields_of(row), "wrapped_by": wrapped_by}))
        await live.ensure_wrap_key(ring, KeyRecord(**{**fields_of(row), "wrapped_by": None}))


def fields_of(row: KeyRecord) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


async def test_a_wrap_version_met_by_many_at_once_is_unwrapped_once(world: World) -> None:
    async with world.open() as km:
        old = [await km.keyring(f"tenant-{number}") for number in range(3)]
        sealed = [ring.local_encrypt(b"x") for ring in old]
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING)
        await km.rotate_data_key()
    world.kms.calls.clear()
    async with world.open() as km:
        rings = await asyncio.gather(*(km.keyring(f"tenant-{number}") for number in range(3)))
        assert [ring.local_decrypt(blob) for ring, blob in zip(rings, sealed, strict=True)] == [b"x"] * 3
    assert dict(world.kms.calls) == {"decrypt": 2}


async def test_a_wrap_version_asked_for_by_many_at_once_is_one_kms_call(world: World) -> None:
    async with world.open() as km:
        [row] = await world.rows("default")
        await (await session_of(km)).lifecycle.rotation.rotate(WRAP_KEYRING)
        live = LiveKeyrings((await session_of(km)).surroundings)
        await live.open()
        ring = await live.wrap_ring(WRAP_KEYRING)
        world.kms.calls.clear()
        await asyncio.gather(*(live.ensure_wrap_key(ring, row) for _ in range(5)))
        assert dict(world.kms.calls) == {"decrypt": 1}


async def test_a_restored_keyring_without_an_active_version_only_decrypts(world: World) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
    [row] = await world.rows("default")
    async with world.store.transaction() as work:
        await work.change_key(row.id, row.state, state=DataKeyState.DECRYPT_ONLY)
        await work.set_restored(True)
    async with world.open() as km:
        assert km.local_decrypt(sealed) == b"x"
        with pytest.raises(StoreRestoredError):
            km.local_encrypt(b"y")
    assert len(await world.rows("default")) == 1


async def test_an_older_row_that_does_not_unwrap_keeps_nobody_from_starting(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open() as km:
        first = km.local_encrypt(b"1")
        await km.rotate_data_key()
        second = km.local_encrypt(b"2")
    [old, _] = await world.rows("default")
    async with world.store.transaction() as work:
        await work.change_key(old.id, DataKeyState.DECRYPT_ONLY, wrapped_key=bytes(len(old.wrapped_key or b"")))
    async with world.open() as km:
        assert km.local_decrypt(second) == b"2"
        assert "does not unwrap" in caplog.text
        with pytest.raises(DataKeyNotLoadedError):
            km.local_decrypt(first)
        with pytest.raises(KeyDecryptionFailError, match=f"data key {old.id}"):
            await km.decrypt_local(first)


async def test_a_kms_that_fails_while_older_versions_are_loaded_fails_the_start(world: World) -> None:
    async with world.open() as km:
        await (await session_of(km)).lifecycle.rotation.rotate(WRAP_KEYRING)
        sealed = km.local_encrypt(b"x")
    km = world.manager()
    decrypt, calls = world.kms.decrypt, 0

    async def second_fails(*arguments: Any, **options: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise ProviderConnectionError("away")
        return await decrypt(*arguments, **options)

    world.kms.decrypt = second_fails  # type: ignore[method-assign]
    with pytest.raises(ProviderConnectionError):
        await km.initialize()
    world.kms.decrypt = decrypt  # type: ignore[method-assign]
    await km.initialize()
    assert km.local_decrypt(sealed) == b"x"
    await km.close()


async def test_a_journal_that_cannot_be_written_keeps_nobody_from_decrypting(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")

    def full(*arguments: object, **options: object) -> None:
        raise StorageOperationError("full")

    monkeypatch.setattr("keystead.lifecycle.surroundings.NoJournal.append", full)
    async with world.open() as km:
        assert km.local_decrypt(sealed) == b"x"
    assert "journal could not be written" in caplog.text


async def test_a_keyring_without_an_active_version_gets_one_where_it_is_asked_for(world: World) -> None:
    async with world.open() as km:
        ring = await km.keyring("tenant")
        sealed = ring.local_encrypt(b"x")
        [row] = await world.rows("tenant")
        async with world.store.transaction() as work:
            epoch = await work.bump_epoch()
            await work.change_key(row.id, row.state, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch)
        await polled(km)
        with pytest.raises(NoActiveKeyError, match="no active version"):
            ring.local_encrypt(b"y")
        assert (await km.keyring("tenant")).ring is ring.ring
        assert ring.local_decrypt(ring.local_encrypt(b"y")) == b"y"
        assert ring.local_decrypt(sealed) == b"x"


async def test_a_child_of_a_fork_counts_nothing_for_its_parent(world: World) -> None:
    async with world.open(keyring_cache=1) as km:
        (await km.keyring("brief")).local_encrypt(b"x")
        await km.keyring("next")
        live = await live_of(km)
        lock = live._lock
        live.drop_handles()
        assert live._lock is not lock
        [row] = await world.rows("brief")
        assert row.id not in live.take_uses()
        assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"


async def test_closing_wipes_every_key_that_was_in_memory(world: World) -> None:
    km = world.manager()
    await km.initialize()
    ring = await km.keyring("tenant")
    live = await live_of(km)
    keys = [key.key for one in live.rings() for key in one.snapshot.keys.values()]
    assert len(keys) == 4
    await km.close()
    assert keys == [bytearray(32)] * 4
    assert ring.ring.snapshot == KeyringSnapshot()
