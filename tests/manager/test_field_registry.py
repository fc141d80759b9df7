"""Registered fields: what the store remembers of them, and never a password."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from keystead import blocking
from keystead.errors import InvalidInputError, KeyInUseError, KeyNotFoundError, StoreUnavailableError
from keystead.fields import Exact, Field
from keystead.fields.places import locate
from keystead.ports import AuditEvent, FieldRecord, KeyUse, UnitOfWork
from keystead.testing.fake_kms import FakeKMS
from tests.fakes.world import KEY_ID, CountingStore, World

EMAIL = Field("people", "email", keyring="people", indexes=(Exact(),))
TENANTED = Field("people", "email", tenant="org", keyring="people-{tenant}")
SOURCE = "app:people"


async def uses(world: World) -> list[KeyUse]:
    async with world.store.reading() as work:
        return await work.key_uses()


async def test_a_registered_field_is_listed_and_its_column_is_looked_through(world: World) -> None:
    async with world.open() as km:
        record = await km.register_field(EMAIL, SOURCE)
        assert record == FieldRecord("people.email", "people", "index", SOURCE)
        assert await km.fields() == [record]
    assert await uses(world) == [KeyUse("field:people.email", "people", SOURCE)]


async def test_a_field_without_an_index_has_no_index_keyring(world: World) -> None:
    async with world.open() as km:
        assert (await km.register_field(Field("people", "note"), SOURCE)).index_keyring is None


async def test_registering_again_writes_nothing(world: World) -> None:
    store = CountingStore(world.store)
    async with world.open(store=store) as km:
        await km.register_field(EMAIL, SOURCE)
        writes = store.writes
        await km.register_field(EMAIL, SOURCE)
        assert store.writes == writes


async def test_a_use_that_was_taken_back_is_declared_again(world: World) -> None:
    async with world.open() as km:
        await km.register_field(EMAIL, SOURCE)
        async with world.store.transaction() as work:
            await work.drop_use("people", "field:people.email")
        await km.register_field(EMAIL, SOURCE)
    assert len(await uses(world)) == 1


async def test_former_keyrings_that_exist_are_looked_for_too(world: World) -> None:
    async with world.open() as km:
        await km.keyring("old")
        await km.register_field(replace(EMAIL, former_keyrings=("old", "never-made")), SOURCE)
    assert [use.keyring for use in await uses(world)] == ["old", "people"]


async def test_a_change_of_keyring_is_recorded_and_the_old_one_is_still_looked_for(world: World) -> None:
    class Told:
        def __init__(self) -> None:
            self.events: list[AuditEvent] = []

        async def record(self, work: UnitOfWork, event: AuditEvent) -> None:
            self.events.append(event)

    audit = Told()
    async with world.open(audit=audit) as km:
        await km.register_field(EMAIL, SOURCE)
        await km.register_field(replace(EMAIL, keyring="newer"), SOURCE)
        assert [field.keyring for field in await km.fields()] == ["newer"]
    told = [event.keyring for event in audit.events if event.action == "field.register"]
    assert told == ["people", "newer"]
    assert [use.keyring for use in await uses(world)] == ["newer", "people"]


async def test_rows_are_not_known_to_be_filled_for_other_index_keys(world: World) -> None:
    async with world.open() as km:
        await km.register_field(EMAIL, "sqlite:///app.db")
        async with world.store.transaction() as work:
            await work.note_indexed(EMAIL.id, 1)
        await km.register_field(replace(EMAIL, keyring="newer"), "sqlite:///app.db")
        assert [field.indexed_version for field in await km.fields()] == [1]
        await km.register_field(replace(EMAIL, index_keyring="other"), "sqlite:///app.db")
        assert [field.indexed_version for field in await km.fields()] == [None]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sqlite:///one.db", "sqlite:///two.db"),
        ("postgresql://app@one/shop", "postgresql://app@two/shop"),
        ("postgresql://app@db/shop", "postgresql://app@db/shop?options=-csearch_path%3Deu"),
        ("postgresql://db/shop", "app:people"),
    ],
)
async def test_a_field_in_two_places_is_looked_through_in_both(world: World, one: str, other: str) -> None:
    async with world.open() as km:
        first = await km.register_field(EMAIL, one)
        second = await km.register_field(EMAIL, other)
        assert (await km.register_field(EMAIL, one), await km.register_field(EMAIL, other)) == (first, second)
        assert await km.fields() == [first, second]
    assert first.id == EMAIL.id
    assert second.id.startswith(f"{EMAIL.id}@")
    assert {use.locator for use in await uses(world)} == {first.locator, second.locator}


async def test_a_field_whose_table_has_another_name_is_in_another_place_and_filled_by_itself(world: World) -> None:
    async with world.open() as km:
        await km.register_field(EMAIL, "sqlite:///app.db")
        async with world.store.transaction() as work:
            await work.note_indexed(EMAIL.id, 1)
        await km.register_field(replace(EMAIL, table="persons", id="people.email"), "sqlite:///app.db")
        assert [field.indexed_version for field in await km.fields()] == [1, None]


async def test_one_place_is_forgotten_and_the_other_is_still_looked_through(world: World) -> None:
    async with world.open() as km:
        await km.register_field(EMAIL, "sqlite:///one.db")
        second = await km.register_field(EMAIL, "sqlite:///two.db")
        await km.forget_field(EMAIL.id)
        assert await km.register_field(EMAIL, "sqlite:///two.db") == second
        assert await km.fields() == [second]
    assert [use.locator for use in await uses(world)] == [second.locator]


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://admin@db/shop",
        "postgresql+psycopg://app@db:5432/shop?sslmode=require&application_name=x",
        "postgresql://app@/shop?host=db&port=5432",
    ],
)
async def test_another_user_or_way_to_a_database_is_the_same_place(world: World, other: str) -> None:
    async with world.open() as km:
        await km.register_field(EMAIL, "postgresql://app@db/shop")
        record = await km.register_field(EMAIL, other)
        assert await km.fields() == [record]
    assert record.id == EMAIL.id
    assert [use.locator for use in await uses(world)] == [record.locator]


async def test_what_is_known_of_rows_holds_for_another_user_too(world: World) -> None:
    async with world.open() as km:
        await km.register_field(EMAIL, "postgresql://app@db/shop")
        async with world.store.transaction() as work:
            await work.note_indexed(EMAIL.id, 1)
        assert (await km.register_field(EMAIL, "postgresql://admin@db/shop")).indexed_version == 1


async def test_two_places_that_are_registered_at_once_are_both_kept(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await one.load_fields(EMAIL)
        sources = ("sqlite:///one.db", "sqlite:///two.db")
        await asyncio.gather(*(km.register_field(EMAIL, at) for km, at in zip((one, two), sources, strict=True)))
        assert len(await one.fields()) == 2


async def test_a_field_with_a_keyring_per_tenant_declares_a_use_of_each_of_them(world: World) -> None:
    async with world.open() as km:
        assert (await km.register_field(TENANTED, SOURCE)).keyring == "people-{tenant}"
        async with world.store.reading() as work:
            for tenant in ("acme", "one-that-is-to-come"):
                assert await work.key_uses(f"people-{tenant}") == await work.key_uses()
    assert await uses(world) == [KeyUse("field:people.email", "people-{tenant}", SOURCE)]


async def test_former_keyrings_per_tenant_are_looked_for_too(world: World) -> None:
    async with world.open() as km:
        await km.register_field(
            replace(TENANTED, keyring="newer-{tenant}", former_keyrings=("people-{tenant}",)), SOURCE
        )
        assert [use.keyring for use in await uses(world)] == ["newer-{tenant}", "people-{tenant}"]
        await km.forget_field(TENANTED.id)
    assert await uses(world) == []


async def test_a_forgotten_field_is_not_listed_or_looked_through(world: World) -> None:
    async with world.open() as km:
        await km.register_field(EMAIL, SOURCE)
        await km.register_field(replace(EMAIL, keyring="newer"), SOURCE)
        await km.forget_field(EMAIL.id)
        assert await km.fields() == []
        with pytest.raises(KeyNotFoundError, match="field list"):
            await km.forget_field(EMAIL.id)
    assert await uses(world) == []


async def test_a_destroy_finds_the_ciphertexts_in_a_registered_column(world: World, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with world.open() as km:
        await km.load_fields(EMAIL)
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, email BLOB)")
            sealed = km.field(EMAIL).encrypt("a@example.org", record=1)
            database.execute("INSERT INTO people VALUES (1, ?)", (sealed,))
        database.close()
        await km.register_field(EMAIL, f"sqlite:///{path}")
        handle = await km.keyring("people")
        old = (await handle.versions())[0]
        await handle.rotate()
        destruction = (await km.session()).lifecycle.destruction
        with pytest.raises(KeyInUseError, match=r"field:people\.email"):
            await destruction.schedule(old.id, wait=timedelta(days=7))


async def test_a_destroy_names_the_place_that_it_cannot_look_through(world: World, tmp_path: Path) -> None:
    async with world.open() as km:
        await km.register_field(EMAIL, f"sqlite:///{tmp_path}/moved.db")
        handle = await km.keyring("people")
        old = (await handle.versions())[0]
        await handle.rotate(promote="now")
        destruction = (await km.session()).lifecycle.destruction
        with pytest.raises(StoreUnavailableError, match=r"'field:people\.email' .*moved\.db.*keystead field forget"):
            await destruction.schedule(old.id, wait=timedelta(days=7))


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("sqlite:////data/app.db", "sqlite:////data/app.db"),
        ("sqlite+aiosqlite:////data/app.db?timeout=5", "sqlite:////data/app.db"),
        ("postgresql://app:hunter2@db:5432/shop", "postgresql://app@db:5432/shop"),
        ("postgresql+psycopg://app:hunter2@/shop?host=%2Frun", "postgresql://app@/shop?host=%2Frun"),
        ("postgres://app@db/shop?password=hunter2&sslmode=require", "postgresql://app@db/shop?sslmode=require"),
        ("postgresql+asyncpg://app:hunter2@db/shop?ssl=hunter2", "postgresql://app@db/shop"),
    ],
)
def test_a_locator_names_the_column_without_driver_or_password(source: str, place: str) -> None:
    assert locate(EMAIL, source) == f"sql:{place}#people.email"


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate(EMAIL, "sqlite:///app.db") == f"sql:sqlite:///{tmp_path}/app.db#people.email"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "app:",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:app.db?uri=true",
        "mysql://app:hunter2@db/shop",
        "postgresql://app:hunter2@db:port/shop",
        "hunter2",
    ],
)
def test_a_source_that_no_other_process_can_look_through_is_refused_without_being_shown(source: str) -> None:
    with pytest.raises(InvalidInputError, match="app:<name>") as caught:
        locate(EMAIL, source)
    assert "hunter2" not in str(caught.value)


async def test_an_id_that_is_too_long_is_refused(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(InvalidInputError, match="200"):
            await km.register_field(replace(EMAIL, id="x" * 201), SOURCE)


def test_the_blocking_manager_has_the_same_members() -> None:
    with blocking.KeyManager({"cloud": FakeKMS()}, default_key_id=KEY_ID, store="memory://") as km:
        km.load_fields(EMAIL)
        record = km.register_field(EMAIL, SOURCE)
        assert km.fields() == [record]
        assert km.rotate_index_key().version == 2
        assert km.field(EMAIL).index_versions == (1, 2)
        km.forget_field(EMAIL.id)
        assert km.fields() == []
