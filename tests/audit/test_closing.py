"""A manager with an audit trail that is closed while one of its tasks is at work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keystead.errors import KMSError, SystemShutdownError
from keystead.manager.manager import KeyManager
from keystead.ports import AuditEvent
from tests.audit.places import auditing_of
from tests.fakes.world import World, session_of


async def begun_rotation(
    km: KeyManager, monkeypatch: pytest.MonkeyPatch, may_go_on: asyncio.Event
) -> asyncio.Task[Any]:
    """Return a rotation that has everything but its transaction."""
    rotation = (await session_of(km)).lifecycle.rotation
    wrapped, is_wrapped = rotation._wrapped, asyncio.Event()

    async def slow(*given: Any) -> Any:
        row = await wrapped(*given)
        is_wrapped.set()
        await may_go_on.wait()
        return row

    monkeypatch.setattr(rotation, "_wrapped", slow)
    task = asyncio.create_task(km.rotate_data_key(promote="now"))
    await is_wrapped.wait()
    return task


async def test_what_a_task_changes_after_its_manager_was_closed_does_not_happen_unrecorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = asyncio.Event()
    async with world.open(audit=True) as km:
        task = await begun_rotation(km, monkeypatch, may_go_on)
    may_go_on.set()
    with pytest.raises(KMSError):
        await task
    async with world.open() as km:
        assert (await km.audit.verify(compares_store=True)).differences == []
        assert len(await world.rows("default")) == 1


async def test_a_key_is_not_used_unrecorded_after_its_manager_was_closed(world: World) -> None:
    async with world.open(audit=True) as km:
        trail = auditing_of(km).trail
    with pytest.raises(SystemShutdownError):
        await trail.note(AuditEvent("key.load", "people"))


async def test_a_manager_without_a_trail_refuses_nothing_when_it_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = asyncio.Event()
    async with world.open(audit=False) as km:
        task = await begun_rotation(km, monkeypatch, may_go_on)
    may_go_on.set()
    assert (await task).version == 2
