from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from keystead.errors import ConflictError, KeyGenerationFailError, ProviderConnectionError
from keystead.lifecycle.maintenance import MaintenanceReport
from keystead.lifecycle.restoration import export_store
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState, RotationPolicy
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled, session_of

DAY = timedelta(days=1)


async def test_nothing_is_due_in_a_new_store(world: World) -> None:
    async with world.open() as km:
        assert await km.perform_maintenance() == MaintenanceReport()


async def test_everything_that_is_due_is_done_and_counted(world: World, clock: FakeClock) -> None:
    async with world.open(grace_s=None) as km, world.open() as gone:
        await polled(km, gone)
        await km.keyring("tenant")
        await km.rotate_data_key(promote="now")
        session = await session_of(km)
        old = (await world.rows("default"))[0]
        await polled(gone)
        await session.lifecycle.destruction.schedule(old.id, without_sources=True)
        async with world.store.transaction() as work:
            await work.claim_lease("job", "somebody who died", 1000)
        await world.kms.rotate_key("billing")
        clock.advance(80 * DAY)
        assert await km.perform_maintenance() == MaintenanceReport(
            rotated=2, destroyed=1, rewrapped=1, expired_leases=2
        )


async def test_a_failing_step_does_not_stop_the_others_and_makes_no_decrypt_fail(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open(grace_s=None) as km:
        sealed = km.local_encrypt(b"x")
        maintenance = (await session_of(km)).lifecycle.maintenance
        steps = {
            "rotated": "rotate_due",
            "promoted": "promote_waiting",
            "destroyed": "_destroy_due",
            "rewrapped": "rewrap_stale",
            "expired_leases": "_drop_expired",
        }
        for name, method in steps.items():
            for failure, code in (
                (ProviderConnectionError("away"), "provider_connection"),
                (ValueError("odd"), "unexpected"),
            ):
                with monkeypatch.context() as patch:
                    patch.setattr(maintenance, method, failing(failure))
                    report = await maintenance.run()
                assert report.failures == {name: code}
                assert km.local_decrypt(sealed) == b"x"
    assert "maintenance step failed" in caplog.text


def failing(failure: Exception) -> Any:
    async def fail(*arguments: Any, **options: Any) -> None:
        raise failure

    return fail


async def test_maintenance_while_the_store_is_restored_rotates_and_promotes_nothing(world: World) -> None:
    async with world.open() as km:
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await polled(km)
        assert await km.perform_maintenance() == MaintenanceReport()


@pytest.mark.parametrize(
    ("policy", "messages"),
    [(RotationPolicy(max_messages=100), 80), (RotationPolicy(max_bytes=1000), 10)],
    ids=["messages", "bytes"],
)
async def test_use_up_to_80_percent_rotates(world: World, policy: RotationPolicy, messages: int) -> None:
    async with world.open(rotation_policy=policy) as km:
        size = 800 // messages
        for _ in range(messages - 1):
            km.local_encrypt(bytes(size))
        assert (await km.perform_maintenance()).rotated == 0
        km.local_encrypt(bytes(size))
        assert (await km.perform_maintenance()).rotated == 1
        assert (await km.get_active_data_key()).version == 2
        assert (await km.perform_maintenance()).rotated == 0


async def test_limits_of_a_policy_that_is_off_rotate_nothing(world: World) -> None:
    policy = RotationPolicy(enabled=False, max_messages=1, max_bytes=1)
    async with world.open(rotation_policy=policy) as km:
        km.local_encrypt(b"xx")
        km.local_encrypt(b"xx")
        assert (await km.perform_maintenance()).rotated == 0


async def test_use_is_counted_over_processes(world: World) -> None:
    policy = RotationPolicy(max_messages=10)
    async with world.open(rotation_policy=policy) as one, world.open(rotation_policy=policy) as two:
        for km in (one, two):
            for _ in range(4):
                km.local_encrypt(b"x")
        await (await session_of(two)).uses.flush()
        await polled(one, two)
        report = await one.perform_maintenance()
        assert report.rotated == 1


async def test_a_keyring_that_cannot_be_rotated_does_not_keep_the_others(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open(grace_s=None) as km:
        for name in ("a", "b", "c"):
            await km.keyring(name)
        clock.advance(80 * DAY)
        rotation = (await session_of(km)).lifecycle.rotation
        rotate = rotation.rotate

        async def odd(name: str, **options: Any) -> Any:
            if name == "b":
                raise KeyGenerationFailError("no entropy")
            return await rotate(name, **options)

        monkeypatch.setattr(rotation, "rotate", odd)
        report = await km.perform_maintenance()
        assert report.failures == {"rotated": "key_rotation"}
        monkeypatch.undo()
        versions = {row.keyring: row.version for row in await world.rows() if row.state is DataKeyState.ACTIVE}
        assert (versions["a"], versions["b"], versions["c"], versions["default"]) == (2, 1, 2, 2)
        assert (await km.perform_maintenance()).rotated == 1


@pytest.mark.parametrize("room", ["key_pages", "restoration"])
async def test_more_rows_than_a_page_are_all_seen(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    monkeypatch.setattr(f"keystead.lifecycle.{room}.PAGE", 1)
    async with world.open(grace_s=None) as km:
        sealed = km.local_encrypt(b"x")
        await km.keyring("tenant")
        await km.rotate_data_key()
        clock.advance(80 * DAY)
        assert (await km.perform_maintenance()).rotated == 2
        export = await export_store((await session_of(km)).live)
        assert (len(export.keyrings), len(export.keys)) == (4, 7)
    async with world.open() as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_of_many_that_rotate_what_is_due_each_keyring_gets_one_version(world: World, clock: FakeClock) -> None:
    managers: list[KeyManager] = [world.manager(grace_s=None) for _ in range(4)]
    for km in managers:
        await km.initialize()
    await managers[0].keyring("tenant")
    clock.advance(80 * DAY)
    reports = await asyncio.gather(*(km.perform_maintenance() for km in managers))
    assert sum(report.rotated for report in reports) >= 2
    assert [row.version for row in await world.rows("default")] == [1, 2]
    assert [row.version for row in await world.rows("tenant")] == [1, 2]
    for km in managers:
        await km.close()


async def test_a_waiting_version_is_promoted_by_the_maintenance(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.open() as one, world.open() as two:
        await polled(one, two)
        assert (await one.rotate_data_key()).state is DataKeyState.PRE_ACTIVE
        assert (await one.perform_maintenance()).promoted == 0
        await polled(two)
        with monkeypatch.context() as patch:
            rotation = (await session_of(one)).lifecycle.rotation
            patch.setattr(rotation, "promote", failing(ConflictError("another was faster")))
            assert await one.perform_maintenance() == MaintenanceReport()
        assert (await one.perform_maintenance()).promoted == 1


async def test_what_cannot_be_rewrapped_is_said_and_the_rest_is_moved(world: World) -> None:
    async with world.open() as km:
        await km.keyring("tenant", tenant_wrap="tenant-wrap")
        await world.kms.rotate_key("billing")
        world.kms.fail_next(3, ProviderConnectionError("away"), operation="rewrap")
        report = await km.perform_maintenance()
        assert report.failures == {"rewrapped": "provider_connection"}
        versions = {row.keyring: row.kek_version for row in await world.rows() if row.kek_version}
        assert sorted(versions.values()) == ["1", "2"]
        assert (await km.perform_maintenance()).rewrapped == 1
