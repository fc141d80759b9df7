from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConflictError,
    InvalidAlgorithmError,
    InvalidInputError,
    KeyDecryptionFailError,
    KeyNotFoundError,
)
from keystead.lifecycle.creation import add_active
from keystead.lifecycle.wrap_keyrings import CREATE_ATTEMPTS, retry_conflicts
from keystead.lifecycle.wrapping import KekWrapper, seal_key
from keystead.model import WRAP_KEYRING, DataKeyState, KeyringPurpose
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, session_of

SOAK = bool(os.environ.get("KEYSTEAD_SOAK"))


async def test_an_empty_store_gets_one_active_version_of_each_keyring_by_one_kms_call(world: World) -> None:
    async with world.open() as km:
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
    rows = await world.rows()
    assert {(row.keyring, row.version, row.state, row.purpose) for row in rows} == {
        (WRAP_KEYRING, 1, DataKeyState.ACTIVE, KeyringPurpose.WRAP),
        ("default", 1, DataKeyState.ACTIVE, KeyringPurpose.ENCRYPT),
        ("keystead.index", 1, DataKeyState.ACTIVE, KeyringPurpose.INDEX),
    }
    assert dict(world.kms.calls) == {"generate_data_key": 1}


async def test_a_restart_unwraps_by_one_kms_call_whatever_the_number_of_keyrings(world: World) -> None:
    async with world.open() as km:
        sealed = {}
        for number in range(12):
            ring = await km.keyring(f"tenant-{number}")
            sealed[ring.name] = ring.local_encrypt(b"x")
    world.kms.calls.clear()
    async with world.open() as km:
        for name, blob in sealed.items():
            assert (await km.keyring(name)).local_decrypt(blob) == b"x"
    assert dict(world.kms.calls) == {"decrypt": 1}


async def test_a_store_of_many_keyrings_opens_with_one_kms_call_and_bounded_memory(world: World) -> None:
    names = [f"subject-{number}" for number in range(2000 if SOAK else 120)]
    async with world.open() as km:
        session = await session_of(km)
        wrap_ring = await session.live.wrap_ring(WRAP_KEYRING)
        async with world.store.transaction() as work:
            for name in names:
                keyring = session.surroundings.new_keyring(name)
                await work.add_keyring(keyring)
                row = session.surroundings.new_row(keyring, await work.take_version(name))
                row = seal_key(wrap_ring, session.live.store_id, row, os.urandom(32))
                await add_active(session.surroundings, work, keyring, row)
    world.kms.calls.clear()
    async with world.open(keyring_cache=20) as km:
        for name in names[::3]:
            ring = await km.keyring(name)
            assert ring.local_decrypt(ring.local_encrypt(b"x")) == b"x"
        del ring
        gc.collect()
        assert len((await session_of(km)).live.rings()) == 20 + 3  # and WRAP, default, index
    assert dict(world.kms.calls) == {"decrypt": 1}


async def test_many_processes_that_start_at_once_end_with_one_active_key(url: str) -> None:
    world = World()
    managers = [world.manager(store=url) for _ in range(8)]
    await asyncio.gather(*(km.initialize() for km in managers))
    try:
        sealed = [km.local_encrypt(b"%d" % n) for n, km in enumerate(managers)]
        assert len({blob[2:10] for blob in sealed}) == 1
        for km in managers:
            assert [km.local_decrypt(blob) for blob in sealed] == [b"%d" % n for n in range(8)]
        rows = [info.version for info in await (await managers[0].keyring("default")).versions()]
        assert rows == [1]
    finally:
        for km in managers:
            await km.close()


def table(path: Path) -> list[tuple[object, ...]]:
    database = sqlite3.connect(path)
    try:
        return [
            row
            for name in ("store_state", "keyrings", "data_keys", "leases", "nodes")
            for row in database.execute(f"SELECT '{name}', * FROM {name}")
        ]
    finally:
        database.close()


def local(key: bytes) -> dict[str, LocalKMSProvider]:
    return {"local": LocalKMSProvider(LocalKMSConfig(master_key=key))}


