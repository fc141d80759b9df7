"""The window of a first encryption through an AsyncSession: attributes are read where nobody may wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from typing import Any, cast
from uuid import uuid4

import pytest
from sqlalchemy import insert, not_, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import load_only, make_transient

from keystead import KeyManager
from keystead.errors import ConflictError, InvalidInputError
from keystead.integrations.sqlalchemy import Encrypted, bind, sealed_inserts
from tests.integrations.sqlalchemy.windowed import (
    ADA,
    BOB,
    CYD,
    NORTH,
    SEEN,
    SOUTH,
    Account,
    Base,
    Seat,
    add_cyd,
    fill,
    fill_seats,
)


@pytest.fixture
async def window(any_async_engine: AsyncEngine, async_km: KeyManager) -> AsyncEngine:
    """Two accounts in clear, one that is encrypted, and one with nothing; and two seats in clear."""
    async with any_async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(fill)
        await connection.run_sync(fill_seats)
    await bind(any_async_engine, async_km, Base)
    async with AsyncSession(any_async_engine) as session:
        await session.run_sync(add_cyd)
    return any_async_engine


@pytest.fixture
async def session(window: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A session on each database."""
    async with AsyncSession(window, expire_on_commit=False) as made:
        yield made


async def account(session: AsyncSession, name: str) -> Account:
    return (await session.scalars(select(Account).where(Account.name == name))).one()


async def names(session: AsyncSession, *conditions: Any) -> list[str]:
    return sorted(await session.scalars(select(Account.name).where(*conditions)))


async def left(session: AsyncSession) -> list[str]:
    """Return what is still in clear."""
    query = text("SELECT email_plain FROM accounts WHERE email_plain IS NOT NULL ORDER BY 1")
    return list((await session.execute(query)).scalars())


async def test_a_row_that_is_not_encrypted_gives_its_value_in_clear(session: AsyncSession) -> None:
    ada, cyd, dan = [await account(session, name) for name in ("ada", "cyd", "dan")]
    assert (ada.email, ada.note, ada.born, ada.seen) == (ADA, "green tea", date(1815, 12, 10), SEEN)
    assert [cyd.email, cyd.note, dan.email] == [CYD, None, None]
    assert isinstance(ada.level, Encrypted)
    assert ada.level.decrypt() == 7


@pytest.mark.parametrize("value", ["new@example.org", ADA])
async def test_assigning_a_value_encrypts_it_and_empties_the_plaintext(session: AsyncSession, value: str) -> None:
    ada = await account(session, "ada")
    ada.email = value
    await session.commit()
    assert await left(session) == [BOB]
    assert (ada.email, ada.email_plain) == (value, None)
    await session.refresh(ada)
    assert ada.email == value
    assert await names(session, Account.email == value) == ["ada"]


async def test_assigning_nothing_empties_the_plaintext(session: AsyncSession) -> None:
    ada = await account(session, "ada")
    ada.note = None
    assert ada.note is None
    del ada.born
    await session.commit()
    await session.refresh(ada)
    assert (ada.note, ada.born, ada.email) == (None, None, ADA)
    raw = await session.execute(text("SELECT note, note_plain, born, born_plain FROM accounts WHERE name = 'ada'"))
    assert raw.one() == (None, None, None, None)


async def test_words_of_an_assigned_value_are_written(session: AsyncSession) -> None:
    (await account(session, "ada")).note = "black coffee"
    await session.commit()
    assert await session.scalar(text("SELECT count(*) FROM accounts_note_tokens")) == 2


async def test_changing_another_column_leaves_a_row_in_clear(session: AsyncSession) -> None:
    (await account(session, "ada")).name = "countess"
    await session.commit()
    assert await left(session) == [ADA, BOB]


async def test_a_row_whose_record_changes_is_encrypted_for_the_new_one(session: AsyncSession) -> None:
    ada: Any = await account(session, "ada")
    ada.keystead_row = uuid4()
    await session.commit()
    await session.refresh(ada)
    assert await left(session) == [BOB]
    assert (ada.email, ada.note, ada.born) == (ADA, "green tea", date(1815, 12, 10))


async def test_a_new_row_is_encrypted(session: AsyncSession) -> None:
    eve = Account(name="eve", email="eve@example.org", level=cast(Any, 3))
    session.add(eve)
    await session.commit()
    assert await left(session) == [ADA, BOB]
    assert (eve.email, cast(Any, eve.level).decrypt()) == ("eve@example.org", 3)


