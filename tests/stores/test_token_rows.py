"""API tokens as rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from keystead.errors import ConflictError
from keystead.model import utc_text
from keystead.ports import KeyStore, TokenRecord

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TOKEN = TokenRecord(
    "0123456789abcdef", "billing", "", "act-as devices:use", "the app", utc_text(NOW), utc_text(NOW), 7, bytes(32)
)


async def test_what_was_put_in_comes_out_the_newest_first(store: KeyStore) -> None:
    other = replace(
        TOKEN, id="00000000000000ff", tenant="north", created_at=utc_text(NOW + timedelta(days=1)), expires_at=None
    )
    async with store.transaction() as work:
        await work.add_token(TOKEN)
        await work.add_token(other)
    async with store.reading() as work:
        assert await work.find_token(TOKEN.id) == TOKEN
        assert await work.find_token("ffffffffffffffff") is None
        assert await work.tokens() == [other, TOKEN]
        assert await work.tokens(tenant="") == [TOKEN]
        assert await work.tokens(tenant="south") == []
    with pytest.raises(ConflictError):
        async with store.transaction() as work:
            await work.add_token(TOKEN)


async def test_a_token_is_revoked_once_and_its_key_is_free_then(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.add_token(TOKEN)
        assert [await work.count_tokens(key_id) for key_id in (7, 8)] == [1, 0]
        assert await work.revoke_token(TOKEN.id, NOW) == replace(TOKEN, revoked_at=NOW)
        assert await work.revoke_token(TOKEN.id, NOW + timedelta(days=1)) == replace(TOKEN, revoked_at=NOW)
        assert await work.revoke_token("ffffffffffffffff", NOW) is None
        assert await work.count_tokens(7) == 0


async def test_tokens_are_read_by_pages_those_of_one_moment_by_id(store: KeyStore) -> None:
    made = [
        replace(TOKEN, id=f"{number:016x}", created_at=utc_text(NOW - timedelta(days=number // 2)), tenant="north")
        for number in range(5)
    ]
    async with store.transaction() as work:
        await work.add_token(TOKEN)
        for token in reversed(made):
            await work.add_token(token)
    async with store.reading() as work:
        found: list[TokenRecord] = []
        for _ in range(3):
            after = (found[-1].created_at, found[-1].id) if found else None
            page = await work.tokens(tenant="north", after=after, limit=2)
            assert len(page) <= 2
            found += page
        assert found == made
        assert await work.tokens(tenant="north", after=(made[-1].created_at, made[-1].id)) == []
