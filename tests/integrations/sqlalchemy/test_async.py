"""The same through an AsyncSession: no key is waited for where nobody may wait."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from keystead import KeyManager
from keystead.errors import ConfigurationError, DataKeyNotLoadedError, KeyringNotLoadedError, KMSError
from keystead.integrations.sqlalchemy import bind
from tests.fakes.world import World
from tests.integrations.sqlalchemy.models import Base, Card, Member, Order, Person


async def test_the_round_trip_and_the_searches_are_those_of_a_sync_session(
    async_engine: AsyncEngine, async_km: KeyManager
) -> None:
    await bind(async_engine, async_km, Base)
    async with AsyncSession(async_engine, expire_on_commit=False) as session:
        session.add(Person(email="ada@example.org", note="green tea"))
        await session.commit()
        session.expunge_all()
        ada = (await session.scalars(select(Person).where(Person.email == "ada@example.org"))).one()
        assert (ada.email, ada.note) == ("ada@example.org", "green tea")
        ada.note = "coffee"
        await session.commit()
        assert (await session.scalars(select(Person).where(Person.note.has_token("coffee")))).one() is ada


async def test_a_flush_loads_the_keyring_of_a_tenant(async_engine: AsyncEngine, async_km: KeyManager) -> None:
    await bind(async_engine, async_km, Base)
    async with AsyncSession(async_engine, expire_on_commit=False) as session:
        session.add_all(Member(number=f"m{org}", org_id=org, email="eve@example.org") for org in (1, 2))
        await session.commit()
        found = select(Member).where(Member.email.matches("eve@example.org", tenant="2"))
        assert (await session.scalars(found)).one().email == "eve@example.org"


async def test_a_key_that_is_not_loaded_is_an_error_that_names_prefetch(async_engine: AsyncEngine) -> None:
    world = World()
    async with world.open() as km, world.open() as other, AsyncSession(async_engine) as session:
        await bind(async_engine, other, Card)
        await other.rotate_data_key()
        session.add(Card("4111"))
        await session.commit()
        await bind(async_engine, km, Card)
        session.add(Card("4222"))
        await other.rotate_data_key()
        await bind(async_engine, other, Card)
        await session.commit()
        await bind(async_engine, km, Card)
        cards = (await session.scalars(select(Card))).all()
        with pytest.raises(DataKeyNotLoadedError, match=r"await km\.prefetch\(rows\)"):
            _ = [card.number for card in cards]
        await km.prefetch(cards)
        assert sorted(card.number for card in cards) == ["4111", "4222"]


async def test_a_sync_session_may_have_an_async_manager(sqlite: Engine, async_km: KeyManager) -> None:
    Base.metadata.create_all(sqlite)
    for _ in range(2):
        binding = await bind(sqlite, async_km, Base)
        await async_km.load_fields(binding.cipher(Member.email).field, tenants=["1"])
        with Session(sqlite) as session:
            session.merge(Member(number="m1", org_id=1, email="eve@example.org"))
            session.commit()
            assert session.scalars(select(Member)).one().email == "eve@example.org"
            session.add(Member(number="m2", org_id=2, email="eve@example.org"))
            with pytest.raises(KeyringNotLoadedError, match="load_fields"):
                session.flush()


async def test_rows_of_another_store_are_named_as_the_trouble(sqlite: Engine, async_km: KeyManager) -> None:
    Card.metadata.create_all(sqlite)
    world = World()
    async with world.open() as other:
        await bind(sqlite, other, Card)
        with Session(sqlite) as session:
            session.add(Card("4111"))
            session.commit()
    with pytest.raises(ConfigurationError, match="another store"):
        await bind(sqlite, async_km, Card)


async def test_a_search_without_its_keys_fails_as_itself(async_engine: AsyncEngine, async_km: KeyManager) -> None:
    await bind(async_engine, async_km, Base)
    await async_km.close()
    async with AsyncSession(async_engine) as session:
        with pytest.raises(KMSError) as caught:
            await session.scalars(select(Person).where(Person.email == "ada@example.org"))
    assert "ada@" not in str(caught.value)


async def test_a_flush_fetches_the_key_of_a_value_that_moves(async_engine: AsyncEngine) -> None:
    world = World()
    async with world.open() as km, world.open() as other, AsyncSession(async_engine) as session:
        await bind(async_engine, km, Order)
        session.add(Order(shop="s", number=1, remark="first"))
        await session.commit()
        await other.rotate_data_key()
        await bind(async_engine, other, Order)
        session.add(Order(shop="s", number=2, remark="second"))
        await session.commit()
        await bind(async_engine, km, Order)
        order = (await session.scalars(select(Order).where(Order.number == 2))).one()
        order.number = 3
        await session.commit()
        await session.refresh(order)
        assert order.remark == "second"
