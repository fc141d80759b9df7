"""What goes past the session is encrypted beforehand or refused; it never lands in the table as it is."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import LargeBinary, bindparam, func, insert, literal, select, text, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import CompileError

from keystead.errors import ConfigurationError, InvalidInputError
from keystead.integrations.sqlalchemy import sealed_rows
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Letter, Member, Order, Person

TABLE: Any = Letter.__table__
ORDERS: Any = Order.__table__
ROWS = [{"id": uuid4(), "body": f"secret {at}".encode()} for at in range(3)]


@pytest.mark.parametrize(
    "write",
    [
        lambda s: s.execute(insert(Letter), ROWS),
        lambda s: s.execute(insert(Letter).values(body=b"secret")),
        lambda s: s.execute(insert(Letter).values([{"body": b"secret"}, {"body": b"secret"}])),
        lambda s: s.execute(insert(Letter).values(body=func.lower("secret"))),
        lambda s: s.execute(insert(Letter).values(body=literal(b"secret", LargeBinary))),
        lambda s: s.execute(insert(Letter).from_select(["id", "content"], select(literal(b"1"), literal(b"secret")))),
        lambda s: s.execute(insert(TABLE), [{"id": row["id"], "content": row["body"]} for row in ROWS]),
        lambda s: s.execute(insert(TABLE).values([(uuid4(), None, literal(b"secret", LargeBinary))])),
        lambda s: s.execute(update(Letter).values(body=b"secret")),
        lambda s: s.execute(update(Letter).values({"body": func.lower("secret")})),
        lambda s: s.execute(update(Letter).values({Letter.body: text("'secret'")})),
        lambda s: s.execute(update(Letter), ROWS),
        lambda s: s.execute(
            update(TABLE).values({TABLE.c.content: bindparam("b", type_=LargeBinary)}), {"b": b"secret"}
        ),
        lambda s: s.bulk_insert_mappings(Letter, ROWS),
        lambda s: s.bulk_update_mappings(Letter, ROWS),
        lambda s: s.bulk_save_objects([Letter(**row) for row in ROWS]),
        lambda s: s.execute(upsert(TABLE).on_conflict_do_update(index_elements=["id"], set_={"content": b"secret"})),
    ],
)
def test_a_statement_with_plain_values_is_refused_without_showing_them(app: Application, write: Any) -> None:
    with app.session() as session:
        with pytest.raises(InvalidInputError, match="sealed_rows") as caught:
            write(session)
        assert "secret" not in str(caught.value)
        session.rollback()
        assert session.scalars(select(Letter)).all() == []


def test_rows_that_were_sealed_go_through_bulk_statements(any_app: Application) -> None:
    people = [{"email": f"{name}@example.org", "name": name} for name in ("ada", "bob")]
    orders = [{"shop": "s", "number": number, "remark": None} for number in (1, 2)]
    with any_app.session() as session:
        with pytest.raises(InvalidInputError, match="token index"):
            sealed_rows(any_app.engine, Person, people)
        session.execute(insert(Letter), sealed_rows(any_app.engine, Letter, ROWS))
        session.bulk_insert_mappings(Order.__mapper__, sealed_rows(any_app.engine, Order, orders))
        session.commit()
        assert sorted(letter.body for letter in session.scalars(select(Letter))) == [row["body"] for row in ROWS]
        assert session.scalars(select(Letter.id).where(Letter.body == b"secret 1")).one() == ROWS[1]["id"]
        assert session.execute(text("SELECT count(remark) FROM orders")).scalar() == 2
        session.execute(update(Letter), sealed_rows(any_app.engine, Letter, [{**ROWS[0], "body": b"other"}]))
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


def test_an_engine_that_was_not_bound_gives_nothing_and_takes_nothing(app: Application) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

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
