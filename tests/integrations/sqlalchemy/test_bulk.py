"""Rows that are sealed for bulk statements bring their words along, and are found whatever rotates meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, ForeignKey, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from keystead import KeyManager, blocking
from keystead.blocking import reencrypt
from keystead.errors import InvalidInputError, KeyringNotLoadedError, StaleViewError
from keystead.integrations.sqlalchemy import Exact, bind, encrypted, sealed_inserts, sealed_rows, sealed_updates
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Base, Cat, Customer, Letter, Member, Order, Person

NOTES = {"ada": "likes green tea", "bob": "likes coffee", "cyd": None}
PEOPLE = [{"name": name, "email": f"{name}@example.org", "note": note} for name, note in NOTES.items()]


class Own(DeclarativeBase):
    """Of a class whose tenant has a default."""


class Place(Own):
    __tablename__ = "places"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    org: Mapped[str] = mapped_column(default="public")
    body: Mapped[str] = encrypted(tenant="org")


class Vehicle(Own):
    __tablename__ = "vehicles"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    owner: Mapped[str] = encrypted(indexes=[Exact()])

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012


class Truck(Vehicle):
    """In a table of its own."""

    __tablename__ = "trucks"

    id: Mapped[int] = mapped_column(ForeignKey("vehicles.id"), primary_key=True)
    cargo: Mapped[str] = encrypted()

    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012


def insert_all(session: Session, model: type[Any], rows: list[dict[str, Any]]) -> None:
    """Insert rows and their words."""
    for statement, sealed in sealed_inserts(session.get_bind(), model, rows):  # type: ignore[arg-type]
        session.execute(statement, sealed)


def check(session: Session) -> None:
    """See that each person is there once, and found by everything."""
    for name, note in NOTES.items():
        person = session.scalars(select(Person).where(Person.email == f"{name}@example.org")).one()
        assert (person.name, person.note) == (name, note)
        assert session.scalars(select(Person).where(Person.email.starts_with(name))).one() is person
    for word, found in {"likes": ["ada", "bob"], "tea": ["ada"], "coffee": ["bob"], "cyd": []}.items():
        assert sorted(session.scalars(select(Person.name).where(Person.note.has_token(word)))) == found


def test_rows_and_their_words_are_inserted_in_one_transaction(any_app: Application) -> None:
    with any_app.session() as session:
        insert_all(session, Person, PEOPLE)
        session.rollback()
        assert session.execute(text("SELECT count(*) FROM people_note_tokens")).scalar() == 0
        insert_all(session, Person, PEOPLE)
        session.commit()
        check(session)


def test_an_inserted_row_is_changed_and_deleted_with_its_words(any_app: Application) -> None:
    with any_app.session() as session:
        insert_all(session, Person, PEOPLE)
        ada, bob = session.scalars(select(Person).where(Person.note.has_token("likes")).order_by(Person.name))
        ada.note = "hates tea"
        session.delete(bob)
        session.commit()
        assert session.scalars(select(Person.name).where(Person.note.has_token("likes"))).all() == []
        assert session.execute(text("SELECT count(*) FROM people_note_tokens")).scalar() == 2


def test_words_of_a_tenant_are_found_for_that_tenant(any_app: Application) -> None:
    members = [{"number": f"m{org}", "org_id": org, "email": "eve@example.org"} for org in (1, 2)]
    with any_app.session() as session:
        insert_all(session, Member, members)
        session.commit()
        for org in (1, 2):
            found = select(Member).where(Member.email.has_token("eve", tenant=org))
            assert session.scalars(found).one().email == "eve@example.org"


def test_a_model_without_words_has_one_statement_and_no_rows_have_none(app: Application) -> None:
    [(statement, rows)] = sealed_inserts(app.engine, Customer, [{"phone": "+49 30 1"}])
    assert (statement.table.name, len(rows)) == ("customers", 1)
    assert len(sealed_inserts(app.engine, Person, [{"email": "a@example.org"}])) == 1
    assert sealed_inserts(app.engine, Person, []) == []


def test_rows_alone_are_refused_where_their_words_would_be_missing(app: Application) -> None:
    with pytest.raises(InvalidInputError, match=r"sealed_inserts\(engine, Model, rows\)"):
        sealed_rows(app.engine, Person, PEOPLE)


async def test_an_async_session_inserts_them_too(any_async_engine: AsyncEngine, async_km: KeyManager) -> None:
    async with any_async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await bind(any_async_engine, async_km, Base)
    async with AsyncSession(any_async_engine) as session:
        for statement, rows in sealed_inserts(any_async_engine, Person, PEOPLE):
            await session.execute(statement, rows)
        await session.commit()
        await session.run_sync(check)


async def test_keyrings_of_tenants_are_loaded_beforehand_where_nobody_may_wait(
    async_engine: AsyncEngine, async_km: KeyManager
) -> None:
    binding = await bind(async_engine, async_km, Base)
    members = [{"number": "m1", "org_id": 1, "email": "eve@example.org"}]
    with pytest.raises(KeyringNotLoadedError, match="tenants="):
        sealed_inserts(async_engine, Member, members)
    await async_km.load_fields(binding.cipher(Member.email).field, tenants=["1"])
    assert len(sealed_inserts(async_engine, Member, members)) == 2


Write = Callable[[Session, Any], object]


@pytest.mark.parametrize(
    ("model", "row", "write"),
    [
        (Person, PEOPLE[0], lambda s, rows: [s.execute(*each) for each in rows]),
        (Letter, {"body": b"x"}, lambda s, rows: [s.execute(*each) for each in rows]),
        (Letter, {"body": b"x"}, lambda s, rows: s.execute(insert(Letter).values(rows[0][1]))),
    ],
    ids=["words", "rows", "values"],
)
def test_rows_that_a_rotation_overtook_are_sealed_anew(
    fresh: Application, model: type[Any], row: dict[str, Any], write: Write
) -> None:
    with fresh.session() as session:
        sealed = sealed_inserts(fresh.engine, model, [row])
        fresh.km.rotate_index_key()
        fresh.km.run_due()
        with pytest.raises(StaleViewError, match="seal rows for bulk statements anew"):
            write(session, sealed)


def test_updates_that_a_rotation_overtook_are_sealed_anew(fresh: Application) -> None:
    with fresh.session() as session:
        session.add(letter := Letter(body=b"first"))
        session.commit()
        sealed = sealed_updates(fresh.engine, Letter, [{"id": letter.id, "body": b"x"}])
        fresh.km.rotate_index_key()
        fresh.km.run_due()
        with pytest.raises(StaleViewError, match="seal rows for bulk statements anew"):
            session.execute(update(Letter), sealed)


def test_a_connection_that_commits_by_itself_writes_no_row_that_a_rotation_overtook(fresh: Application) -> None:
    sealed = sealed_rows(fresh.engine, Letter, [{"body": b"once"}])
    fresh.km.rotate_index_key()
    fresh.km.run_due()
    with fresh.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(StaleViewError):
            connection.execute(insert(Letter), sealed)
        assert connection.execute(select(Letter.id)).all() == []


def test_an_update_seals_what_its_rows_give_and_leaves_everything_else(any_app: Application) -> None:
    with any_app.session() as session:
        session.add(letter := Letter(body=b"first", mood="cross"))
        session.add(Order(shop="s", number=1, remark="keep me"))
        session.commit()
        rows = sealed_updates(any_app.engine, Letter, [{"id": letter.id, "body": b"second"}])
        assert set(rows[0]) == {"id", "body", "content_exact_0", "content_exact_1"}
        session.execute(update(Letter), rows)
        session.commit()
        assert (letter.body, letter.mood) == (b"second", "cross")
        found = [session.scalars(select(Letter).where(Letter.body == each)).all() for each in (b"first", b"second")]
        assert found == [[], [letter]]
        assert sealed_updates(any_app.engine, Order, [{"shop": "s", "number": 1}]) == [{"shop": "s", "number": 1}]


def test_an_update_empties_a_column_with_its_hashes(app: Application) -> None:
    with app.session() as session:
        session.add_all([cat := Cat(name="tom", secret="x"), order := Order(shop="s", number=1, remark="x")])
        session.commit()
        row = {"id": cat.id, "keystead_row": cat.keystead_row, "name": "tim", "secret": None}  # type: ignore[attr-defined]
        session.execute(update(Cat), sealed_updates(app.engine, Cat, [row]))
        session.execute(update(Order), sealed_updates(app.engine, Order, [{"shop": "s", "number": 1, "remark": None}]))
        session.commit()
        assert (cat.name, cat.secret, order.remark) == ("tim", None, None)
        assert session.scalars(select(Cat).where(Cat.secret == "x")).all() == []
        assert session.execute(text("SELECT count(remark) FROM orders")).scalar() == 1


@pytest.mark.parametrize(
    ("model", "row", "missing"),
    [
        (Letter, {"body": b"x"}, "id"),
        (Letter, {"id": None, "body": b"x"}, "id"),
        (Person, {"id": 1, "balance": None}, "keystead_row"),
        (Place, {"id": 1, "body": "x"}, "org"),
        (Place, {"id": 1, "body": "x", "org": None}, "org"),
    ],
    ids=["record", "empty record", "row key", "tenant", "empty tenant"],
)
def test_an_update_draws_no_record_and_no_tenant(
    app: Application, model: type[Any], row: dict[str, Any], missing: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"a row that gives it a value leaves out its {missing}$"):
        sealed_updates(app.engine, model, [row])


def test_a_class_in_several_tables_is_updated_by_what_was_sealed_for_its_rows(
    engine: Engine, km: blocking.KeyManager
) -> None:
    Own.metadata.create_all(engine)
    bind(engine, km, Own)
    with Session(engine) as session:
        session.add_all([one := Truck(owner="ada", cargo="tea"), two := Truck(owner="bob", cargo="ice")])
        session.commit()
        key: Any = {"id": one.id, "keystead_row": one.keystead_row, "keystead_row_trucks": one.keystead_row_trucks}  # type: ignore[attr-defined]
        [row] = sealed_updates(engine, Truck, [key | {"owner": "cyd", "cargo": "oil"}])
        for changed in ({"keystead_row": uuid4()}, {"keystead_row_trucks": uuid4()}):
            with pytest.raises(InvalidInputError, match="another row"):
                session.execute(update(Truck), [row | changed])
            with pytest.raises(InvalidInputError, match="changes alone"):
                session.execute(update(Truck), [{"id": one.id} | changed])
            session.rollback()
        session.execute(update(Truck), [row])
        session.expire_all()
        assert [(one.owner, one.cargo), (two.owner, two.cargo)] == [("cyd", "oil"), ("bob", "ice")]
        assert session.scalars(select(Truck).where(Truck.owner == "cyd")).one() is one


def test_an_update_of_words_is_refused_and_one_beside_them_is_not(app: Application) -> None:
    row_key = uuid4()
    with pytest.raises(InvalidInputError, match="change the objects through a session"):
        sealed_updates(app.engine, Person, [{"id": 1, "keystead_row": row_key, "note": "likes tea"}])
    [row] = sealed_updates(app.engine, Person, [{"id": 1, "keystead_row": row_key, "balance": Decimal(2)}])
    assert set(row) == {"id", "keystead_row", "balance"}


def test_rows_that_were_sealed_for_an_insert_are_refused_by_an_update(app: Application) -> None:
    with app.session() as session:
        session.add(letter := Letter(body=b"first", mood="cross"))
        session.commit()
        [row] = sealed_rows(app.engine, Letter, [{"id": letter.id, "body": b"x"}])
        with pytest.raises(InvalidInputError, match=r"sealed for an INSERT.*sealed_updates for UPDATE"):
            session.execute(update(Letter), [row])
        with pytest.raises(InvalidInputError, match="sealed for an INSERT"):
            session.execute(update(Letter).where(Letter.id == letter.id).values(mood=row["mood"]))


def test_rows_that_are_sealed_in_mid_rotation_are_found_at_its_end(fresh: Application) -> None:
    with fresh.session() as session:
        insert_all(session, Person, PEOPLE[:1])
        session.commit()
        fresh.km.rotate_index_key()
        fresh.km.run_due()
        insert_all(session, Person, PEOPLE[1:])
        session.commit()
        check(session)
    for field in fresh.binding.fields:
        if field.indexes:
            url = fresh.engine.url.set(drivername=fresh.engine.url.get_backend_name())
            reencrypt(fresh.km, url.render_as_string(hide_password=False), field)
    assert fresh.binding.cipher(Person.email).index_versions == (2,)
    with fresh.session() as session:
        check(session)


def test_a_statement_names_a_row_by_its_row_key_without_writing_it(app: Application) -> None:
    people: Any = Person
    with app.session() as session:
        session.add(person := people(name="Ada", email="ada@example.org"))
        session.commit()
        given = {"id": person.id, "keystead_row": person.keystead_row, "profile": {"a": 1}}
        (row,) = sealed_updates(app.engine, Person, [given])
        with pytest.raises(InvalidInputError, match=r"is bound to keystead_row, .*that names it in WHERE"):
            session.execute(update(Person), [row])
        session.rollback()
        found = update(Person).where(people.keystead_row == row["keystead_row"])
        session.execute(found.values(profile=row["profile"]))
        session.commit()
        assert (person.email, person.profile) == ("ada@example.org", {"a": 1})
