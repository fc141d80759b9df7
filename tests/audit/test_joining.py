"""A process that joins a trail which was begun meanwhile: what its other tasks do in the midst of that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from keystead.errors import ConflictError
from keystead.ledger.audit.trail import Trail
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.manager import admin
from keystead.model import AUDIT_KEYRING
from keystead.ports import AuditEvent, KeyUse
from tests.audit.places import Place, auditing_of, seal
from tests.fakes.world import World, session_of

Meanwhile = Callable[[], Awaitable[object]]


def while_it_loads(monkeypatch: pytest.MonkeyPatch, live: LiveKeyrings, meanwhile: Meanwhile) -> None:
    """Have something happen once, when the keyring of trails is about to be loaded."""
    load = live.load

    async def slow(name: str, **how: Any) -> Any:
        if name == AUDIT_KEYRING:
            monkeypatch.setattr(live, "load", load)
            await meanwhile()
        return await load(name, **how)

    monkeypatch.setattr(live, "load", slow)


def while_it_begins_a_session(monkeypatch: pytest.MonkeyPatch, trail: Trail, meanwhile: Meanwhile) -> None:
    """Have something happen once, when the trail is on and nobody can write into it yet."""
    begin = trail._begin_session

    async def slow(before: Any) -> None:
        monkeypatch.setattr(trail, "_begin_session", begin)
        await meanwhile()
        await begin(before)

    monkeypatch.setattr(trail, "_begin_session", slow)


async def test_what_another_task_changes_while_its_process_joins_is_in_the_trail(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open() as late:
        await km.audit.begin()
        changes: list[asyncio.Task[Any]] = []

        async def rotated() -> None:
            changes.append(asyncio.create_task(late.rotate_data_key(promote="now")))
            await asyncio.wait(changes, timeout=0.05)

        while_it_loads(monkeypatch, (await session_of(late)).live, rotated)
        await auditing_of(late).join()
        version = (await changes[0]).version
        await km.audit.sequenced()
        told = [each.details["version"] for each in await km.audit.entries(action="key.rotate")]
        assert told == [version]
        assert (await km.audit.verify(compares_store=True)).differences == []


@pytest.mark.parametrize("is_on", [False, True])
async def test_a_change_that_had_begun_before_its_process_joined_is_refused_and_can_be_made_again(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch, is_on: bool
) -> None:
    place = sqlite_place
    async with place.open(audit=None) as km, place.open(audit=None) as late:
        await km.audit.begin()
        auditing, session = auditing_of(late), await session_of(late)
        has_begun, may_end = asyncio.Event(), asyncio.Event()

        async def declare() -> None:
            async with session.surroundings.store.transaction() as work:
                has_begun.set()
                await may_end.wait()
                await work.declare_use(KeyUse("people", "default", "app:people"))
                await session.surroundings.audit.record(work, AuditEvent("use.declare"))

        change = asyncio.create_task(declare())
        await has_begun.wait()

        async def end() -> None:
            may_end.set()
            await asyncio.wait({change})

        if is_on:
            while_it_begins_a_session(monkeypatch, auditing.trail, end)
        else:
            while_it_loads(monkeypatch, session.live, end)
        await auditing.join()
        with pytest.raises(ConflictError):
            await change
        assert auditing.trail.is_on
        await declare()
        await seal(km)
        assert len(await km.audit.entries(action="use.declare")) == 1


async def test_a_key_that_another_task_loads_while_its_process_joins_is_not_used_unrecorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open() as late:
        await km.keyring("people")
        await km.audit.begin()
        loads: list[asyncio.Task[Any]] = []

        async def loaded() -> None:
            loads.append(asyncio.create_task(late.keyring("people", create=False)))
            await asyncio.wait(loads)

        while_it_loads(monkeypatch, (await session_of(late)).live, loaded)
        await auditing_of(late).join()
        with pytest.raises(ConflictError):
            await loads[0]
        await late.keyring("people", create=False)
        await km.audit.sequenced()
        told = [(each.node, each.keyring) for each in await km.audit.entries(action="key.load")]
        assert (auditing_of(late).trail.node, "people") in told


async def test_what_waits_while_joining_fails_is_refused_and_joins_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open() as late:
        await km.audit.begin()
        changes: list[asyncio.Task[Any]] = []

        async def failed() -> None:
            declared = admin.declare_use(late, "default", "people", "app:people")
            changes.append(asyncio.create_task(declared))
            await asyncio.wait(changes, timeout=0.05)
            raise ConflictError("somebody was faster")

        while_it_loads(monkeypatch, (await session_of(late)).live, failed)
        with pytest.raises(ConflictError, match="faster"):
            await auditing_of(late).join()
        with pytest.raises(ConflictError, match="begun meanwhile"):
            await changes[0]
        await admin.declare_use(late, "default", "people", "app:people")
        assert auditing_of(late).trail.is_on
        await km.audit.sequenced()
        assert len(await km.audit.entries(action="use.declare")) == 1
