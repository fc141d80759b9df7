"""Declared data sources: of one keyring, or of every keyring that a pattern names."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead.errors import KeyNotFoundError
from keystead.model.patterns import covers
from keystead.ports import KeyStore, KeyUse
from keystead.stores import open_store, schema
from tests.stores.records import fill, fill_older, older_store

PEOPLE = KeyUse("people", "default", "file:/data/*.csv")
MEMBERS = KeyUse("members", "members-{tenant}", "app:members")


async def test_declared_uses_are_changed_and_dropped(store: KeyStore) -> None:
    await fill(store)
    async with store.transaction() as work:
        await work.declare_use(PEOPLE)
        await work.declare_use(KeyUse("orders", "default", "app:orders"))
        await work.declare_use(KeyUse("people", "default", "file:/other/*.csv"))
    async with store.transaction() as work:
        assert await work.key_uses("default") == [
            KeyUse("orders", "default", "app:orders"),
            KeyUse("people", "default", "file:/other/*.csv"),
        ]
        assert await work.drop_use("default", "people")
        assert not await work.drop_use("default", "people")
        assert [use.name for use in await work.key_uses("default")] == ["orders"]
        assert await work.key_uses() == await work.key_uses("default")


async def test_a_use_of_an_unknown_keyring_is_refused(store: KeyStore) -> None:
    with pytest.raises(KeyNotFoundError):
        async with store.transaction() as work:
            await work.declare_use(KeyUse("people", "nobody's", "app:people"))


async def test_a_use_of_a_pattern_is_one_of_each_keyring_it_names(store: KeyStore) -> None:
    await fill(store)
    async with store.transaction() as work:
        await work.declare_use(PEOPLE)
        await work.declare_use(MEMBERS)
    async with store.reading() as work:
        assert await work.key_uses("members-acme") == await work.key_uses("members-{tenant}") == [MEMBERS]
        assert await work.key_uses("default") == [PEOPLE]
        assert await work.key_uses("members-") == await work.key_uses("MEMBERS-acme") == []
        assert await work.key_uses() == [PEOPLE, MEMBERS]
        assert await work.key_uses() == [PEOPLE, MEMBERS]


async def test_a_use_of_a_pattern_is_dropped_by_the_pattern(store: KeyStore) -> None:
    async with store.transaction() as work:
        await work.declare_use(MEMBERS)
        assert not await work.drop_use("members-acme", "members")
        assert await work.drop_use("members-{tenant}", "members")
        assert await work.key_uses("members-acme") == []


@pytest.mark.parametrize(
    ("declared", "keyring", "is_covered"),
    [
        ("people", "people", True),
        ("people", "people-a", False),
        ("people", "{tenant}", False),
        ("{tenant}", "a", True),
        ("{tenant}", "", False),
        ("people-{tenant}", "people-a", True),
        ("people-{tenant}", "people-a-b", True),
        ("people-{tenant}", "people-\n", True),
        ("people-{tenant}", "people-", False),
        ("people-{tenant}", "a-people-a", False),
        ("people-{tenant}", "people-{tenant}", True),
        ("{tenant}-people", "a-people", True),
        ("{tenant}-people", "a-people-b", False),
        ("a-{tenant}-z", "a-z", False),
        ("a-{tenant}-z", "a--z", False),
        ("a-{tenant}-z", "a-b-z", True),
        ("a.{tenant}", "ab1", False),
        ("{tenant}/{tenant}", "a/a", True),
        ("{tenant}/{tenant}", "a/b", False),
    ],
)
def test_a_pattern_names_what_some_tenant_makes_of_it(declared: str, keyring: str, is_covered: bool) -> None:
    assert covers(declared, keyring) is is_covered


@pytest.fixture(params=["sqlite", "postgresql"])
def older_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of the last revision in which a use named one keyring."""
    url = older_store(request, tmp_path, "0002")
    fill_older(url)
    return url


async def test_the_uses_of_an_older_store_are_kept(older_url: str) -> None:
    schema.migrate(older_url)
    store = open_store(older_url)
    async with store.transaction() as work:
        await work.declare_use(MEMBERS)
        assert await work.key_uses() == [KeyUse("people", "default", "app:people"), MEMBERS]
    await store.aclose()
