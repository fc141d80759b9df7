"""Roles and secret ids as rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from keystead.errors import ConflictError
from keystead.model import utc_text
from keystead.ports import KeyStore, RoleKind, RoleRecord, SecretIdRecord
from tests.stores.test_token_rows import NOW, TOKEN

ROLE = RoleRecord("role-1", RoleKind.APPROLE, "", "orders", "transit:sign:*", "{}", utc_text(NOW), 7, bytes(32))
SECRET = SecretIdRecord("0123456789abcdef", "role-1", utc_text(NOW), utc_text(NOW + timedelta(days=1)), 2, 8, bytes(32))


async def filled(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.add_role(ROLE)
        await work.add_secret_id(SECRET)


async def test_what_was_put_in_comes_out(store: KeyStore) -> None:
    await filled(store)
    other = replace(ROLE, id="role-2", kind=RoleKind.JWT, tenant="north", created_at=utc_text(NOW + timedelta(days=1)))
    async with store.transaction() as work:
        await work.add_role(other)
    async with store.reading() as work:
        assert await work.find_role("role-1") == ROLE
        assert await work.find_role("role-9") is None
        assert await work.find_role_named(RoleKind.JWT, "north", "orders") == other
        assert await work.find_role_named(RoleKind.JWT, "", "orders") is None
        assert await work.roles() == [other, ROLE]
        assert await work.roles(RoleKind.APPROLE) == [ROLE]
        assert await work.roles(tenant="north") == [other]
        assert await work.roles(after=(other.created_at, other.id), limit=1) == [ROLE]
        assert await work.find_secret_id(SECRET.id) == SECRET
        assert await work.secret_ids("role-1") == [SECRET]
        assert await work.secret_ids("role-2") == []
        assert [await work.count_roles(key_id) for key_id in (7, 8, 9)] == [2, 1, 0]
    with pytest.raises(ConflictError):
        async with store.transaction() as work:
            await work.add_role(replace(ROLE, id="role-3"))


async def test_a_secret_id_is_used_so_often_and_no_more(store: KeyStore) -> None:
    await filled(store)
    async with store.transaction() as work:
        assert [await work.use_secret_id(SECRET.id, 2) for _ in range(3)] == [True, True, False]
        assert not await work.use_secret_id("f" * 16, 2)
        assert await work.find_secret_id(SECRET.id) == replace(SECRET, used=2)


async def test_what_has_ended_is_removed(store: KeyStore) -> None:
    await filled(store)
    ended = replace(TOKEN, id="00000000000000aa", role_id="role-1", expires_at=utc_text(NOW))
    async with store.transaction() as work:
        await work.add_token(TOKEN)
        await work.add_token(ended)
        assert await work.remove_ended_secret_ids(utc_text(NOW)) == 0
        assert await work.remove_ended_secret_ids(SECRET.expires_at) == 1
        assert await work.remove_ended_tokens(utc_text(NOW), 10) == 0
        later = utc_text(NOW + timedelta(seconds=1))
        assert [await work.remove_ended_tokens(later, 10) for _ in range(2)] == [1, 0]
        assert await work.tokens() == [TOKEN]


async def test_a_role_goes_with_its_secret_ids_and_its_tokens_are_revoked(store: KeyStore) -> None:
    await filled(store)
    async with store.transaction() as work:
        await work.add_token(TOKEN)
        await work.add_token(replace(TOKEN, id="00000000000000aa", role_id="role-1"))
        assert await work.remove_role("role-1", NOW) == 1
        assert await work.remove_role("role-1", NOW) is None
        assert await work.find_secret_id(SECRET.id) is None
        found = {token.id: token.revoked_at for token in await work.tokens()}
        assert found == {TOKEN.id: None, "00000000000000aa": NOW}


async def test_a_token_is_renewed_from_the_end_that_was_seen(store: KeyStore) -> None:
    seen = utc_text(NOW)
    later = replace(TOKEN, expires_at="2031-01-01T00:00:00.000000Z", code=b"1" * 32)
    async with store.transaction() as work:
        await work.add_token(TOKEN)
        assert await work.renew_token(later, was=seen)
        assert not await work.renew_token(TOKEN, was=seen)
        assert await work.find_token(TOKEN.id) == later
        assert [await work.use_token(TOKEN.id, 1) for _ in range(2)] == [True, False]
        await work.revoke_token(TOKEN.id, datetime(2030, 1, 2, tzinfo=UTC))
        assert not await work.renew_token(TOKEN, was=str(later.expires_at))
        assert not await work.use_token(TOKEN.id, 5)
