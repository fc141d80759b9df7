"""A ciphertext opens where it was written and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import LargeBinary, bindparam, select, text, type_coerce

from keystead.errors import DecryptionError
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Animal, Cat, Customer, Letter, Member, Order, Person, Supplier


def refuses(app: Application, statement: str, kind: type[object], attribute: str) -> bool:
    """Return whether no object opens after the raw statement."""
    with app.engine.begin() as connection:
        connection.execute(text(statement))
    with app.session() as session:
        found = session.scalars(select(kind)).all()
        assert found
        for each in found:
            with pytest.raises(DecryptionError):
                getattr(each, attribute)
    return True


@pytest.fixture
def filled(app: Application) -> Application:
    with app.session() as session:
        session.add_all(Person(email=f"{name}@example.org", note=name) for name in ("ada", "bob"))
        session.add_all(Letter(body=name.encode(), mood=name) for name in ("ada", "bob"))
        session.add_all(Member(number=f"m{org}", org_id=org, email="eve@example.org") for org in (1, 2))
        session.add_all(Order(shop="s", number=number, remark="same") for number in (1, 11))
        session.add_all([Customer(phone="+49 30 1"), Supplier(phone="+49 30 1"), Cat(name="a", secret="b")])
        session.commit()
    return app


def swap(app: Application, kind: Any, attribute: str) -> None:
    """Let the two rows of a table have each other's ciphertext, and check that neither opens."""
    column, key = kind.__mapper__.columns[attribute], kind.__table__.primary_key.columns.values()[-1]
    with app.engine.begin() as connection:
        (one, first), (other, second) = connection.execute(select(key, type_coerce(column, LargeBinary))).all()
        for record, value in ((one, second), (other, first)):
            sealed = bindparam("sealed", value, LargeBinary)
            raw = f"UPDATE {column.table} SET {column.name} = :sealed WHERE {key.name} = :record"
            connection.execute(text(raw).bindparams(sealed, bindparam("record", record, key.type)))
    with app.session() as session:
        for each in session.scalars(select(kind)):
            with pytest.raises(DecryptionError):
                getattr(each, attribute)


def test_two_rows_that_swap_their_ciphertexts_are_refused(filled: Application) -> None:
    swap(filled, Person, "email")
    swap(filled, Letter, "body")
    swap(filled, Order, "remark")


def test_a_ciphertext_of_another_column_is_refused(filled: Application) -> None:
    assert refuses(filled, "UPDATE people SET note = email", Person, "note")
    assert refuses(filled, "UPDATE animals SET name = secret", Animal, "name")


def test_a_ciphertext_of_another_table_is_refused(filled: Application) -> None:
    assert refuses(filled, "UPDATE customers SET phone = (SELECT phone FROM suppliers)", Customer, "phone")


def test_a_row_given_to_another_tenant_is_refused(filled: Application) -> None:
    with filled.engine.begin() as connection:
        connection.execute(text("UPDATE members SET org_id = 2 WHERE number = 'm1'"))
    with filled.session() as session, pytest.raises(DecryptionError):
        _ = session.get_one(Member, "m1").email


def test_an_altered_byte_is_refused(filled: Application) -> None:
    with filled.engine.begin() as connection:
        for number, sealed in connection.execute(text("SELECT id, email FROM people")).all():
            altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
            connection.execute(text("UPDATE people SET email = :e WHERE id = :i"), {"e": altered, "i": number})
    with filled.session() as session:
        for person in session.scalars(select(Person)):
            with pytest.raises(DecryptionError):
                _ = person.email
            person.email = f"new{person.id}@example.org"
        session.commit()
        assert len(session.scalars(select(Person).where(Person.email.starts_with("new"))).all()) == 2
