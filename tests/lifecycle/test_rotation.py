from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from keystead.errors import (
    ConflictError,
    InvalidInputError,
    KeyExpiredError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
    StoreUnavailableError,
)
from keystead.lifecycle.algorithms import LEGACY_ALGORITHM
from keystead.lifecycle.rotation import ATTEMPTS
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyState, RotationPolicy
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World, backdate, polled, session_of

ACTIVE, PRE_ACTIVE, DECRYPT_ONLY = DataKeyState.ACTIVE, DataKeyState.PRE_ACTIVE, DataKeyState.DECRYPT_ONLY


async def states(world: World, keyring: str = "default") -> list[DataKeyState]:
    return [row.state for row in await world.rows(keyring)]


async def test_a_rotation_adds_a_version_and_everything_stays_readable(world: World) -> None:
    async with world.open() as km:
        sealed = [km.local_encrypt(b"0")]
        for version in range(2, 12):
            info = await km.rotate_data_key()
            assert (info.version, info.is_active) == (version, True)
            sealed.append(km.local_encrypt(b"%d" % (version - 1)))
        assert [km.local_decrypt(blob) for blob in sealed] == [b"%d" % n for n in range(11)]
    assert await states(world) == [DECRYPT_ONLY] * 10 + [ACTIVE]
    async with world.open() as km:
        assert [km.local_decrypt(blob) for blob in sealed] == [b"%d" % n for n in range(11)]
    assert world.kms.calls["generate_data_key"] == 1


async def test_of_many_that_rotate_at_once_one_wins_and_the_others_return_its_version(url: str) -> None:
    world = World()
    managers = [world.manager(store=url) for _ in range(4)]
    for km in managers:
        await km.initialize()
    try:
        for expected in range(2, 6):
            infos = await asyncio.gather(*(km.rotate_data_key() for km in managers for _ in range(4)))
            assert {info.version for info in infos} == {expected}
            await polled(*managers)
            await managers[0].default.promote()
            await polled(*managers)
        versions = await managers[0].default.versions()
        assert [info.version for info in versions] == [1, 2, 3, 4, 5]
        assert [info.state for info in versions] == [DECRYPT_ONLY] * 4 + [ACTIVE]
    finally:
        for km in managers:
            await km.close()


async def test_a_caller_whose_version_was_replaced_adopts_the_winner(world: World) -> None:
    async with world.open() as one, world.open() as two:
        won = await one.rotate_data_key()
        adopted = await two.rotate_data_key()
        assert adopted.id == won.id
        assert (await two.rotate_data_key()).version == 3


async def test_who_names_no_version_it_saw_still_rotates_once_with_others(world: World) -> None:
    async with world.open() as km:
        rotation = (await session_of(km)).lifecycle.rotation
        rows = await asyncio.gather(*(rotation.rotate("default") for _ in range(8)))
        assert {row.version for row in rows} == {2}