async def test_a_copy_of_a_row_in_clear_is_encrypted(session: AsyncSession) -> None:
    ada: Any = await account(session, "ada")
    make_transient(ada)
    await session.execute(text("DELETE FROM accounts WHERE name = 'ada'"))
    ada.id, ada.keystead_row = None, uuid4()
    session.add(ada)
    await session.commit()
    assert await left(session) == [BOB]
    assert (ada.email, ada.note) == (ADA, "green tea")


async def test_equality_finds_all_and_only_the_right_rows(session: AsyncSession) -> None:
    for address, name in {ADA: "ada", BOB: "bob", CYD: "cyd"}.items():
        assert await names(session, Account.email == address) == [name]
        others = sorted({"ada", "bob", "cyd"} - {name})
        assert await names(session, Account.email != address) == others
        assert await names(session, not_(or_(Account.email == address, Account.name == "nobody"))) == others
    assert await names(session, Account.email.in_([ADA, CYD, "x"])) == ["ada", "cyd"]
    assert await names(session, Account.email.is_(None)) == ["dan"]
    assert await names(session, Account.email.is_not(None)) == ["ada", "bob", "cyd"]
    assert await names(session, Account.seen == SEEN) == ["ada"]


@pytest.mark.parametrize("is_new", [True, False])
async def test_a_value_that_a_row_has_in_clear_is_taken(session: AsyncSession, is_new: bool) -> None:
    if is_new:
        session.add(Account(email=ADA))
    else:
        (await account(session, "cyd")).email = ADA
    with pytest.raises(IntegrityError, match="UNIQUE constraint failed: another row") as caught:
        await session.flush()
    assert isinstance(caught.value.orig, ConflictError)
    await session.rollback()
    assert await left(session) == [ADA, BOB]


async def test_a_value_is_free_once_its_row_has_another_in_the_same_flush(session: AsyncSession) -> None:
    ada, bob = [await account(session, name) for name in ("ada", "bob")]
    ada.email, bob.email = "other@example.org", ADA
    await session.commit()
    assert await names(session, Account.email == ADA) == ["bob"]


async def test_a_flush_loads_the_keyring_of_a_tenant_whose_rows_are_in_clear(session: AsyncSession) -> None:
    for org in (NORTH, SOUTH):
        found = select(Seat.number).where(Seat.holder.matches("eve", tenant=org))
        assert (await session.scalars(found)).all() == [f"s{org.int}"]
    seat = await session.get_one(Seat, "s1")
    assert seat.holder == "eve"
    seat.holder = "fay"
    session.add(Seat(number="s3", org=NORTH, holder="eve"))
    await session.commit()
    session.add(Seat(number="s4", org=SOUTH, holder="eve"))
    with pytest.raises(IntegrityError):
        await session.flush()


async def test_nobody_writes_the_plaintext(session: AsyncSession) -> None:
    ada = await account(session, "ada")
    with pytest.raises(InvalidInputError, match="assign the encrypted attribute"):
        ada.email_plain = "x"
    for statement in (insert(Account).values(email_plain="x"), update(Account).values(email_plain=None)):
        with pytest.raises(InvalidInputError, match="is being encrypted"):
            await session.execute(statement)
        await session.rollback()
    with pytest.raises(InvalidInputError, match="only a session looks"):
        sealed_inserts(cast(AsyncEngine, session.bind), Account, [{"email": "x@example.org"}])


async def test_a_detached_row_in_clear_is_merged_without_taking_back_an_encryption(window: AsyncEngine) -> None:
    async with AsyncSession(window, expire_on_commit=False) as session:
        ada, bob = [await account(session, name) for name in ("ada", "bob")]
    async with AsyncSession(window) as session:
        (await account(session, "ada")).email = ADA
        await session.commit()
    bob.email = "new@example.org"
    async with AsyncSession(window, expire_on_commit=False) as session:
        merged = [await session.merge(each) for each in (ada, bob)]
        await session.commit()
        assert [each.email for each in merged] == [ADA, "new@example.org"]
        assert await left(session) == []


async def test_a_value_whose_plaintext_was_not_loaded_is_an_error_that_says_how(session: AsyncSession) -> None:
    query = select(Account).where(Account.name == "ada").options(load_only(Account.email))
    ada = (await session.scalars(query)).one()
    with pytest.raises(InvalidInputError, match=r"refresh\(row, \['email', 'email_plain'\]\)"):
        _ = ada.email
    await session.refresh(ada, ["email", "email_plain"])
    assert ada.email == ADA


async def test_a_streamed_row_is_read_in_clear(session: AsyncSession) -> None:
    found = [(each.name, each.email) async for each in await session.stream_scalars(select(Account))]
    assert sorted(found) == [("ada", ADA), ("bob", BOB), ("cyd", CYD), ("dan", None)]
