"""Approvals: one asks, another says yes, within a day; who writes the database says nothing for anybody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from keystead.access.approvals import (
    KEPT,
    TIME,
    Approvals,
    Asker,
    Standing,
    asked_by,
    current_asker,
    details_of,
    standing_of,
    words_of,
)
from keystead.access.callers import Scope
from keystead.access.removal import AT_ONCE
from keystead.access.token_text import approval_code
from keystead.errors import ConflictError, ForbiddenError, KeyNotFoundError, KeyStateError
from keystead.manager.access import access
from keystead.manager.manager import KeyManager
from keystead.model import Act, Action, utc_text
from keystead.ports import ApprovalRecord
from tests.audit.worlds import actions, entry_of
from tests.crypto.vectors import load
from tests.fakes.world import World, polled

FILE = load("approval-v1.json")
BOB = Asker("bob")
ACT = Act(Action.KEY_DESTROY, "orders/1", {"wait_s": 2_592_000, "without_sources": False})


async def waiting(world: World, *, tenant: str | None = None) -> int:
    async with world.store.reading() as work:
        return await work.count_waiting(utc_text(world.clock.now()), tenant=tenant, limit=10)


async def days_later(world: World, km: KeyManager, later: timedelta = TIME) -> None:
    world.clock.advance(later)
    await polled(km)


async def room_of(km: KeyManager) -> Approvals:
    return (await access(km)).approvals


@pytest.mark.parametrize("case", FILE["tests"], ids=lambda case: case["comment"])
def test_a_code_is_the_one_that_is_specified(case: dict[str, Any]) -> None:
    act = Act(Action(case["action"]), case["target"], case["details"], case["tenant"])
    assert act.details_text() == case["details_text"]
    row = ApprovalRecord(
        id=case["id"],
        action=case["action"],
        target=case["target"],
        details=case["details_text"],
        tenant=case["tenant"],
        asked_by=case["asked_by"],
        created_at=case["created"],
        expires_at=case["expires"],
        key_id=1,
        code=b"",
        verdict=case["verdict"],
        decided_by=case["decided_by"],
        decided_at=case["decided"],
    )
    assert approval_code(bytes.fromhex(FILE["key"]), row).hex() == case["code"]


async def test_what_somebody_else_approves_is_found_until_it_is_done(world: World) -> None:
    async with world.open(audit=True) as km:
        room = await room_of(km)
        assert await room.find(ACT, "ada") is None
        row = await room.ask(ACT, "ada")
        assert standing_of(row, world.clock.now()) is Standing.WAITING
        assert details_of(row) == ACT.details
        assert await room.find(ACT, "ada") == row
        assert await waiting(world) == 1
        approved = await room.approve(row.id, BOB)
        assert (approved.decided_by, standing_of(approved, world.clock.now())) == ("bob", Standing.APPROVED)
        assert await room.find(ACT, "ada") == approved == await room.get(row.id)
        assert await waiting(world) == 0
        await room.finish(approved)
        assert await room.find(ACT, "ada") is None
        assert standing_of(await room.get(row.id), world.clock.now()) is Standing.DONE
        told = await entry_of(world, "approval.approve")
        assert told["details"] == {
            "approval": row.id,
            "act": "key.destroy",
            "target": "orders/1",
            "asked_by": "ada",
            "decided_by": "bob",
        }
        assert [each for each in await actions(world) if each.startswith("approval.")] == [
            "approval.ask",
            "approval.approve",
            "approval.use",
        ]


@pytest.mark.parametrize(
    "other",
    [
        Act(Action.KEY_DESTROY, "orders/2", ACT.details),
        Act(Action.KEY_DESTROY, "orders/1", {"wait_s": 604_800, "without_sources": False}),
        Act(Action.TRANSIT_DELETE, "orders/1", ACT.details),
        Act(Action.KEY_DESTROY, "orders/1", ACT.details, "north"),
    ],
)
async def test_nothing_else_is_approved_and_for_nobody_else(world: World, other: Act) -> None:
    async with world.open() as km:
        room = await room_of(km)
        await room.approve((await room.ask(ACT, "ada")).id, BOB)
        assert await room.find(other, "ada") is None
        assert await room.find(ACT, "carol") is None


@pytest.mark.parametrize("same", ["ada", "Ada", " ada", "ADA "])
async def test_nobody_approves_what_they_ask_for_themselves(world: World, same: str) -> None:
    async with world.open() as km:
        room = await room_of(km)
        row = await room.ask(ACT, "ada")
        with pytest.raises(ForbiddenError, match="somebody else"):
            await room.approve(row.id, Asker(same))
        assert await room.get(row.id) == row


async def test_there_is_one_answer_and_a_day_for_it(world: World) -> None:
    async with world.open() as km:
        room = await room_of(km)
        refused = await room.refuse((await room.ask(ACT, "ada")).id, BOB)
        assert await room.find(ACT, "ada") == refused
        for decide in (room.approve, room.refuse):
            with pytest.raises(KeyStateError, match="refused"):
                await decide(refused.id, Asker("carol"))
        await days_later(world, km)
        assert await room.find(ACT, "ada") is None
        late = await room.ask(ACT, "ada")
        approved = await room.ask(replace(ACT, target="orders/2"), "ada")
        await room.approve(approved.id, BOB)
        await days_later(world, km)
        with pytest.raises(KeyStateError, match="expired"):
            await room.approve(late.id, BOB)
        assert await room.find(replace(ACT, target="orders/2"), "ada") is None
        assert standing_of(await room.get(approved.id), world.clock.now()) is Standing.EXPIRED


async def test_of_two_answers_at_once_one_counts(world: World) -> None:
    async with world.open() as km:
        room = await room_of(km)
        row = await room.ask(ACT, "ada")
        outcomes = await asyncio.gather(
            *(room.refuse(row.id, Asker(f"refuser-{n}")) for n in range(4)),
            *(room.approve(row.id, Asker(f"approver-{n}")) for n in range(4)),
            return_exceptions=True,
        )
        said = [each for each in outcomes if isinstance(each, ApprovalRecord)]
        assert [await room.get(row.id)] == said
        assert all(isinstance(each, ConflictError | KeyStateError) for each in outcomes if each not in said)


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "approved", "decided_by": "bob", "decided_at": "2026-01-01T00:00:00.000000Z"},
        {"target": "orders/2"},
        {"asked_by": "carol"},
        {"expires_at": "2999-01-01T00:00:00.000000Z"},
        {"key_id": 0, "verdict": "approved"},
    ],
    ids=", ".join,
)
async def test_whoever_writes_the_database_approves_nothing(world: World, change: dict[str, Any]) -> None:
    async with world.open() as km:
        room = await room_of(km)
        row = await room.ask(ACT, "ada")
        forged = replace(row, id="f" * 16, **change)
        if forged.key_id == 0:
            forged = forged.with_code(0, approval_code(b"", forged))
        async with world.store.transaction() as work:
            await work.add_approval(forged)
        act = replace(ACT, target=forged.target)
        found = await room.find(act, forged.asked_by)
        assert found is None or found.id == row.id
        with pytest.raises((ForbiddenError, KeyStateError)):
            await room.approve(forged.id, Asker("dora"))


async def test_approvals_of_a_tenant_are_seen_and_decided_by_its_own(world: World) -> None:
    async with world.open() as km:
        room = await room_of(km)
        north = await room.ask(Act(Action.USER_FORGET, "carol", tenant="north"), "ada")
        store = await room.ask(ACT, "ada")
        assert [row.id for row in await room.all(tenant="north")] == [north.id]
        assert {row.id for row in await room.all()} == {north.id, store.id}
        assert await waiting(world, tenant="north") == 1
        for answer in (room.approve, room.refuse):
            with pytest.raises(KeyNotFoundError):
                await answer(store.id, Asker("bob", "north"))
            with pytest.raises(KeyNotFoundError):
                await answer(north.id, Asker("bob", "south"))
        assert (await room.approve(north.id, Asker("bob", "north"))).verdict == "approved"
        assert (await room.approve(store.id, BOB)).verdict == "approved"


async def test_what_ended_long_ago_is_removed(world: World) -> None:
    async with world.open() as km:
        room = await room_of(km)
        old = await room.ask(ACT, "ada")
        await days_later(world, km, KEPT + TIME + timedelta(seconds=1))
        new = await room.ask(ACT, "ada")
        assert AT_ONCE > 1
        assert await room.upkeep() == 1
        assert [row.id for row in await room.all()] == [new.id]
        with pytest.raises(KeyNotFoundError, match="approval list"):
            await room.get(old.id)


async def test_whoever_lacks_the_scope_answers_nothing_but_takes_back_their_own(world: World) -> None:
    async with world.open() as km:
        room = await room_of(km)
        row = await room.ask(ACT, "ada")
        for answer in (room.approve, room.refuse):
            with pytest.raises(ForbiddenError, match="approvals:write"):
                await answer(row.id, Asker("bob", scopes=frozenset(Scope) - {Scope.APPROVALS_WRITE}))
        assert (await room.refuse(row.id, Asker("ada", scopes=frozenset()))).decided_by == "ada"


def test_who_asks_is_said_for_a_block_and_needs_what_the_act_takes() -> None:
    assert current_asker() is None
    with asked_by(Asker("ada", scopes=frozenset({Scope.DEVICES_USE}))) as _:
        asker = current_asker()
        assert asker is not None
        with pytest.raises(ForbiddenError, match="keyrings:write"):
            asker.require(ACT)
    assert current_asker() is None
    Asker("ada").require(ACT)
    Asker("ada", scopes=frozenset({Scope.KEYRINGS_WRITE})).require(ACT)


def test_whoever_is_of_a_tenant_asks_for_what_is_of_it() -> None:
    of_north = replace(ACT, tenant="north")
    Asker("ada").require(of_north)
    Asker("ada", "north").require(of_north)
    for foreign in (ACT, replace(ACT, tenant="south")):
        with pytest.raises(ForbiddenError, match="of another tenant"):
            Asker("ada", "north").require(foreign)


async def test_every_detail_of_an_act_has_words(world: World) -> None:
    given: dict[str, str | int | bool | None] = {
        "wait_s": 2_592_000,
        "without_sources": True,
        "min_available": 2,
        "kind": "approle",
        "role": "r",
        "scopes": "devices:use",
        "rules": "{}",
        "label": "",
        "lifetime_s": None,
        "exported_at": "2030-01-01T00:00:00.000000Z",
        "sha256": "ab",
    }
    async with world.open() as km:
        told = words_of(await (await room_of(km)).ask(Act(Action.TOKEN_CREATE, "carol", given), "ada"))
    assert len({name for name, _ in told}) == len(given)
    assert ("waits", "30d") in told
    assert ("good for", "no end") in told
