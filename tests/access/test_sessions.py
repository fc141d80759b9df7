"""Sessions at the console: shown by a cookie, ended within seconds, of no use to who reads or writes the database."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from keystead.access.callers import Scope, scopes_of
from keystead.access.remembered import REMEMBERED_S
from keystead.access.removal import AT_ONCE
from keystead.access.sessions import IDLE, KEPT, LONGEST, NewSession
from keystead.access.token_text import SESSION_PREFIX, TokenParts, form_code, parse_token, session_code, token_text
from keystead.errors import KeyNotFoundError, StoreRestoredError, UnauthenticatedError
from keystead.manager.access import Access, access
from keystead.model import Principal, utc_text
from keystead.ports import SessionRecord
from tests.audit.worlds import actions, entry_of, waiting
from tests.crypto.vectors import load
from tests.fakes.clock import FakeClock
from tests.fakes.world import World, polled

FILE = load("console-session-v1.json")
READS = [Scope.KEYRINGS_READ, *scopes_of(["transit:read:orders-*"])]


def text_of(made: NewSession) -> str:
    return "".join(made.text)


async def begun(room: Access, *, lifetime: timedelta | None = None, tenant: str = "") -> NewSession:
    token = await room.tokens.create("ada", READS, tenant=tenant, lifetime=lifetime)
    return await room.sessions.begin_by_token("".join(token.text))


async def refused(room: Access, text: str) -> None:
    with pytest.raises(UnauthenticatedError, match=r"^no valid token was sent$"):
        await room.sessions.authenticate(text)


@pytest.mark.parametrize("case", FILE["tests"], ids=lambda case: case["comment"])
def test_a_session_is_the_one_that_is_specified(case: dict[str, str]) -> None:
    parts = TokenParts(case["id"], bytes.fromhex(case["secret"]))
    assert token_text(parts, SESSION_PREFIX) == case["text"]
    assert parse_token(case["text"], SESSION_PREFIX) == parts
    assert parse_token(case["text"]) is None
    row = SessionRecord(
        case["id"],
        case["subject"],
        case["tenant"],
        case["scopes"],
        case["origin"],
        case["token"] or None,
        case["mode"] == "each",
        case["created"],
        case["expires"],
        1,
        b"",
        datetime.fromisoformat(case["created"]),
    )
    assert session_code(bytes.fromhex(FILE["key"]), row, parts.secret).hex() == case["code"]
    assert form_code(parts.secret) == case["form"]


async def test_a_session_may_what_its_token_may_and_its_forms_have_a_value_of_its_own(world: World) -> None:
    async with world.open(audit=True) as km:
        room = await access(km)
        made, other = await begun(room, tenant="north"), await begun(room)
        found = await room.sessions.authenticate(text_of(made))
        assert found.caller.principal == Principal("ada", "north")
        assert found.caller.scopes == {Scope.KEYRINGS_READ}
        assert found.caller.may_transit("read", "orders-1")
        assert found.caller.origin == f"token {made.row.token_id}"
        assert not found.caller.is_audited_each
        assert found.form != (await room.sessions.authenticate(text_of(other))).form
        assert (await room.tokens.all(tenant="north"))[0].id == made.row.token_id
        assert [row.id for row in await room.sessions.all(tenant="north")] == [made.row.id]
        entry = await entry_of(world, "session.begin")
        assert entry["details"]["origin"] == f"token {other.row.token_id}"
        secrets = [text_of(each).rpartition("_")[2] for each in (made, other)]
        told = str(await waiting(world))
        assert not any(secret in told for secret in secrets)


async def test_a_session_is_begun_by_good_tokens_alone_and_is_none_itself(world: World) -> None:
    async with world.open() as km:
        room = await access(km)
        made = await begun(room)
        for text in ("", "kst1_", "kst1_0123456789abcdef_" + "A" * 43, text_of(made)):
            with pytest.raises(UnauthenticatedError):
                await room.sessions.begin_by_token(text)
            with pytest.raises(UnauthenticatedError):
                await room.tokens.authenticate(text)
        token = await room.tokens.create("ada", READS)
        await refused(room, "".join(token.text))
        for text in ("", "ksc1_0123456789abcdef_" + "A" * 43, text_of(made) + "=", text_of(made)[:-1], "\ud800"):
            await refused(room, text)


async def test_a_session_ends_by_itself_unused_after_half_an_hour_or_after_twelve(
    world: World, clock: FakeClock
) -> None:
    async with world.open() as km:
        room = await access(km)
        used, unused = await begun(room), await begun(room)
        for _ in range(int(LONGEST / IDLE)):
            clock.advance(IDLE.total_seconds() - 1)
            await polled(km)
            await room.sessions.authenticate(text_of(used))
        await refused(room, text_of(unused))
        clock.advance(LONGEST / IDLE)
        await refused(room, text_of(used))
        short = await begun(room, lifetime=timedelta(seconds=10))
        assert (await room.sessions.authenticate(text_of(short))).expires_at == clock.now() + timedelta(seconds=10)
        clock.advance(10)
        await refused(room, text_of(short))


async def test_whoever_ends_a_session_or_revokes_its_token_ends_it_on_every_node(
    world: World, clock: FakeClock
) -> None:
    async with world.open(audit=True) as km, world.open(audit=True) as other:
        room, elsewhere = await access(km), await access(other)
        ended, revoked = await begun(room), await begun(room)
        for each in (ended, revoked):
            await elsewhere.sessions.authenticate(text_of(each))
        assert (await room.sessions.end(ended.row.id)).ended_at == clock.now()
        clock.advance(1)
        assert (await room.sessions.end(ended.row.id)).ended_at == clock.now() - timedelta(seconds=1)
        await refused(room, text_of(ended))
        await room.tokens.revoke(revoked.row.token_id or "")
        clock.advance(REMEMBERED_S - 1)
        assert REMEMBERED_S < 5
        for each in (ended, revoked):
            await refused(elsewhere, text_of(each))
        for tenant, session_id in ((None, "0000000000000000"), ("north", ended.row.id)):
            with pytest.raises(KeyNotFoundError, match="no session"):
                await room.sessions.end(session_id, tenant=tenant)
        assert (await actions(world)).count("session.end") == 1


async def test_what_is_over_is_removed_a_day_later(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.access.removal.AT_ONCE", 2)
    assert AT_ONCE > 2
    async with world.open() as km:
        room = await access(km)
        for _ in range(5):
            await begun(room)
        clock.advance(LONGEST + KEPT)
        await polled(km)
        late = await begun(room)
        assert await room.sessions.upkeep() == 0
        clock.advance(1)
        assert await room.sessions.upkeep() == 5
        assert [row.id for row in await room.sessions.all()] == [late.row.id]


CHANGES: list[dict[str, Any]] = [
    {"subject": "root"},
    {"tenant": "north"},
    {"scopes": "tokens:write"},
    {"origin": "token 0000000000000000"},
    {"token_id": None},
    {"is_audited_each": True},
    {"created_at": "2029-01-01T00:00:00.000000Z"},
    {"expires_at": "2099-01-01T00:00:00.000000Z"},
    {"key_id": 12345},
    {"code": bytes(32)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
async def test_who_writes_the_database_makes_no_session_more_than_it_is(
    clock: FakeClock, change: dict[str, Any]
) -> None:
    world = World(clock)
    async with world.open() as km:
        room = await access(km)
        made = await begun(room)
        async with world.store.transaction() as work:
            await work.remove_ended_sessions(utc_text(clock.now() + LONGEST * 2), 10)
            await work.add_session(replace(made.row, **change))
        await refused(room, text_of(made))
        async with world.store.transaction() as work:
            await work.remove_ended_sessions("9", 10)
            await work.add_session(made.row)
        await room.sessions.authenticate(text_of(made))


async def test_no_session_begins_in_a_store_that_was_put_back(clock: FakeClock) -> None:
    world = World(clock)
    async with world.open() as km:
        room = await access(km)
        token = await room.tokens.create("ada", READS)
        async with world.store.transaction() as work:
            await work.set_restored(True)
    async with world.open() as km:
        room = await access(km)
        with pytest.raises(StoreRestoredError):
            await room.sessions.begin_by_token("".join(token.text))
