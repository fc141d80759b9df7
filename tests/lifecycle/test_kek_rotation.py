from __future__ import annotations

import asyncio

import pytest

from keystead.errors import ConflictError, ProviderConnectionError
from keystead.lifecycle.kek_rotation import LOOK_AGAIN_S, LOOKS, lease_name, rotate_kek
from keystead.lifecycle.wrapping import Kek
from keystead.manager.manager import KeyManager
from keystead.model import KeyReference
from keystead.ports import Lease
from keystead.runtime.clock import SystemClock
from keystead.testing.fake_kms import FakeKMS
from tests.fakes.world import KEY_ID, World, session_of

KEK = Kek("cloud", KEY_ID)


async def rotate(km: KeyManager) -> None:
    await rotate_kek((await session_of(km)).lifecycle.live.surroundings)


async def lease(world: World, owner: str = "somebody else") -> Lease | None:
    async with world.store.transaction() as work:
        return await work.claim_lease(lease_name(KEK), owner, 30_000)


async def test_one_call_makes_one_version(world: World) -> None:
    async with world.open() as km:
        await rotate(km)
        await rotate(km)
    assert world.kms.calls["rotate_key"] == 2


async def test_of_processes_that_rotate_at_once_one_does_and_the_others_adopt_its_version() -> None:
    world = World(clock=SystemClock())  # type: ignore[arg-type]  # the waiting here is real
    rotating = 0
    rotate_key = world.kms.rotate_key

    async def slow(key_id: str) -> KeyReference:
        nonlocal rotating
        rotating += 1
        assert rotating == 1
        await asyncio.sleep(0.05)
        rotating -= 1
        return await rotate_key(key_id)

    world.kms.rotate_key = slow  # type: ignore[method-assign]
    async with world.open() as one, world.open() as two:
        await asyncio.gather(rotate(one), rotate(two), rotate(one))
    assert world.kms.calls["rotate_key"] == 1


async def test_a_lease_that_nobody_gives_back_is_waited_for_no_longer_than_a_minute(world: World) -> None:
    async with world.open() as km:
        await rotate(km)
        world.clock.slept.clear()
        async with world.store.transaction() as work:
            await work.claim_lease(lease_name(KEK), "somebody else", 3_600_000)
        with pytest.raises(ConflictError) as caught:
            await rotate(km)
    assert caught.value.retryable
    assert sum(world.clock.slept) == LOOKS * LOOK_AGAIN_S
    assert world.kms.calls["rotate_key"] == 1


async def test_the_lease_of_a_process_that_died_is_taken_over_when_it_expires(world: World) -> None:
    async with world.open() as km:
        assert await lease(world) is not None
        await rotate(km)
    assert world.kms.calls["rotate_key"] == 1


async def test_a_rotation_that_fails_gives_the_lease_back(world: World) -> None:
    async with world.open() as km:
        world.kms.fail_next(1, ProviderConnectionError("the network is down"), operation="rotate_key")
        with pytest.raises(ProviderConnectionError):
            await rotate(km)
        assert await lease(world) is not None


async def test_a_provider_that_cannot_describe_keys_rotates_when_it_is_told(world: World) -> None:
    class Silent:
        provider_name = "silent"
        encrypt, decrypt, rotate_key = FakeKMS.encrypt, FakeKMS.decrypt, FakeKMS.rotate_key
        _seal, _open = FakeKMS._seal, FakeKMS._open

        def __init__(self, kms: FakeKMS) -> None:
            self._service, self._name = kms, "silent"

    async with world.open(providers={"cloud": Silent(world.kms)}) as km:
        await rotate(km)
    assert world.kms.calls["rotate_key"] == 1


def test_each_kek_has_a_lease_of_its_own_whose_name_fits_the_store() -> None:
    names = {lease_name(Kek(provider, key)) for provider in ("a", "b") for key in ("x", "y", "z" * 1000, "w" * 1000)}
    assert len(names) == 8
    assert all(len(name) <= 255 for name in names)
    assert lease_name(KEK) == "kek:cloud:billing"
