"""Who reads or writes the database gains nothing by it: of roles, of secret ids, of their tokens."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from sqlalchemy import delete

from keystead.access.callers import Scope
from keystead.access.remembered import REMEMBERED_S
from keystead.access.role_rules import AuditMode
from keystead.access.token_text import SECRET_ID_PREFIX, parse_token
from keystead.errors import InvalidInputError, KeyNotFoundError, UnauthenticatedError
from keystead.manager.access import access
from keystead.ports import RoleKind
from keystead.stores.tables import api_tokens
from tests.access.roles import program
from tests.audit.worlds import waiting
from tests.fakes.clock import FakeClock
from tests.fakes.world import World

REFUSED = r"^invalid role or secret ID$"


ROLE_CHANGES: list[dict[str, Any]] = [
    {"scopes": "transit:*:*"},
    {"rules": '{"audit":"counted","secret_id_ttl_s":1,"secret_id_uses":1,"token_ttl_s":9999999}'},
    {"tenant": "north"},
    {"name": "root"},
    {"code": bytes(32)},
    {"created_at": "2029-01-01T00:00:00.000000Z"},
]


@pytest.mark.parametrize("change", ROLE_CHANGES, ids=lambda change: next(iter(change)))
async def test_who_writes_the_database_makes_no_role_more_than_it_is(clock: FakeClock, change: dict[str, Any]) -> None:
    world = World(clock)
    async with world.open() as km:
        orders = await program(km)
        before = await orders.room.roles.get(RoleKind.APPROLE, "orders")
        (secret,) = await orders.room.roles.secret_ids("orders")
        async with world.store.transaction() as work:
            await work.remove_role(before.id, clock.now())
            await work.add_role(replace(before, **change))
            await work.add_secret_id(secret)
        with pytest.raises(InvalidInputError, match="not as it was made"):
            await orders.logs_in()
        with pytest.raises((InvalidInputError, KeyNotFoundError)):
            await orders.room.roles.create_secret_id("orders")


SECRET_CHANGES: list[dict[str, Any]] = [
    {"uses": 1_000_000},
    {"expires_at": "2099-01-01T00:00:00.000000Z"},
    {"created_at": "2029-01-01T00:00:00.000000Z"},
    {"code": bytes(32)},
    {"key_id": 12345},
]


@pytest.mark.parametrize("change", SECRET_CHANGES, ids=lambda change: next(iter(change)))
async def test_who_writes_the_database_makes_no_secret_id_more_than_it_is(
    clock: FakeClock, change: dict[str, Any]
) -> None:
    world = World(clock)
    async with world.open() as km:
        orders = await program(km)
        (secret,) = await orders.room.roles.secret_ids("orders")
        async with world.store.transaction() as work:
            await work.remove_secret_id(secret.id)
            await work.add_secret_id(replace(secret, **change))
        with pytest.raises(InvalidInputError, match=REFUSED):
            await orders.logs_in()


TOKEN_CHANGES: list[dict[str, Any]] = [
    {"role_id": None},
    {"role_id": None, "ttl_s": None, "ends_by": None, "uses": None, "is_audited_each": False},
    {"ttl_s": 9_999_999},
    {"ends_by": "2099-01-01T00:00:00.000000Z"},
    {"ends_by": None},
    {"uses": 1000},
    {"uses": None},
    {"is_audited_each": False},
    {"scopes": "transit:*:*"},
    {"expires_at": "2099-01-01T00:00:00.000000Z"},
]


@pytest.mark.parametrize("change", TOKEN_CHANGES, ids=str)
async def test_who_writes_the_database_makes_no_token_of_a_role_more_than_it_is(
    clock: FakeClock, change: dict[str, Any]
) -> None:
    world = World(clock)
    async with world.open() as km:
        orders = await program(km, token_max_ttl_s=7200, token_uses=5, audit=AuditMode.EACH)
        text = await orders.logs_in()
        (row,) = await orders.room.tokens.all()
        fresh = replace(row, id="00000000000000aa", **change)
        async with world.store.transaction() as work:
            await work.add_token(fresh)
        with pytest.raises(UnauthenticatedError):
            await orders.room.tokens.authenticate(text.replace(row.id, fresh.id))


async def test_a_plain_token_is_given_no_lease_by_who_writes_the_database(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        room = await access(km)
        made = await room.tokens.create("ada", [Scope.DEVICES_USE])
        changes: list[dict[str, Any]] = [{"uses": 5}, {"ends_by": "2099"}, {"is_audited_each": True}]
        for change in changes:
            row = replace(made.row, **change)
            await _replaced(world, row)
            with pytest.raises(UnauthenticatedError):
                await room.tokens.authenticate("".join(made.text))
            await _replaced(world, made.row)
            await room.tokens.authenticate("".join(made.text))
            clock.advance(REMEMBERED_S)


async def _replaced(world: World, row: Any) -> None:
    """Write a token's row anew, as somebody with the database does."""

    async with world.store.transaction() as work:
        await work._execute(delete(api_tokens).where(api_tokens.c.id == row.id))  # type: ignore[attr-defined]
        await work.add_token(row)


async def test_the_store_holds_nothing_that_could_be_shown(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open(audit=True) as km:
        orders = await program(km)
        text = await orders.logs_in()
        parts = parse_token(orders.secret_id, SECRET_ID_PREFIX)
        assert parts is not None
        (secret,) = await orders.room.roles.secret_ids("orders")
        kept = str(asdict(secret)) + str(await waiting(world))
        for hidden in (orders.secret_id[22:], text[22:], parts.secret.hex()):
            assert hidden not in kept
