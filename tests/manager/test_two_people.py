"""A store that asks for two people: what destroys, forgets and gives rights waits, whoever's process asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keystead.access.approvals import KEPT, TIME, Approvals, Asker, asked_by
from keystead.access.callers import Scope
from keystead.access.role_rules import AppRoleRules
from keystead.errors import (
    ApprovalRequiredError,
    ForbiddenError,
    InvalidInputError,
    KeyInUseError,
    KeyNotFoundError,
    StoreReadOnlyError,
)
from keystead.manager import admin, backup
from keystead.manager.access import access
from keystead.manager.consent import RULE, approvals_of_empty
from keystead.manager.devices import devices
from keystead.manager.manager import KeyManager
from keystead.manager.transit import transit
from keystead.model import DataKeyState, Principal
from keystead.ports import RoleKind, UnitOfWork
from keystead.transit.administration import KeyChanges, NewTransitKey
from tests.audit.worlds import actions
from tests.fakes.world import CountingStore, World, polled

RULES = AppRoleRules(token_ttl_s=60, secret_id_ttl_s=60, secret_id_uses=1)


@dataclass
class Doing:
    """An act, what is there before it and not after it, and that somebody asks for it."""

    km: KeyManager
    act: Callable[[], Awaitable[object]]

    async def by(self, user: str) -> object:
        """Do it as a user."""
        with asked_by(Asker(user)):
            return await self.act()

    async def asks(self, user: str) -> str:
        """Ask for it, and return what has to be approved."""
        with pytest.raises(ApprovalRequiredError, match="keystead approval approve") as caught:
            await self.by(user)
        assert caught.value.approval_id is not None
        return caught.value.approval_id


async def room_of(km: KeyManager) -> Approvals:
    return (await access(km)).approvals


async def old_version(km: KeyManager) -> int:
    first = await admin.create_keyring(km, "orders")
    await admin.rotate_keyring(km, "orders", promote="now")
    return first.id


async def destroying(km: KeyManager) -> Callable[[], Awaitable[object]]:
    key_id = await old_version(km)
    return lambda: admin.schedule_destroy(km, key_id, without_sources=True)


async def forgetting(km: KeyManager) -> Callable[[], Awaitable[object]]:
    await km.subject("carol")
    return lambda: km.forget("carol")


async def forgetting_a_user(km: KeyManager) -> Callable[[], Awaitable[object]]:
    room = await devices(km)
    return lambda: room.owners.forget(Principal("root"), "carol")


async def deleting(km: KeyManager) -> Callable[[], Awaitable[object]]:
    engine = (await transit(km)).administration
    await engine.create("", "orders", NewTransitKey())
    await engine.configure("", "orders", KeyChanges(deletion_allowed=True))
    return lambda: engine.delete("", "orders")


async def trimming(km: KeyManager) -> Callable[[], Awaitable[object]]:
    engine = (await transit(km)).administration
    await engine.create("", "orders", NewTransitKey())
    await engine.rotate("", "orders")
    await engine.configure("", "orders", KeyChanges(min_decryption=2, min_encryption=2))
    return lambda: engine.trim("", "orders", 2)


async def made_role(km: KeyManager, scope: Scope) -> None:
    roles = (await access(km)).roles
    doing = Doing(km, lambda: roles.create("app", [scope], RULES))
    if await km.require_session().consent.holds():
        await (await room_of(km)).approve(await doing.asks("dora"), Asker("erin"))
    await doing.by("dora")


async def making_a_role(km: KeyManager) -> Callable[[], Awaitable[object]]:
    roles = (await access(km)).roles
    return lambda: roles.create("app", [Scope.DEVICES_USE], RULES)


async def deleting_a_role(km: KeyManager) -> Callable[[], Awaitable[object]]:
    await made_role(km, Scope.DEVICES_USE)
    roles = (await access(km)).roles
    return lambda: roles.delete(RoleKind.APPROLE, "app")


async def making_a_token(km: KeyManager) -> Callable[[], Awaitable[object]]:
    tokens = (await access(km)).tokens
    return lambda: tokens.create("mallory", [Scope.APPROVALS_WRITE])


async def making_a_secret_id(km: KeyManager) -> Callable[[], Awaitable[object]]:
    await made_role(km, Scope.KEYRINGS_WRITE)
    roles = (await access(km)).roles
    return lambda: roles.create_secret_id("app")


ACTS = [
    destroying,
    forgetting,
    forgetting_a_user,
    deleting,
    trimming,
    making_a_role,
    deleting_a_role,
    making_a_secret_id,
    making_a_token,
]


@pytest.fixture
async def approvers(world: World, tmp_path: Path) -> KeyManager:
    """A manager of a store that asks for two, which two users approve for."""
    return await with_approvers(world, tmp_path)


async def with_approvers(world: World, tmp_path: Path, **options: Any) -> KeyManager:
    km = world.manager(two_person=True, audit=True, erasures=f"file://{tmp_path}/erasures.log", **options)
    await km.initialize()
    tokens = (await access(km)).tokens
    for user in ("ada", "bob"):
        await tokens.create(user, [Scope.APPROVALS_WRITE])
    return km


@pytest.mark.parametrize("prepare", ACTS, ids=lambda prepare: prepare.__name__)
async def test_an_act_is_done_once_by_whoever_asked_when_somebody_else_has_approved_it(
    approvers: KeyManager, prepare: Callable[[KeyManager], Awaitable[Callable[[], Awaitable[object]]]]
) -> None:
    km = approvers
    doing = Doing(km, await prepare(km))
    room = await room_of(km)
    asked = await doing.asks("ada")
    assert await doing.asks("ada") == asked
    with pytest.raises(ForbiddenError):
        await room.approve(asked, Asker("ada"))
    await room.approve(asked, Asker("bob"))
    assert await doing.asks("bob") != asked
    await doing.by("ada")
    assert (await room.get(asked)).done_at is not None
    with pytest.raises((ApprovalRequiredError, KeyNotFoundError)):
        await doing.by("ada")
    await km.close()


@pytest.mark.parametrize("prepare", ACTS, ids=lambda prepare: prepare.__name__)
async def test_nobody_who_does_not_say_who_asks_does_it(
    approvers: KeyManager, prepare: Callable[[KeyManager], Awaitable[Callable[[], Awaitable[object]]]]
) -> None:
    act = await prepare(approvers)
    before = await (await room_of(approvers)).all()
    with pytest.raises(ApprovalRequiredError, match="KEYSTEAD_TOKEN") as caught:
        await act()
    assert caught.value.approval_id is None
    assert await (await room_of(approvers)).all() == before
    await approvers.close()


@pytest.mark.parametrize("prepare", ACTS, ids=lambda prepare: prepare.__name__)
async def test_without_the_rule_nothing_is_asked(
    world: World, tmp_path: Path, prepare: Callable[[KeyManager], Awaitable[Callable[[], Awaitable[object]]]]
) -> None:
    async with world.open(erasures=f"file://{tmp_path}/erasures.log") as km:
        await (await prepare(km))()
        assert await (await room_of(km)).all() == []


async def test_what_is_refused_is_not_done_that_day(approvers: KeyManager) -> None:
    doing = Doing(approvers, await destroying(approvers))
    await (await room_of(approvers)).refuse(await doing.asks("ada"), Asker("bob"))
    with pytest.raises(ForbiddenError, match="bob has refused this"):
        await doing.by("ada")
    key = await admin.find_key(approvers, "orders/1")
    assert key.state is DataKeyState.DECRYPT_ONLY
    await approvers.close()


async def test_what_stands_in_the_way_spends_no_approval(world: World, tmp_path: Path) -> None:
    found: dict[int, int] = {}

    async def scan(use: object, key_ids: object) -> dict[int, int]:
        return found

    km = await with_approvers(world, tmp_path, key_sources={"people": scan})
    key_id = await old_version(km)
    found[key_id] = 1
    await admin.declare_use(km, "orders", "people", "app:people")
    doing = Doing(km, lambda: admin.schedule_destroy(km, key_id))
    asked = await doing.asks("ada")
    await (await room_of(km)).approve(asked, Asker("bob"))
    with pytest.raises(KeyInUseError):
        await doing.by("ada")
    assert (await (await room_of(km)).get(asked)).done_at is None
    found.clear()
    await doing.by("ada")
    await km.close()


async def test_a_secret_id_of_a_role_that_can_do_no_harm_is_free(approvers: KeyManager) -> None:
    await made_role(approvers, Scope.DEVICES_USE)
    await (await access(approvers)).roles.create_secret_id("app")
    await approvers.close()


async def test_the_store_asks_processes_that_were_not_told(world: World, tmp_path: Path) -> None:
    km = await with_approvers(world, tmp_path)
    await destroying(km)
    assert "approval.begin" in await actions(world)
    with pytest.raises(InvalidInputError, match="two_person: true"):
        await km.require_session().consent.end()
    await km.close()
    async with world.open() as other:
        first = await admin.find_key(other, "orders/1")
        doing = Doing(other, lambda: admin.schedule_destroy(other, first.id, without_sources=True))
        await doing.asks("ada")
        ending = Doing(other, other.require_session().consent.end)
        await (await room_of(other)).approve(await ending.asks("ada"), Asker("bob"))
        await ending.by("ada")
        assert not await other.require_session().consent.holds()
        await doing.act()
        with pytest.raises(InvalidInputError, match="nothing to end"):
            await other.require_session().consent.end()


async def rule_removed(world: World) -> None:
    """Do what somebody can who writes the database and has no key."""
    async with world.store.transaction() as work:
        await work.end_rule(RULE)


async def test_whoever_removes_the_rule_from_the_database_ends_it_for_nobody_who_was_told(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    km = await with_approvers(world, tmp_path)
    doing = Doing(km, await destroying(km))
    await rule_removed(world)
    await doing.asks("ada")
    async with world.open() as untold:
        consent = untold.require_session().consent
        assert not await consent.holds()
        await polled(km)
        assert "its database had no rule of two people any more" in caplog.text
        assert await consent.holds()
    assert [each for each in await actions(world) if each.startswith("approval.")] == [
        "approval.begin",
        "approval.ask",
        "approval.begin",
    ]
    caplog.clear()
    await polled(km)
    assert "rule of two people" not in caplog.text
    await km.close()


async def test_a_store_that_cannot_be_written_asks_whoever_was_told(world: World) -> None:
    async with world.open() as km:
        await old_version(km)

    class ReadOnly(CountingStore):
        @asynccontextmanager
        async def transaction(self, *, once: bool = False) -> AsyncIterator[UnitOfWork]:
            if not once:
                raise StoreReadOnlyError("read only")
            async with super().transaction(once=once) as work:
                yield work

    km = world.manager(two_person=True, store=ReadOnly(world.store))
    await km.initialize()
    assert await km.require_session().consent.holds()
    await km.close()
    async with world.open() as other:
        assert not await other.require_session().consent.holds()


async def test_the_first_who_approve_are_made_freely_and_no_more_afterwards(world: World) -> None:
    async with world.open(two_person=True) as km:
        tokens = (await access(km)).tokens
        made = [await tokens.create("ada", [Scope.APPROVALS_WRITE, Scope.TOKENS_WRITE]) for _ in range(3)]
        await tokens.create("bob", [Scope.APPROVALS_WRITE], lifetime=timedelta(hours=1))
        doing = Doing(km, lambda: tokens.create("carol", [Scope.TOKENS_WRITE]))
        asked = await doing.asks("ada")
        await tokens.create("carol", [Scope.DEVICES_USE, Scope.AUDIT_READ])
        world.clock.advance(3600)
        await doing.act()
        await (await room_of(km)).approve(asked, Asker("bob"))
        for each in made:
            await tokens.revoke(each.row.id)
        await Doing(km, lambda: tokens.create("dora", [Scope.KEYRINGS_WRITE])).asks("ada")


async def test_whoever_takes_the_tokens_of_the_other_does_not_become_two(world: World) -> None:
    async with world.open(two_person=True) as km:
        tokens = (await access(km)).tokens
        await tokens.create("ada", [Scope.APPROVALS_WRITE, Scope.TOKENS_WRITE])
        bob = await tokens.create("bob", [Scope.APPROVALS_WRITE])
        await tokens.revoke(bob.row.id)
        await Doing(km, lambda: tokens.create("mallory", [Scope.APPROVALS_WRITE])).asks("ada")


async def test_what_was_approved_long_ago_still_counts(world: World, tmp_path: Path) -> None:
    km = world.manager(two_person=True)
    await km.initialize()
    room = await access(km)
    await room.tokens.create("ada", [Scope.APPROVALS_WRITE])
    await room.tokens.create("bob", [Scope.APPROVALS_WRITE], lifetime=timedelta(hours=1))
    asked = await Doing(km, lambda: room.tokens.create("carol", [Scope.TOKENS_WRITE])).asks("ada")
    await room.approvals.approve(asked, Asker("bob"))
    world.clock.advance(KEPT + TIME + timedelta(seconds=1))
    await polled(km)
    assert await room.approvals.upkeep() == 1
    await Doing(km, lambda: room.tokens.create("dora", [Scope.TOKENS_WRITE])).asks("ada")
    await km.close()


async def test_whoever_approves_for_one_tenant_is_nobody_to_ask_about_another(world: World) -> None:
    async with world.open(two_person=True) as km:
        tokens = (await access(km)).tokens
        for user in ("ada", "bob"):
            await tokens.create(user, [Scope.APPROVALS_WRITE], tenant="north")
        await Doing(km, lambda: tokens.create("carol", [Scope.TOKENS_WRITE], tenant="north")).asks("ada")
        await tokens.create("dora", [Scope.APPROVALS_WRITE])
        await tokens.create("erin", [Scope.APPROVALS_WRITE])
        for tenant in ("", "south"):
            act = partial(tokens.create, "carol", [Scope.TOKENS_WRITE], tenant=tenant)
            await Doing(km, act).asks("dora")


async def test_an_export_is_imported_by_two_accounts(world: World) -> None:
    async with world.open() as km:
        export = backup.read_export(await backup.export_text(km))
    empty = replace(world)
    empty.kms = world.kms
    km = empty.manager(two_person=True)
    doing = Doing(km, lambda: backup.import_export(km, export))
    asked = await doing.asks("account ada")
    room = approvals_of_empty(km.surroundings())
    with pytest.raises(ForbiddenError):
        await room.approve(asked, Asker("account ada"))
    await room.approve(asked, Asker("account bob"))
    other = replace(export, exported_at=export.exported_at + timedelta(seconds=1))
    await Doing(km, lambda: backup.import_export(km, other)).asks("account ada")
    await doing.by("account ada")
    await km.close()
    async with empty.open(two_person=True) as restored:
        assert restored.require_session().is_restored
        assert await restored.require_session().consent.holds()
        await backup.recover(restored)
        await (await access(restored)).tokens.create("ada", [Scope.APPROVALS_WRITE])
