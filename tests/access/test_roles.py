"""AppRoles: programs log in as often and as long as was said, on all nodes together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.access.callers import Scope
from keystead.access.remembered import REMEMBERED_S
from keystead.access.role_rules import AppRoleRules, AuditMode, rules_of
from keystead.access.tokens import KEYRING
from keystead.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    KeyInUseError,
    KeyNotFoundError,
    KMSError,
    StoreRestoredError,
    UnauthenticatedError,
)
from keystead.manager.access import access
from keystead.model import Principal, utc_text
from keystead.ports import RoleKind
from keystead.stores import open_store
from keystead.stores.schema import migrate
from tests.access.roles import SCOPES, approle, jwt_role, program
from tests.audit.worlds import actions
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled, session_of

REFUSED = r"^invalid role or secret ID$"


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> AsyncIterator[World]:
    """A KMS, a clock and a store that several nodes share."""
    made = World(clock)
    is_file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/keys.db" if is_file else request.getfixturevalue("postgres_url")
    migrate(url)
    made.store = open_store(url)
    yield made
    await made.store.aclose()


async def test_a_program_gets_a_token_that_may_what_its_role_says_until_it_ends(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        orders = await program(km, tenant="north", audit=AuditMode.EACH)
        text = await orders.logs_in()
        caller = await orders.room.tokens.authenticate(text)
        assert caller.principal == Principal("approle:orders", "north")
        assert caller.may_transit("encrypt", "orders-eu")
        assert not caller.may_transit("decrypt", "orders-eu")
        assert caller.is_audited_each
        clock.advance(3599)
        await orders.room.tokens.authenticate(text)
        clock.advance(1)
        with pytest.raises(UnauthenticatedError):
            await orders.room.tokens.authenticate(text)


async def test_of_many_logins_at_once_on_two_nodes_exactly_as_many_succeed_as_were_allowed(world: World) -> None:
    async with world.open() as km, world.open() as other:
        orders, elsewhere = await program(km, secret_id_uses=5), await access(other)

        async def tried(number: int) -> str | None:
            try:
                return await orders.logs_in(elsewhere if number % 2 else None)
            except InvalidInputError:
                return None

        texts = [text for text in await asyncio.gather(*map(tried, range(20))) if text is not None]
        assert len(set(texts)) == 5
        for text in texts:
            assert (await elsewhere.tokens.authenticate(text)).principal.user == "approle:orders"
        (secret,) = await orders.room.roles.secret_ids("orders")
        assert (secret.uses, secret.used) == (5, 5)


async def test_a_secret_id_ends_when_it_is_used_not_when_it_is_tidied(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        orders = await program(km, secret_id_ttl_s=60)
        clock.advance(59)
        await orders.logs_in()
        clock.advance(1)
        with pytest.raises(InvalidInputError, match=REFUSED):
            await orders.logs_in()
        assert len(await orders.room.roles.secret_ids("orders")) == 1
        assert await orders.room.roles.upkeep() == 1
        assert await orders.room.roles.secret_ids("orders") == []


async def test_what_does_not_go_together_is_refused_in_one_way(world: World) -> None:
    async with world.open() as km:
        orders, billing = await program(km), await program(km, "billing")
        whole = orders.secret_id
        forged = whole[:-2] + ("A" if whole[-2] != "A" else "B") + whole[-1]
        token = await orders.logs_in()
        logins = orders.room.logins
        for role_id, secret_id in [
            (billing.role_id, whole),
            (orders.role_id, billing.secret_id),
            (orders.role_id, forged),
            (orders.role_id, whole.upper()),
            (orders.role_id, whole + " "),
            (orders.role_id, token),
            (orders.role_id, "\ud800"),
            ("nobody", whole),
        ]:
            with pytest.raises(InvalidInputError, match=REFUSED):
                await logins.approle(role_id, secret_id)
        with pytest.raises(UnauthenticatedError):
            await orders.room.tokens.authenticate(whole)


async def test_who_names_another_tenant_does_not_log_in_and_spends_nothing(world: World) -> None:
    async with world.open() as km:
        orders = await program(km, tenant="north", secret_id_uses=1)
        for tenant in ("", "south"):
            with pytest.raises(ForbiddenError):
                await orders.room.logins.approle(orders.role_id, orders.secret_id, tenant=tenant)
        login = await orders.room.logins.approle(orders.role_id, orders.secret_id, tenant="north")
        assert login.token.row.tenant == "north"


async def test_a_deleted_role_ends_its_logins_at_once_and_its_tokens_in_seconds_on_every_node(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km, world.open() as other:
        orders, elsewhere = await program(km), await access(other)
        kept = await (await program(km, "billing")).logs_in()
        text = await orders.logs_in()
        await elsewhere.tokens.authenticate(text)
        assert await orders.room.roles.delete(RoleKind.APPROLE, "orders") == 1
        clock.advance(REMEMBERED_S)
        assert REMEMBERED_S < 5
        for room in (orders.room, elsewhere):
            with pytest.raises(UnauthenticatedError):
                await room.tokens.authenticate(text)
            with pytest.raises(InvalidInputError, match=REFUSED):
                await orders.logs_in(room)
            await room.tokens.authenticate(kept)
        with pytest.raises(KeyNotFoundError, match="token role list"):
            await orders.room.roles.get(RoleKind.APPROLE, "orders")


async def test_no_token_is_left_of_a_role_that_is_deleted_while_programs_log_in(world: World) -> None:
    async with world.open() as km, world.open() as other:
        orders, elsewhere = await program(km), await access(other)

        async def tried(number: int) -> str | None:
            try:
                return await orders.logs_in(elsewhere if number % 2 else None)
            except KMSError:
                return None

        *texts, _ = await asyncio.gather(
            *map(tried, range(10)), elsewhere.roles.delete(RoleKind.APPROLE, "orders"), return_exceptions=False
        )
        for row in await orders.room.tokens.all():
            assert row.revoked_at is not None
        for text in filter(None, texts):
            with pytest.raises(UnauthenticatedError):
                await orders.room.tokens.authenticate(str(text))


async def test_a_deleted_secret_id_lets_nobody_in_and_those_who_are_in_stay(world: World) -> None:
    async with world.open() as km:
        orders = await program(km)
        text = await orders.logs_in()
        (secret,) = await orders.room.roles.secret_ids("orders")
        await program(km, "billing")
        with pytest.raises(KeyNotFoundError, match="secret-id list"):
            await orders.room.roles.delete_secret_id("billing", secret.id)
        await orders.room.roles.delete_secret_id("orders", secret.id)
        with pytest.raises(InvalidInputError, match=REFUSED):
            await orders.logs_in()
        await orders.room.tokens.authenticate(text)


async def test_a_token_is_renewed_up_to_the_longest_life_and_no_further(world: World, clock: FakeClock) -> None:
    async with world.open() as km, world.open() as other:
        orders, elsewhere = await program(km, token_ttl_s=100, token_max_ttl_s=250), await access(other)
        text = await orders.logs_in()
        clock.advance(90)
        renewed = await orders.room.tokens.renew(text)
        assert (renewed.ttl_s, renewed.asked_s) == (100, None)
        clock.advance(90)
        await elsewhere.tokens.authenticate(text)
        renewed = await elsewhere.tokens.renew(text, 500)
        assert (renewed.ttl_s, renewed.asked_s) == (70, 500)
        clock.advance(69)
        await orders.room.tokens.authenticate(text)
        assert (await orders.room.tokens.renew(text)).ttl_s == 1
        clock.advance(1)
        for act in (orders.room.tokens.authenticate, orders.room.tokens.renew):
            with pytest.raises(UnauthenticatedError):
                await act(text)


async def test_a_token_that_was_not_made_to_be_renewed_is_not(world: World) -> None:
    async with world.open() as km:
        orders = await program(km)
        mine = await orders.room.tokens.create("ada", [Scope.DEVICES_USE], lifetime=timedelta(hours=1))
        for text in (await orders.logs_in(), "".join(mine.text)):
            with pytest.raises(InvalidInputError, match=r"^lease is not renewable$"):
                await orders.room.tokens.renew(text)


async def test_of_two_renewals_at_once_none_is_lost_and_none_is_half_done(world: World) -> None:
    async with world.open() as km, world.open() as other:
        orders, elsewhere = await program(km, token_ttl_s=100, token_max_ttl_s=10_000), await access(other)
        text = await orders.logs_in()

        async def renewed(room: Any, increment_s: int) -> int | None:
            try:
                return int((await room.tokens.renew(text, increment_s)).ttl_s)
            except ConflictError:
                return None

        ends = await asyncio.gather(renewed(orders.room, 200), renewed(elsewhere, 300))
        assert any(ends)
        (row,) = await orders.room.tokens.all()
        await orders.room.tokens.authenticate(text)
        assert row.expires_at in {utc_text(world.clock.now() + timedelta(seconds=end)) for end in ends if end}


async def test_a_token_for_some_uses_is_good_for_so_many_on_all_nodes_together(world: World) -> None:
    async with world.open() as km, world.open() as other:
        orders, elsewhere = await program(km, token_uses=3), await access(other)
        text = await orders.logs_in()

        async def tried(number: int) -> bool:
            try:
                await (elsewhere if number % 2 else orders.room).tokens.authenticate(text)
            except UnauthenticatedError:
                return False
            return True

        assert sum(await asyncio.gather(*map(tried, range(10)))) == 3


async def test_each_act_and_each_login_is_in_the_trail(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open(audit=True) as km:
        orders = await program(km, token_max_ttl_s=7200, secret_id_uses=1)
        text = await orders.logs_in()
        with pytest.raises(InvalidInputError):
            await orders.logs_in()
        await orders.room.tokens.renew(text)
        (secret,) = await orders.room.roles.secret_ids("orders")
        await orders.room.roles.delete_secret_id("orders", secret.id)
        await orders.room.roles.delete(RoleKind.APPROLE, "orders")
        ours = ("role.", "secret_id.", "token.")
        assert [action for action in await actions(world) if action.startswith(ours)] == [
            "role.create",
            "secret_id.create",
            "role.login",
            "token.renew",
            "secret_id.delete",
            "role.delete",
        ]


async def test_roles_of_one_name_are_told_apart_by_kind_and_tenant(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        roles = (await access(km)).roles
        made = [
            await roles.create("orders", SCOPES, approle()),
            await roles.create("orders", SCOPES, approle(), tenant="north"),
            await roles.create("orders", SCOPES, jwt_role(issuer="https://idp.example")),
        ]
        with pytest.raises(ConflictError, match="there is a role 'orders'"):
            await roles.create("orders", SCOPES, approle())
        assert {row.id for row in await roles.all()} == {row.id for row in made}
        assert await roles.all(RoleKind.APPROLE, tenant="north") == [made[1]]
        assert await roles.get(RoleKind.JWT, "orders") == made[2]
        assert rules_of(made[0], AppRoleRules) == approle()


async def test_tokens_that_ended_long_ago_are_removed_and_those_made_by_hand_are_kept(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.access.removal.AT_ONCE", 2)
    monkeypatch.setattr("keystead.access.roles.KEPT", timedelta(seconds=100))
    world = World(clock)
    async with world.open() as km:
        orders = await program(km, token_ttl_s=60)
        mine = await orders.room.tokens.create("ada", [Scope.DEVICES_USE], lifetime=timedelta(seconds=1))
        for _ in range(5):
            await orders.logs_in()
        clock.advance(60 + 100)
        late = await orders.logs_in()
        assert await orders.room.roles.upkeep() == 0
        clock.advance(1)
        assert await orders.room.roles.upkeep() == 5
        assert {row.id for row in await orders.room.tokens.all()} == {mine.row.id, late[5:21]}


async def test_the_key_of_a_role_is_not_destroyed_under_it(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        orders = await program(km)
        row = await orders.room.roles.get(RoleKind.APPROLE, "orders")
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(KEYRING, promote="now")
        with pytest.raises(KeyInUseError, match=r"2 role\(s\) and secret id\(s\)"):
            await session.lifecycle.destruction.schedule(row.key_id, without_sources=True)
        await orders.logs_in()
        await orders.room.roles.delete(RoleKind.APPROLE, "orders")
        await session.lifecycle.destruction.schedule(row.key_id, without_sources=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"token_ttl_s": 0}, "a token's TTL"),
        ({"token_ttl_s": 400_000_000}, "a token's TTL"),
        ({"token_max_ttl_s": 10}, "no shorter"),
        ({"token_uses": 0}, "uses of a token"),
        ({"secret_id_ttl_s": 0}, "secret id's TTL"),
        ({"secret_id_uses": 0}, "logins with a secret id"),
        ({"secret_id_uses": -1}, "logins with a secret id"),
    ],
)
async def test_what_cannot_be_a_role_is_refused(clock: FakeClock, change: dict[str, Any], told: str) -> None:
    world = World(clock)
    async with world.open() as km:
        roles = (await access(km)).roles
        with pytest.raises(InvalidInputError, match=told):
            await roles.create("orders", SCOPES, approle(**change))
        for name in ("", "a b", "-a", "a/b", "a" * 65):
            with pytest.raises(InvalidInputError, match="a role's name"):
                await roles.create(name, SCOPES, approle())
        with pytest.raises(InvalidInputError, match="at least one"):
            await roles.create("orders", [], approle())
        assert await roles.all() == []


async def test_a_restored_store_lets_nobody_log_in(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        orders = await program(km)
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await polled(km)
        with pytest.raises(StoreRestoredError):
            await orders.logs_in()
