"""What goes past the session is encrypted beforehand or refused; it never lands in the table as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import (
    Column,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    literal,
    null,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import CompileError, IntegrityError
from sqlalchemy.orm import Session

from keystead.errors import ConfigurationError, InvalidInputError
from keystead.integrations.sqlalchemy import EncryptedBytes, sealed_inserts, sealed_rows, sealed_updates
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Cat, Letter, Member, Order, Person

TABLE: Any = Letter.__table__
ORDERS: Any = Order.__table__
ROWS = [{"id": uuid4(), "body": f"secret {at}".encode()} for at in range(3)]


def upsert(session: Session, table: Any = TABLE) -> Any:
    """Return the database's own INSERT, which knows ON CONFLICT."""
    return (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert(table)


def persistent(session: Session) -> Letter:
    """Return an object of a row that is there, changed."""
    letter = session.scalars(select(Letter)).one()
    letter.body = b"secret"
    return letter


WRITES: dict[str, Callable[[Session], Any]] = {
    "insert": lambda s: s.execute(insert(Letter).values(body=b"secret")),
    "insert of a list": lambda s: s.execute(insert(Letter).values([{"body": b"secret"}, {"body": b"secret"}])),
    "insert of many": lambda s: s.execute(insert(Letter), ROWS),
    "insert with returning": lambda s: s.scalars(insert(Letter).returning(Letter), ROWS),
    "insert of one with returning": lambda s: s.scalars(insert(Letter).values(body=b"secret").returning(Letter.id)),
    "insert of an expression": lambda s: s.execute(insert(Letter).values(body=func.lower("secret"))),
    "insert of a literal": lambda s: s.execute(insert(Letter).values(body=literal(b"secret", LargeBinary))),
    "insert from a select": lambda s: s.execute(
        insert(Letter).from_select(["id", "content"], select(literal(b"1"), literal(b"secret")))
    ),
    "insert from its own table": lambda s: s.execute(
        insert(TABLE).from_select(["id", "content"], select(literal(b"1"), type_coerce(TABLE.c.content, LargeBinary)))
    ),
    "table's insert": lambda s: s.execute(insert(TABLE), {"id": uuid4(), "content": b"secret"}),
    "table's insert of many": lambda s: s.execute(
        insert(TABLE), [{"id": row["id"], "content": row["body"]} for row in ROWS]
    ),
    "table's insert of tuples": lambda s: s.execute(
        insert(TABLE).values([(uuid4(), None, literal(b"secret", LargeBinary))])
    ),
    "table's insert on a connection": lambda s: s.connection().execute(
        insert(TABLE), [{"id": row["id"], "content": row["body"]} for row in ROWS]
    ),
    "update": lambda s: s.execute(update(Letter).values(body=b"secret")),
    "update of many": lambda s: s.execute(update(Letter), ROWS),
    "update by an expression": lambda s: s.execute(update(Letter).values({"body": func.lower("secret")})),
    "update by a text": lambda s: s.execute(update(Letter).values({Letter.body: text("'secret'")})),
    "update by another column": lambda s: s.execute(update(Letter).values(body=Letter.mood)),
    "update of a query": lambda s: s.query(Letter).update({"body": b"secret"}),
    "table's update": lambda s: s.execute(update(TABLE).values(content=b"secret")),
    "table's update of many": lambda s: s.execute(
        update(TABLE).where(TABLE.c.id == bindparam("i")).values(content=bindparam("b")),
        [{"i": row["id"], "b": row["body"]} for row in ROWS],
    ),
    "table's update by a typed parameter": lambda s: s.execute(
        update(TABLE).values({TABLE.c.content: bindparam("b", type_=LargeBinary)}), {"b": b"secret"}
    ),
    "table's update on a connection": lambda s: s.connection().execute(update(TABLE).values(content=b"secret")),
    "upsert": lambda s: s.execute(
        upsert(s).values(id=uuid4(), content=b"secret").on_conflict_do_nothing(index_elements=["id"])
    ),
    "upsert that sets it": lambda s: s.execute(
        upsert(s).on_conflict_do_update(index_elements=["id"], set_={"content": b"secret"})
    ),
    "upsert of many that sets what was meant": lambda s: s.execute(
        upsert(s).on_conflict_do_update(index_elements=["id"], set_={"content": upsert(s).excluded.content}),
        [{"id": row["id"], "content": row["body"]} for row in ROWS],
    ),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(Letter.__mapper__, ROWS),
    "bulk_insert_mappings with defaults": lambda s: s.bulk_insert_mappings(
        Letter.__mapper__, [{"body": b"secret"}], return_defaults=True
    ),
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(Letter.__mapper__, ROWS),
    "bulk_save_objects": lambda s: s.bulk_save_objects([Letter(**row) for row in ROWS]),
    "bulk_save_objects of changed ones": lambda s: s.bulk_save_objects([persistent(s)]),
}


def test_a_statement_with_plain_values_is_refused_without_showing_them(
    any_app: Application, subtests: pytest.Subtests
) -> None:
    with any_app.session() as session:
        session.add(Letter(id=ROWS[0]["id"], body=b"as it was"))
        session.commit()
    for name, write in WRITES.items():
        with subtests.test(name), any_app.session() as session:
            with session.no_autoflush, pytest.raises(InvalidInputError, match="sealed_rows") as caught:
                write(session)
            assert "secret" not in str(caught.value)
            session.rollback()
            assert session.scalars(select(Letter)).one().body == b"as it was"


def test_a_sealed_row_is_returned_by_its_insert_as_an_object(any_app: Application) -> None:
    with any_app.session() as session:
        sealed = sealed_rows(any_app.engine, Letter, ROWS)
        letters = session.scalars(insert(Letter).returning(Letter), sealed).all()
        assert sorted(letter.body for letter in letters) == [row["body"] for row in ROWS]


def test_rows_that_were_sealed_go_through_bulk_statements(any_app: Application) -> None:
    orders = [{"shop": "s", "number": number, "remark": None} for number in (1, 2)]
    with any_app.session() as session:
        session.execute(insert(Letter), sealed_rows(any_app.engine, Letter, ROWS))
        session.bulk_insert_mappings(Order.__mapper__, sealed_rows(any_app.engine, Order, orders))
        session.commit()
        assert sorted(letter.body for letter in session.scalars(select(Letter))) == [row["body"] for row in ROWS]
        assert session.scalars(select(Letter.id).where(Letter.body == b"secret 1")).one() == ROWS[1]["id"]
        assert session.execute(text("SELECT count(remark) FROM orders")).scalar() == 2
        session.execute(update(Letter), sealed_updates(any_app.engine, Letter, [{**ROWS[0], "body": b"other"}]))
        session.expire_all()
        assert session.get_one(Letter, ROWS[0]["id"]).body == b"other"


def test_a_row_without_its_record_cannot_be_sealed(app: Application) -> None:
    with pytest.raises(InvalidInputError, match="no id yet"):
        sealed_rows(app.engine, Order, [{"shop": "s", "remark": "x"}])


def test_a_record_or_tenant_cannot_be_changed_under_its_ciphertext(app: Application) -> None:
    with app.session() as session:
        session.add(Order(shop="s", number=1, remark="x"))
        session.add(Member(number="m1", org_id=1, email="eve@example.org"))
        session.commit()
        for statement in (
            update(Order).values(number=Order.number + 1),
            update(ORDERS).values(shop="t"),
            update(Member).where(Member.org_id == 1).values(org_id=2),
        ):
            with pytest.raises(InvalidInputError, match="which this statement changes alone"):
                session.execute(statement)
        session.execute(update(Letter).values(person_id=None))


@pytest.mark.parametrize(
    ("model", "row", "changed"),
    [
        (Order, {"shop": "s", "number": 1, "remark": "x"}, "shop"),
        (Member, {"number": "m1", "org_id": 1, "email": "eve@example.org"}, "org_id"),
    ],
    ids=["record", "tenant"],
)
def test_an_upsert_changes_no_record_or_tenant_under_a_ciphertext(
    any_app: Application, model: type[Any], row: dict[str, Any], changed: str
) -> None:
    with any_app.session() as session:
        session.add(model(**row))
        session.commit()
        table: Any = model.__table__
        statement = upsert(session, table)
        setting = statement.on_conflict_do_update(
            index_elements=list(table.primary_key), set_={changed: statement.excluded[changed]}
        )
        for sealed in sealed_inserts(any_app.engine, model, [row])[0][1]:
            with pytest.raises(InvalidInputError, match=f"is bound to {changed}, which this statement changes alone"):
                session.execute(setting.values(**sealed))


EMPTYING: dict[str, Callable[[Session], Any]] = {
    "update": lambda s: s.execute(update(Letter).values(body=None)),
    "update of many": lambda s: s.execute(update(Letter), [{"id": ROWS[0]["id"], "body": None}]),
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(Letter.__mapper__, [{"id": ROWS[0]["id"], "body": None}]),
    "table's update": lambda s: s.execute(update(TABLE).values(content=None)),
    "table's update by null()": lambda s: s.execute(update(TABLE).values(content=null())),
    "table's update by a parameter": lambda s: s.execute(update(TABLE).values(content=bindparam("b")), {"b": None}),
    "update of one index": lambda s: s.execute(update(TABLE).values(content=None, content_exact_1=None)),
}


@pytest.mark.parametrize("name", EMPTYING)
def test_a_column_is_not_emptied_while_its_hashes_stay(app: Application, name: str) -> None:
    with app.session() as session:
        session.add(Letter(id=ROWS[0]["id"], body=b"as it was"))
        session.commit()
        with pytest.raises(InvalidInputError, match="has to set content_exact_0, content_exact_1 to NULL too"):
            EMPTYING[name](session)


def test_a_column_is_emptied_together_with_its_hashes(app: Application) -> None:
    with app.session() as session:
        session.add(Cat(name="tom", secret="x"))
        session.add(Letter(body=b"x", mood="cross"))
        session.commit()
        session.execute(update(Cat).values(secret=None, secret_exact_0=None, secret_exact_1=None))
        session.execute(update(Letter).values(mood=None))
        session.expire_all()
        assert session.scalars(select(Cat.secret)).all() == [None]
        assert session.scalars(select(Cat).where(Cat.secret == "x")).all() == []
        assert session.scalars(select(Letter.mood)).all() == [None]


def test_a_value_is_written_together_with_its_hashes(app: Application) -> None:
    with app.session() as session:
        session.add(Letter(id=ROWS[0]["id"], body=b"as it was"))
        session.commit()
        [row] = sealed_updates(app.engine, Letter, ROWS[:1])
        for values in ({"content": row["body"]}, {"content": bytes(row["body"]), "content_exact_1": b"x"}):
            with pytest.raises(InvalidInputError, match="has to write content_exact_0, content_exact_1 too"):
                session.execute(update(TABLE).where(TABLE.c.id == row["id"]).values(values))
        [new] = sealed_rows(app.engine, Letter, ROWS[1:2])
        for hashes in ({}, {"content_exact_0": None, "content_exact_1": None}):
            with pytest.raises(InvalidInputError, match="has to write content_exact_0 or content_exact_1 too"):
                session.execute(insert(TABLE), {"id": new["id"], "content": new["body"], **hashes})


def test_a_value_with_words_is_not_changed_by_a_statement(app: Application) -> None:
    with app.session() as session:
        session.add(person := Person(email="ada@example.org", note="green tea"))
        session.commit()
        sealed = app.binding.cipher(Person.note).encrypt("tea", record=person.keystead_row)  # type: ignore[attr-defined]
        with pytest.raises(InvalidInputError, match="leaves the rows of its words; load the objects"):
            session.execute(update(Person).where(Person.id == person.id).values(note=sealed))


def test_words_are_not_left_by_a_statement_that_empties_their_column(app: Application) -> None:
    with app.session() as session:
        session.add(person := Person(email="ada@example.org", note="green tea"))
        session.commit()
        for emptied in (
            lambda: session.execute(update(Person).values(note=None)),
            lambda: session.execute(update(Person), [{"id": person.id, "note": None}]),
            lambda: session.bulk_update_mappings(Person.__mapper__, [{"id": person.id, "note": None}]),
        ):
            with pytest.raises(InvalidInputError, match="leaves the rows of its words; load the objects"):
                emptied()


def test_a_flush_that_failed_lets_no_later_statement_empty_a_column(app: Application) -> None:
    with app.session() as session:
        session.add_all([Person(email="ada@example.org", note="green tea"), Person(email="bob@example.org")])
        session.commit()
        ada = session.scalars(select(Person).where(Person.note.has_token("tea"))).one()
        ada.note, ada.email = None, "bob@example.org"
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        with pytest.raises(InvalidInputError, match="leaves the rows of its words"):
            session.execute(update(Person).values(note=None))


def test_an_object_that_is_emptied_loses_its_words(app: Application) -> None:
    with app.session() as session:
        session.add(person := Person(email="ada@example.org", note="green tea"))
        session.commit()
        person.note = None
        session.commit()
        assert session.execute(text("SELECT count(*) FROM people_note_tokens")).scalar() == 0
        with pytest.raises(InvalidInputError, match="leaves the rows of its words"):
            session.execute(update(Person).values(note=None))


def test_no_statement_shows_a_null_that_is_encrypted(app: Application) -> None:
    for statement in (
        update(Order).values(remark=None, remark_exact_0=None, remark_exact_1=None),
        insert(Order).values(shop="s", number=1, remark=None),
        insert(ORDERS).values([{"shop": "s", "number": 1, "remark": null()}]),
    ):
        with app.session() as session, pytest.raises(InvalidInputError, match="encrypts its NULLs too"):
            session.execute(statement)
    with app.session() as session, pytest.raises(InvalidInputError, match="encrypts its NULLs too"):
        session.execute(insert(Order), [{"shop": "s", "number": at, "remark": None} for at in (1, 2)])


def test_an_engine_that_was_not_bound_gives_nothing_and_takes_nothing(app: Application) -> None:
    from sqlalchemy import create_engine

    from tests.integrations.sqlalchemy.models import Base

    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Letter(body=b"secret"))
        with pytest.raises(ConfigurationError, match=r"bind\(engine, km, Base\)"):
            session.flush()
        session.rollback()
        with pytest.raises(InvalidInputError):
            session.execute(insert(Letter).values(body=b"secret"))
        with pytest.raises(ConfigurationError, match=r"bind\(engine, km, Base\)"):
            session.scalars(select(Letter).where(Letter.body == b"x")).all()
    engine.dispose()


def test_a_value_is_never_written_into_a_statements_text() -> None:
    with pytest.raises(CompileError) as caught:
        (Person.email == "secret").compile(compile_kwargs={"literal_binds": True})
    assert "secret" not in str(caught.value)
    assert "secret" not in str(select(Person).where(Person.email == "secret").compile().params)


def test_the_type_alone_is_guarded_too(app: Application) -> None:
    field = app.binding.cipher(Letter.body).field
    table = Table(
        "notes", MetaData(), Column("key", String, primary_key=True), Column("content", EncryptedBytes(field))
    )
    with app.engine.connect() as connection, pytest.raises(InvalidInputError, match="not an SQL expression"):
        connection.execute(update(table).values(content=literal(b"secret", LargeBinary)))
    [row] = sealed_rows(app.engine, Letter, [{"body": b"x"}])
    with app.engine.connect() as connection, pytest.raises(ConfigurationError, match="declared without column"):
        connection.execute(insert(table).values(key="a", content=row["body"]))