async def test_a_young_version_is_left_alone(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        first = await km.get_active_data_key()
        assert (await km.rotate_data_key(min_age=timedelta(hours=1))).id == first.id
        clock.advance(timedelta(hours=1))
        assert (await km.rotate_data_key(min_age=timedelta(hours=1))).version == 2


@pytest.mark.parametrize("how", ["later", "", None])
async def test_a_promotion_is_automatic_or_now(world: World, how: str) -> None:
    async with world.open() as km:
        with pytest.raises(InvalidInputError, match="promote"):
            await km.rotate_data_key(promote=how)


async def test_an_unknown_keyring_cannot_be_rotated(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(KeyNotFoundError):
            await (await session_of(km)).lifecycle.rotation.rotate("nobody")


OUTAGE = ProviderConnectionError("the KMS is away")


@pytest.mark.parametrize("failure", [OUTAGE, ProviderAuthError("no permission")])
async def test_a_failing_kms_fails_a_rotation_and_the_old_version_stays(world: World, failure: Exception) -> None:
    async with world.open() as km:
        before = await world.rows()
        world.kms.fail_always(failure)
        with pytest.raises(KeyRotationError, match="old version stays active") as refused:
            await (await session_of(km)).lifecycle.rotation.rotate(WRAP_KEYRING)
        assert refused.value.retryable
        assert await world.rows() == before
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
        world.kms.heal()
        assert (await (await session_of(km)).lifecycle.rotation.rotate(WRAP_KEYRING)).version == 2


async def test_a_wrap_version_that_was_made_elsewhere_is_needed_from_the_kms(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await (await session_of(one)).lifecycle.rotation.rotate(WRAP_KEYRING)
        world.kms.fail_always()
        with pytest.raises(KeyRotationError):
            await two.rotate_data_key()
        world.kms.heal()
        assert (await two.rotate_data_key()).version == 2


async def test_a_store_that_is_away_is_not_called_a_failed_rotation(world: World) -> None:
    world.store = store = CountingStore(world.store)
    async with world.open() as km:
        store.failure = StoreUnavailableError("away")
        with pytest.raises(StoreUnavailableError):
            await km.rotate_data_key()
        store.failure = None
        assert (await km.rotate_data_key()).version == 2


async def test_who_never_gets_through_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.open() as km:
        rotation = (await session_of(km)).lifecycle.rotation
        tries = 0

        async def lose(*arguments: object, **options: object) -> None:
            nonlocal tries
            tries += 1
            raise ConflictError("another process was faster")

        monkeypatch.setattr(rotation, "_add_version", lose)
        with pytest.raises(KeyRotationError, match="too many processes"):
            await rotation.rotate("default")
        assert tries == ATTEMPTS


async def test_a_store_that_goes_away_while_the_new_key_is_wrapped_is_not_called_a_failed_rotation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        session = await session_of(km)

        async def away(name: str) -> None:
            raise StoreUnavailableError("away")

        monkeypatch.setattr(session.live, "sealing_ring", away)
        with pytest.raises(StoreUnavailableError):
            await km.rotate_data_key()
        monkeypatch.undo()
        assert (await km.rotate_data_key()).version == 2


async def test_a_keyring_without_an_active_version_gets_one(world: World) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        [row] = await world.rows("default")
        async with world.store.transaction() as work:
            epoch = await work.bump_epoch()
            await work.change_key(row.id, row.state, state=DECRYPT_ONLY, published_epoch=epoch)
        await polled(km)
        assert (await km.rotate_data_key()).version == 2
        assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"
        assert km.local_decrypt(sealed) == b"x"


async def test_imported_keys_have_no_successor(world: World) -> None:
    async with world.open() as km:
        async with world.store.transaction() as work:
            session = await session_of(km)
            keyring = session.surroundings.new_keyring("legacy")
            await work.add_keyring(replace(keyring, algorithm=LEGACY_ALGORITHM))
        with pytest.raises(KeyStateError, match="only decrypt"):
            await session.lifecycle.rotation.rotate("legacy")


# --- two nodes


async def nodes(world: World, count: int) -> list[KeyManager]:
    managers = [world.manager() for _ in range(count)]
    for km in managers:
        await km.initialize()
    await polled(*managers)
    return managers


async def test_a_version_waits_until_every_live_node_has_loaded_it(world: World) -> None:
    one, two = await nodes(world, 2)
    info = await one.rotate_data_key()
    assert info.state is PRE_ACTIVE
    assert one.local_encrypt(b"x")[2:10] == two.local_encrypt(b"x")[2:10]
    again = await one.rotate_data_key()
    assert (again.id, again.state) == (info.id, PRE_ACTIVE)

    await polled(two)
    promoted = await one.default.promote()
    assert promoted is not None
    assert promoted.state is ACTIVE
    sealed = one.local_encrypt(b"new")
    assert two.local_decrypt(sealed) == b"new"  # without a poll, without I/O
    assert two.local_encrypt(b"x")[2:10] != sealed[2:10]
    await polled(two)
    assert two.local_encrypt(b"x")[2:10] == sealed[2:10]
    assert await states(world) == [DECRYPT_ONLY, ACTIVE]
    assert await one.default.promote() is None
    for km in (one, two):
        await km.close()


async def test_a_second_rotation_promotes_the_version_that_waits(world: World) -> None:
    one, two = await nodes(world, 2)
    waiting = await one.rotate_data_key()
    await polled(one, two)
    assert (await two.rotate_data_key()).id == waiting.id
    assert await states(world) == [DECRYPT_ONLY, ACTIVE]
    for km in (one, two):
        await km.close()


async def test_a_promotion_now_does_not_wait_and_the_others_fetch_the_key(world: World) -> None:
    one, two = await nodes(world, 2)
    assert (await one.rotate_data_key(promote="now")).state is ACTIVE
    sealed = one.local_encrypt(b"x")
    assert await two.decrypt_local(sealed) == b"x"
    assert two.local_decrypt(sealed) == b"x"
    waiting = await one.rotate_data_key()
    assert waiting.state is PRE_ACTIVE
    assert (await one.rotate_data_key(promote="now")).id == waiting.id
    assert await states(world) == [DECRYPT_ONLY, DECRYPT_ONLY, ACTIVE]
    for km in (one, two):
        await km.close()


async def test_a_node_that_died_delays_a_promotion_no_longer_than_its_lease(world: World, clock: FakeClock) -> None:
    one, two = await nodes(world, 2)
    assert (await one.rotate_data_key()).state is PRE_ACTIVE
    clock.advance(59)
    await polled(one)
    assert (promoted := await one.default.promote()) is not None
    assert promoted.state is PRE_ACTIVE
    clock.advance(2)
    await polled(one)
    assert (promoted := await one.default.promote()) is not None
    assert promoted.state is ACTIVE
    for km in (one, two):
        await km.close()


async def test_a_node_that_closed_delays_nothing(world: World) -> None:
    one, two = await nodes(world, 2)
    await two.close()
    assert (await one.rotate_data_key()).state is ACTIVE
    await one.close()


async def test_nothing_waits_where_the_active_version_has_run_out(world: World, clock: FakeClock) -> None:
    one, two = await nodes(world, 2)
    active = await one.get_active_data_key()
    await backdate(world, active.id, timedelta(days=90))
    await polled(one, two)
    with pytest.raises(KeyExpiredError):
        two.local_encrypt(b"x")
    assert (await one.rotate_data_key()).state is ACTIVE
    for km in (one, two):
        await km.close()


async def test_a_promotion_that_lost_its_race_looks_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await nodes(world, 2)
    waiting = await one.rotate_data_key()
    rotation = (await session_of(one)).lifecycle.rotation
    promote = rotation.promote

    async def late(name: str, *, force: bool = False) -> object:
        monkeypatch.undo()
        await promote(name, force=True)
        return await promote(name, force=force)

    monkeypatch.setattr(rotation, "promote", late)
    row = await rotation.rotate("default", observed=1)
    assert (row.id, row.state) == (waiting.id, ACTIVE)
    for km in (one, two):
        await km.close()


# --- by age


async def test_a_rotation_is_due_at_80_percent_of_the_lifetime(world: World, clock: FakeClock) -> None:
    policy = RotationPolicy(rotation_period=timedelta(days=10))
    async with world.open(rotation_policy=policy) as km:
        in_force = km.get_rotation_policy()
        assert (in_force.last_rotation, in_force.next_rotation) == (clock.now(), clock.now() + timedelta(days=8))
        clock.advance(timedelta(days=8) - timedelta(seconds=1))
        assert [report.outcome for report in await km.run_due()] == ["done"] * 3
        assert (await km.get_active_data_key()).version == 1
        clock.advance(30)
        await km.run_due()
        assert (await km.get_active_data_key()).version == 2


@pytest.mark.parametrize(
    "policy",
    [
        RotationPolicy(rotation_period=timedelta(0)),
        RotationPolicy(rotation_period_days=0),
        RotationPolicy(enabled=False),
    ],
)
async def test_a_period_of_zero_is_never(world: World, clock: FakeClock, policy: RotationPolicy) -> None:
    async with world.open(rotation_policy=policy) as km:
        assert km.get_rotation_policy().next_rotation is None
        clock.advance(timedelta(days=10_000))
        await km.run_due()
        assert km.local_decrypt(km.local_encrypt(b"x")) == b"x"
        assert (await km.get_active_data_key()).version == 1


async def test_an_expired_version_encrypts_no_more_and_still_decrypts(world: World, clock: FakeClock) -> None:
    policy = RotationPolicy(rotation_period=timedelta(days=10))
    async with world.open(rotation_policy=policy) as km:
        sealed = km.local_encrypt(b"x")
        clock.advance(timedelta(days=10))
        await polled(km)
        with pytest.raises(KeyExpiredError, match="still decrypts"):
            km.local_encrypt(b"y")
        assert km.local_decrypt(sealed) == b"x"
        await km.rotate_data_key()
        assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"


async def test_a_start_replaces_a_version_that_ran_out(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        tenant = await km.keyring("tenant")
        theirs = tenant.local_encrypt(b"t")
    clock.advance(timedelta(days=100))
    async with world.open() as km:
        assert (await km.get_active_data_key()).version == 2
        assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"
        assert km.local_decrypt(sealed) == b"x"
        tenant = await km.keyring("tenant")
        assert tenant.local_decrypt(tenant.local_encrypt(b"y")) == b"y"
        assert tenant.local_decrypt(theirs) == b"t"


async def test_a_start_that_cannot_replace_an_expired_version_still_decrypts(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
    clock.advance(timedelta(days=100))
    monkeypatch.setattr("keystead.lifecycle.rotation.seal_key", refuse)
    async with world.open() as km:
        assert km.local_decrypt(sealed) == b"x"
        for _ in range(2):
            with pytest.raises(KeyExpiredError):
                km.local_encrypt(b"y")
        assert km.local_decrypt(sealed) == b"x"
        monkeypatch.undo()
        await km.run_due()
        assert km.local_decrypt(km.local_encrypt(b"y")) == b"y"


def refuse(*arguments: object) -> None:
    raise ProviderConnectionError("the KMS has not confirmed the WRAP key")
