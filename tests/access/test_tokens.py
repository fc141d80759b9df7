"""API tokens: shown once, good until they end or are revoked, and of no use to who reads or writes the database."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest

from keystead.access.callers import EVERY_SCOPE, Scope
from keystead.access.remembered import REMEMBERED, REMEMBERED_S
from keystead.access.token_text import TokenParts, parse_token, token_code, token_text
from keystead.access.tokens import KEYRING, NewToken
from keystead.errors import (
    InvalidInputError,
    KeyInUseError,
    KeyNotFoundError,
    StoreRestoredError,
    UnauthenticatedError,
)
from keystead.manager.access import tokens
from keystead.model import Principal
from keystead.ports import TokenRecord
from tests.audit.worlds import actions, waiting
from tests.crypto.vectors import load
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled, session_of

FILE = load("api-token-v1.json")
USE = [Scope.DEVICES_USE]


def text_of(made: NewToken) -> str:
    return "".join(made.text)


@pytest.mark.parametrize("case", FILE["tests"], ids=lambda case: case["comment"])
def test_a_token_is_the_one_that_is_specified(case: dict[str, str]) -> None:
    parts = TokenParts(case["id"], bytes.fromhex(case["secret"]))
    assert token_text(parts) == case["text"]
    assert parse_token(case["text"]) == parts
    row = TokenRecord(
        case["id"],
        case["subject"],
        case["tenant"],
        case["scopes"],
        "",
        case["created"],
        case["expires"] or None,
        1,
        b"",
    )
    assert token_code(bytes.fromhex(FILE["key"]), row, parts.secret).hex() == case["code"]


@pytest.mark.parametrize("case", FILE["invalid"], ids=lambda case: case["comment"])
def test_what_is_no_token_is_refused(case: dict[str, str]) -> None:
    assert parse_token(case["text"]) is None


async def test_a_token_is_good_for_whom_it_was_made_and_what_for(world: World) -> None:
    async with world.open() as km:
        made = await (await tokens(km)).create("ada", [Scope.METRICS_READ, Scope.ACT_AS], tenant="north", label="app")
        caller = await (await tokens(km)).authenticate(text_of(made))
        assert caller.principal == Principal("ada", "north")
        assert caller.scopes == {Scope.METRICS_READ, Scope.ACT_AS}
        assert caller.origin == f"token {made.row.id}"
        assert made.row.scopes == "act-as metrics:read"


async def test_one_character_of_it_does_not_matter_less_than_another(world: World) -> None:
    async with world.open() as km:
        room = await tokens(km)
        whole = text_of(await room.create("ada", USE))
        await room.authenticate(whole)
        wrong = [whole[:at] + ("A" if sign != "A" else "B") + whole[at + 1 :] for at, sign in enumerate(whole)]
        for text in ["", " " + whole, whole + " ", whole.upper(), "\ud800", *wrong]:
            with pytest.raises(UnauthenticatedError, match=r"^no valid token was sent$"):
                await room.authenticate(text)


async def test_a_token_ends_at_its_time_even_if_it_was_good_a_moment_ago(world: World, clock: FakeClock) -> None:
    async with world.open() as km:
        room = await tokens(km)
        text = text_of(await room.create("ada", USE, lifetime=timedelta(seconds=1)))
        clock.advance(0.5)
        await room.authenticate(text)
        clock.advance(0.5)
        with pytest.raises(UnauthenticatedError):
            await room.authenticate(text)


async def test_a_revoked_token_is_refused_at_once_here_and_in_two_seconds_on_every_node(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km, world.open() as other:
        room, elsewhere = await tokens(km), await tokens(other)
        made = await room.create("ada", USE)
        for node in (room, elsewhere):
            await node.authenticate(text_of(made))
        revoked = await room.revoke(made.row.id)
        assert revoked.revoked_at == clock.now()
        assert (await elsewhere.revoke(made.row.id)).revoked_at == clock.now()
        with pytest.raises(KeyNotFoundError, match="keystead token list"):
            await room.revoke("0000000000000000")
        with pytest.raises(UnauthenticatedError):
            await room.authenticate(text_of(made))
    async with world.open() as km, world.open() as other:
        room, elsewhere = await tokens(km), await tokens(other)
        made = await room.create("ada", USE)
        await elsewhere.authenticate(text_of(made))
        await room.revoke(made.row.id)
        clock.advance(REMEMBERED_S)
        with pytest.raises(UnauthenticatedError):
            await elsewhere.authenticate(text_of(made))


async def test_a_node_that_has_not_heard_of_the_tokens_key_yet_fetches_it(world: World) -> None:
    async with world.open() as km, world.open() as other:
        room, elsewhere = await tokens(km), await tokens(other)
        old = await room.create("ada", USE)
        await (await session_of(km)).lifecycle.rotation.rotate(KEYRING, promote="now")
        new = await room.create("ada", USE)
        assert new.row.key_id != old.row.key_id
        for made in (old, new):
            assert (await elsewhere.authenticate(text_of(made))).principal.user == "ada"
        with pytest.raises(KeyInUseError, match=r"1 API token\(s\)"):
            await (await session_of(km)).lifecycle.destruction.schedule(old.row.key_id, without_sources=True)
        await room.revoke(old.row.id)
        await polled(other)
        await (await session_of(km)).lifecycle.destruction.schedule(old.row.key_id, without_sources=True)


CHANGES: list[dict[str, Any]] = [
    {"subject": "root"},
    {"tenant": "north"},
    {"scopes": "devices:use tokens:write"},
    {"scopes": "devices:use devices:use"},
    {"expires_at": None},
    {"expires_at": "2099-01-01T00:00:00.000000Z"},
    {"created_at": "2029-01-01T00:00:00.000000Z"},
    {"code": bytes(32)},
    {"key_id": 12345},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
async def test_who_writes_the_database_makes_no_token_more_than_it_is(world: World, change: dict[str, Any]) -> None:
    async with world.open() as km:
        room = await tokens(km)
        made = await room.create("ada", USE, lifetime=timedelta(days=1))
        row = replace(made.row, **change)
        fresh = replace(row, id="00000000000000aa")
        async with world.store.transaction() as work:
            await work.add_token(fresh)
        forged = text_of(made).replace(made.row.id, fresh.id)
        with pytest.raises(UnauthenticatedError):
            await room.authenticate(forged)


async def test_the_store_holds_nothing_that_could_be_shown(world: World) -> None:
    async with world.open() as km:
        made = await (await tokens(km)).create("ada", USE)
        parts = parse_token(text_of(made))
        assert parts is not None
        kept = str([asdict(row) for row in await (await tokens(km)).all()])
        assert parts.secret.hex() not in kept
        assert text_of(made)[22:] not in kept
        assert repr(made).count("hidden") == 1


async def test_a_scope_of_a_later_release_allows_nothing(world: World) -> None:
    async with world.open() as km:
        room = await tokens(km)
        key_id, key = room.codes.active()
        row = TokenRecord("00000000000000bb", "ada", "", "devices:use of:later", "", "2030", None, key_id, b"")
        parts = TokenParts(row.id, bytes(32))
        async with world.store.transaction() as work:
            await work.add_token(row.with_code(token_code(key, row, parts.secret)))
        assert (await room.authenticate(token_text(parts))).scopes == {Scope.DEVICES_USE}


async def test_good_tokens_are_remembered_and_not_without_bound(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.access.remembered.REMEMBERED", 2)
    assert REMEMBERED > 2
    async with world.open() as km:
        room = await tokens(km)
        texts = [text_of(await room.create(f"user {number}", USE)) for number in range(3)]
        for text in texts:
            await room.authenticate(text)
        assert len(room._good) == 2
        reads = 0

        def counted(*, once: bool, reading: Any = room._store.reading) -> Any:
            nonlocal reads
            reads += 1
            return reading(once=once)

        monkeypatch.setattr(room._store, "reading", counted)
        await asyncio.gather(*(room.authenticate(texts[2]) for _ in range(10)))
        assert reads == 0
        await room.authenticate(texts[0])
        assert reads == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scopes": []}, "at least one"),
        ({"subject": ""}, "1 to 255"),
        ({"tenant": "\n"}, "1 to 255"),
        ({"label": "a\n"}, "a label is"),
        ({"label": "a" * 256}, "a label is"),
        ({"lifetime": timedelta(0)}, "up to ten years"),
        ({"lifetime": timedelta(days=3651)}, "up to ten years"),
    ],
)
async def test_what_cannot_be_a_token_is_refused(clock: FakeClock, given: dict[str, Any], told: str) -> None:
    world = World(clock)
    async with world.open() as km:
        room = await tokens(km)
        with pytest.raises(InvalidInputError, match=told):
            await room.create(**{"subject": "ada", "scopes": USE, **given})
        assert await room.all() == []


async def test_tokens_are_listed_by_tenant_and_each_act_is_in_the_trail(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open(audit=True) as km:
        room = await tokens(km)
        first = await room.create("ada", EVERY_SCOPE, tenant="north")
        clock.advance(1)
        second = await room.create("bob", USE)
        assert [row.id for row in await room.all()] == [second.row.id, first.row.id]
        assert await room.all(tenant="north") == [first.row]
        await room.revoke(first.row.id)
        assert [action for action in await actions(world) if action.startswith("token.")] == [
            "token.create",
            "token.create",
            "token.revoke",
        ]
        assert text_of(first)[22:] not in str(await waiting(world))


async def test_a_restored_store_makes_no_token(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        room = await tokens(km)
        text = text_of(await room.create("ada", USE))
        async with world.store.transaction() as work:
            await work.set_restored(True)
        await polled(km)
        with pytest.raises(StoreRestoredError):
            await room.create("ada", USE)
        assert (await room.authenticate(text)).principal.user == "ada"
