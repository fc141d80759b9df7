from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from keystead.errors import (
    ConflictError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.lifecycle.kek_rotation import (
    IN_DOUBT_FOR_S,
    LEASE_TTL_S,
    LOOK_AGAIN_S,
    LOOKS,
    lease_name,
    rotate_kek,
)
from keystead.lifecycle.wrapping import Kek
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, KeyDescription, KeyReference
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


@pytest.mark.parametrize("refusal", [ProviderAuthError("denied"), KeyRotationError("no"), KeyStateError("disabled")])
async def test_a_rotation_that_is_refused_gives_the_lease_back(world: World, refusal: KMSError) -> None:
    async with world.open() as km:
        world.kms.fail_next(1, refusal, operation="rotate_key")
        with pytest.raises(type(refusal)):
            await rotate(km)
        assert await lease(world) is not None


async def test_a_rotation_that_may_still_be_under_way_keeps_the_lease_until_it_expires(world: World) -> None:
    # The service may work at it when nobody waits for the answer any more, and a second one beside it loses versions.
    async with world.open() as km:
        world.kms.fail_next(1, ProviderConnectionError("no answer in time"), operation="rotate_key")
        with pytest.raises(ProviderConnectionError):
            await rotate(km)
        assert await lease(world) is None
        with pytest.raises(ConflictError, match="could not finish"):
            await rotate(km)
        world.clock.advance(LEASE_TTL_S)
        await rotate(km)
        assert world.kms.calls["rotate_key"] == 2


async def test_a_rotation_that_is_cancelled_keeps_the_lease(world: World) -> None:
    entered = asyncio.Event()

    async def endless(key_id: str) -> KeyReference:
        entered.set()
        await asyncio.sleep(60)
        raise AssertionError

    world.kms.rotate_key = endless  # type: ignore[method-assign]
    async with world.open() as km:
        task = asyncio.create_task(rotate(km))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await lease(world) is None


def test_who_waits_for_a_rotation_that_fails_gives_up_before_its_lease_expires() -> None:
    # So that nobody takes the version that it left behind for a good one. A lease is renewed at a third of its time.
    assert LOOKS * LOOK_AGAIN_S < LEASE_TTL_S * 2 / 3


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


async def test_a_service_that_is_away_before_it_is_asked_to_rotate_leaves_no_lease_behind(world: World) -> None:
    async with world.open() as km:
        describe, asked = world.kms.describe, 0

        async def away(key_id: str) -> KeyDescription:
            nonlocal asked
            asked += 1
            if asked > 1:
                raise ProviderConnectionError("the network is down")
            return await describe(key_id)

        world.kms.describe = away  # type: ignore[method-assign]
        with pytest.raises(ProviderConnectionError):
            await rotate(km)
        assert await lease(world) is not None


# --- a version that the service shows, and may not have stored


async def unclear(world: World, km: KeyManager) -> None:
    """Rotate as where the service has made a version, shows it, and nobody knows whether it has stored it."""
    rotate_key, is_made = world.kms.rotate_key, asyncio.Event()

    async def lost(key_id: str) -> KeyReference:
        made = await rotate_key(key_id)
        is_made.set()
        await asyncio.sleep(60)
        return made

    world.kms.rotate_key = lost  # type: ignore[method-assign]
    rotating = asyncio.create_task(rotate(km))
    await is_made.wait()
    rotating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rotating
    world.kms.rotate_key = rotate_key  # type: ignore[method-assign]
    world.clock.advance(LEASE_TTL_S)


async def wrapped_under(world: World) -> list[str | None]:
    return [row.kek_version for row in await world.rows(WRAP_KEYRING)]


async def test_no_process_moves_rows_to_a_version_that_a_failed_rotation_left_behind(world: World) -> None:
    # With Vault it may be in the server's memory alone, and gone when that is restarted, with every row under it.
    async with world.open() as km, world.open() as other:
        await unclear(world, km)
        assert (await world.kms.describe(KEY_ID)).current_version == "2"
        for each in (other, km):
            report = await each.perform_maintenance()
            assert (report.rewrapped, report.failures) == (0, {"rewrapped": "key_rotation"})
            with pytest.raises(KeyRotationError, match="--rotate-kek"):
                await (await session_of(each)).lifecycle.rewrap.run(new_wrap_version=False)
        assert await wrapped_under(world) == ["1"]
        await (await session_of(other)).lifecycle.rewrap.run(new_kek_version=True, new_wrap_version=False)
        assert await wrapped_under(world) == ["3"]
        assert (await km.perform_maintenance()).failures == {}


async def test_who_waits_for_a_rotation_that_fails_makes_a_version_and_adopts_none(world: World) -> None:
    async with world.open() as km:
        await unclear(world, km)
        asked = world.kms.calls["rotate_key"]
        describe, versions = world.kms.describe, iter(["1", "2"])

        async def as_one_who_looked_before(key_id: str) -> KeyDescription:
            return replace(await describe(key_id), current_version=next(versions, "2"))

        world.kms.describe = as_one_who_looked_before  # type: ignore[method-assign]
        await rotate(km)
        assert world.kms.calls["rotate_key"] == asked + 1


async def test_a_doubt_is_over_after_a_week(world: World) -> None:
    async with world.open() as km:
        await unclear(world, km)
        world.clock.advance(IN_DOUBT_FOR_S)
        assert (await km.perform_maintenance()).rewrapped == 1
    assert await wrapped_under(world) == ["2"]


async def test_a_rotation_that_is_refused_leaves_no_doubt(world: World) -> None:
    async with world.open() as km:
        await world.kms.rotate_key(KEY_ID)
        world.kms.fail_next(1, KeyRotationError("no"), operation="rotate_key")
        with pytest.raises(KeyRotationError):
            await rotate(km)
        assert (await km.perform_maintenance()).rewrapped == 1


async def test_a_doubt_that_another_release_has_noted_is_left_to_it(world: World) -> None:
    async with world.open() as km:
        name = f"{lease_name(KEK)}:in doubt"
        async with world.store.transaction() as work:
            noted = await work.claim_lease(name, "another release", 3_600_000)
        assert noted is not None
        await rotate(km)
        async with world.store.transaction() as work:
            assert await work.claim_lease(name, "nobody", 1) is None
    assert world.kms.calls["rotate_key"] == 1