async def test_a_wrong_kek_changes_nothing_in_the_store_and_the_right_one_opens_it(tmp_path: Path) -> None:
    world, right, store = World(), os.urandom(32), f"sqlite:///{tmp_path}/keys.db"
    async with world.open(providers=local(right), store=store) as km:
        sealed = km.local_encrypt(b"x")
    before, files = table(tmp_path / "keys.db"), sorted(tmp_path.rglob("*"))
    content = (tmp_path / "keys.db").read_bytes()
    for background in (False, True):
        km = world.manager(providers=local(os.urandom(32)), store=store, background=background)
        for _ in range(2):
            with pytest.raises(KeyDecryptionFailError, match="nothing was changed"):
                await km.initialize()
        assert not km.is_initialized
        await km.close()
    assert table(tmp_path / "keys.db") == before
    assert sorted(tmp_path.rglob("*")) == files
    assert (tmp_path / "keys.db").read_bytes() == content
    async with world.open(providers=local(right), store=store) as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_an_absent_keyring_is_not_made_where_that_was_not_asked(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(KeyNotFoundError, match="no keyring 'tenant'"):
            await km.keyring("tenant", create=False)
        await km.keyring("tenant")
        await km.keyring("tenant", create=False)


@pytest.mark.parametrize("name", ["", "keystead.wrap", "x" * 201, None])
async def test_a_keyrings_name_is_a_text_that_is_not_keysteads_own(world: World, name: str) -> None:
    async with world.open() as km:
        with pytest.raises(InvalidInputError, match="name"):
            await km.keyring(name)
        if name is not None:
            with pytest.raises(InvalidInputError, match="name"):
                await km.keyring("tenant", tenant_wrap=name)


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_keyring_keeps_its_algorithm(world: World, is_held: bool) -> None:
    async with world.open() as km:
        held = await km.keyring("one")
        del held
        if not is_held:
            (await session_of(km)).live._recent.clear()
        for name in ("one", "default"):
            with pytest.raises(InvalidInputError, match="AES-256-GCM-STREAM"):
                await km.keyring(name, algorithm="AES-256-GCM-STREAM")


async def test_a_tenant_has_a_wrap_keyring_of_its_own(world: World) -> None:
    async with world.open() as km:
        ring = await km.keyring("tenant", tenant_wrap="tenant-wrap")
        sealed = ring.local_encrypt(b"x")
        await km.keyring("other")
    rows = {row.keyring: row for row in await world.rows()}
    assert rows["tenant"].wrapped_by == rows["tenant-wrap"].id
    assert rows["other"].wrapped_by == rows[WRAP_KEYRING].id
    async with world.open() as km:
        assert (await km.keyring("tenant")).local_decrypt(sealed) == b"x"


async def test_a_wrap_keyring_encrypts_no_data_and_a_data_keyring_wraps_no_keys(world: World) -> None:
    async with world.open() as km:
        await km.keyring("tenant", tenant_wrap="tenant-wrap")
        for create in (True, False):
            with pytest.raises(InvalidInputError, match="wraps keys"):
                await km.keyring("tenant-wrap", create=create)
        with pytest.raises(InvalidInputError, match="wraps no keys"):
            await km.keyring("second", tenant_wrap="tenant")


async def test_an_algorithm_nobody_knows_makes_no_keyring(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(InvalidAlgorithmError, match="'DES'"):
            await km.keyring("tenant", algorithm="DES")


async def test_a_version_number_that_was_taken_meanwhile_is_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.store.open()
    km = world.manager()
    wrap_keyring = km.surroundings().new_keyring(WRAP_KEYRING, KeyringPurpose.WRAP)
    async with world.store.transaction() as work:
        await work.add_keyring(wrap_keyring)
    draw = KekWrapper.draw

    async def slow(self: KekWrapper, *arguments: Any) -> Any:
        monkeypatch.undo()
        async with world.store.transaction() as work:
            await work.take_version(WRAP_KEYRING)
        return await draw(self, *arguments)

    monkeypatch.setattr(KekWrapper, "draw", slow)
    await km.initialize()
    assert [row.version for row in await world.rows(WRAP_KEYRING)] == [2]
    await km.close()


def losing(times: int) -> Callable[[], object]:
    tries = iter(range(times))

    async def action() -> str:
        if next(tries, None) is not None:
            raise ConflictError("another process was faster")
        return "made"

    return action


async def test_who_loses_a_race_tries_again_and_not_for_ever() -> None:
    assert await retry_conflicts(losing(CREATE_ATTEMPTS - 1)) == "made"  # type: ignore[arg-type]
    with pytest.raises(ConflictError):
        await retry_conflicts(losing(CREATE_ATTEMPTS))  # type: ignore[arg-type]


async def test_the_loser_of_a_race_for_the_wrap_key_adopts_the_winners(world: World, clock: FakeClock) -> None:
    winner, loser = world.manager(), world.manager()
    generate = world.kms.generate_data_key
    raced = False

    async def slow(*arguments: object, **options: object) -> object:
        nonlocal raced
        pair = await generate(*arguments, **options)  # type: ignore[arg-type]
        if not raced:
            raced = True
            await winner.initialize()
        return pair

    world.kms.generate_data_key = slow  # type: ignore[method-assign, assignment]
    await loser.initialize()
    assert loser.local_decrypt(winner.local_encrypt(b"x")) == b"x"
    assert len(await world.rows(WRAP_KEYRING)) == 1
    await winner.close()
    await loser.close()


async def test_a_keyring_of_the_stores_own_that_is_not_there_is_not_to_be_made_by_hand(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(KeyNotFoundError, match="made by what uses them first"):
            await (await session_of(km)).live.load("keystead.pepper")
        with pytest.raises(KeyNotFoundError, match="keystead key create letters"):
            await (await session_of(km)).live.load("letters")
