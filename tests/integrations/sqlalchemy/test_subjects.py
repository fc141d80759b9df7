"""Columns under the keys of whom they are about, through sessions and bulk statements, on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, ForeignKey, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from keystead import KeyManager, SubjectErasedError, blocking
from keystead.errors import InvalidInputError, KeyringNotLoadedError
from keystead.integrations.sqlalchemy import Exact, bind, encrypted, sealed_rows, sealed_updates
from keystead.testing import FakeKMS


class Base(DeclarativeBase):
    pass


class Human(Base):
    __tablename__ = "humans"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    email: Mapped[str] = encrypted(per_subject=True, indexes=[Exact(unique=True)])


class Visit(Base):
    __tablename__ = "visits"
    number: Mapped[str] = mapped_column(primary_key=True)
    human_id: Mapped[UUID | None] = mapped_column(ForeignKey("humans.id"))
    reason: Mapped[str | None] = encrypted(subject="human_id", subject_kind="humans", indexes=[Exact()])
    human: Mapped[Human] = relationship()


EMAIL, REASON = Human.__table__.c.email.type.field, Visit.__table__.c.reason.type.field  # type: ignore[attr-defined]


@pytest.fixture
def km(tmp_path: Path) -> Iterator[blocking.KeyManager]:
    """A manager with a log of erasures."""
    options: dict[str, Any] = {"default_key_id": "app", "store": "memory://", "erasures": tmp_path / "erasures.log"}
    with blocking.KeyManager({"cloud": FakeKMS()}, **options) as manager:
        yield manager


@pytest.fixture
def database(engine: Engine, km: blocking.KeyManager) -> Engine:
    """A bound database of each kind, with its tables."""
    Base.metadata.create_all(engine)
    bind(engine, km, Base)
    return engine


def held(database: Engine) -> dict[str, bytes]:
    """Return the id of the data key that each visit's reason is under."""
    query = "SELECT number, reason FROM visits"
    with database.connect() as connection:
        return {number: bytes(blob)[2:10] for number, blob in connection.exec_driver_sql(query)}


def test_all_that_is_about_somebody_is_under_their_keys(database: Engine) -> None:
    with Session(database) as session:
        ada, bob = Human(email="ada@example.org"), Human(email="bob@example.org")
        session.add_all([Visit(number="1", human=ada, reason="tea"), Visit(number="2", human=bob, reason="tea")])
        session.add(Visit(number="3", human=ada, reason="rum"))
        session.commit()
        names = held(database)
        assert names["1"] == names["3"] != names["2"]
        assert {visit.reason for visit in session.scalars(select(Visit))} == {"tea", "rum"}
        assert session.scalars(select(Human).where(Human.email == "ada@example.org")).one() is ada
        assert {visit.number for visit in session.scalars(select(Visit).where(Visit.reason == "tea"))} == {"1", "2"}


def test_who_is_forgotten_is_found_no_more_and_says_so_where_it_is_read(
    database: Engine, km: blocking.KeyManager
) -> None:
    with Session(database) as session:
        ada, bob = Human(email="ada@example.org"), Human(email="bob@example.org")
        session.add_all([Visit(number="1", human=ada, reason="tea"), Visit(number="2", human=bob, reason="tea")])
        session.commit()
        url = database.url.render_as_string(hide_password=False)
        places = [] if url == "sqlite://" else [(EMAIL, url), (REASON, url)]
        for field, place in places:
            km.register_field(field, place)
        receipt = km.forget(EMAIL.subject_of(ada.id))
        session.expire_all()
        with pytest.raises(SubjectErasedError):
            _ = ada.email
        assert bob.email == "bob@example.org"
        if places:
            assert receipt.indexes == "emptied"
            assert session.scalars(select(Human).where(Human.email == "ada@example.org")).all() == []
            assert [each.number for each in session.scalars(select(Visit).where(Visit.reason == "tea"))] == ["2"]
            # What is unique may be somebody else's now.
            session.add(Human(email="ada@example.org"))
            session.commit()


def test_a_row_that_is_given_to_somebody_else_is_encrypted_for_them(database: Engine, km: blocking.KeyManager) -> None:
    with Session(database) as session:
        ada, bob = Human(email="ada@example.org"), Human(email="bob@example.org")
        session.add_all([ada, bob, Visit(number="1", human=ada, reason="tea")])
        session.commit()
        before = held(database)["1"]
        visit = session.get_one(Visit, "1")
        visit.human = bob
        session.commit()
        assert held(database)["1"] != before
        km.forget(EMAIL.subject_of(ada.id))
        session.expire_all()
        assert visit.reason == "tea"


def test_a_value_about_nobody_is_refused_and_nothing_is_written(database: Engine) -> None:
    with Session(database) as session:
        session.add(Visit(number="1", reason="tea"))
        with pytest.raises(InvalidInputError, match="human_id"):
            session.commit()
        session.rollback()
        session.add(Visit(number="2", reason=None))
        session.commit()
        assert session.scalars(select(Visit.number)).all() == ["2"]


def test_bulk_statements_take_rows_of_many_subjects(database: Engine) -> None:
    people = [{"id": uuid4(), "email": f"{n}@example.org"} for n in range(40)]
    visits = [{"number": str(n), "human_id": people[n % 4]["id"], "reason": f"r{n}"} for n in range(40)]
    with Session(database) as session:
        session.execute(insert(Human), sealed_rows(database, Human, people))
        session.execute(insert(Visit), sealed_rows(database, Visit, visits))
        session.commit()
        assert {human.id: human.email for human in session.scalars(select(Human))} == {
            each["id"]: each["email"] for each in people
        }
        names = held(database)
        assert len({*names.values()}) == 4
        changed = [{"number": "0", "human_id": people[9]["id"], "reason": "else"}]
        session.execute(update(Visit), sealed_updates(database, Visit, changed))
        session.commit()
        assert held(database)["0"] not in {*names.values()}
        assert session.get_one(Visit, "0").reason == "else"
        with pytest.raises(InvalidInputError, match="human_id"):
            sealed_updates(database, Visit, [{"number": "0", "reason": "else"}])


async def test_an_async_session_loads_what_a_flush_needs(async_engine: AsyncEngine, tmp_path: Path) -> None:
    options: dict[str, Any] = {"default_key_id": "app", "store": "memory://", "erasures": tmp_path / "erasures.log"}
    async with KeyManager({"cloud": FakeKMS()}, **options) as km, AsyncSession(async_engine) as session:
        async with async_engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await bind(async_engine, km, Base)
        ada = Human(id=uuid4(), email="ada@example.org")
        with pytest.raises(KeyringNotLoadedError):
            km.field(EMAIL).encrypt("x", record=ada.id)
        session.add(Visit(number="1", human=ada, reason="tea"))
        await session.commit()
        visits = (await session.scalars(select(Visit))).all()
        await km.prefetch(visits)
        assert [visit.reason for visit in visits] == ["tea"]
