"""No ciphertext opens in the place of any other: not in another row, column, table or tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import LargeBinary, Table, bindparam, inspect, select, text, type_coerce
from sqlalchemy.orm import Session

from keystead.errors import DecryptionError
from keystead.integrations.sqlalchemy import Encrypted
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Animal, Cat, Customer, Dog, Letter, Member, Order, Person, Supplier

VALUE = "the same everywhere"
OBJECTS: list[Any] = [
    *(Person(id=number, email=f"{VALUE}@{number}", note=VALUE) for number in (1, 2)),
    *(Letter(id=UUID(int=number), body=VALUE.encode(), mood=VALUE) for number in (1, 2)),
    *(Member(number=f"m{number}", org_id=org, email=f"{VALUE} {number}") for number, org in ((1, 1), (2, 1), (3, 2))),
    *(Order(shop=shop, number=number, remark=VALUE) for shop, number in (("a", 1), ("a", 11), ("a1", 1))),
    Customer(id=UUID(int=1), phone=VALUE),
    Supplier(id=1, phone=VALUE),
    Animal(id=1, kind="animal", name=VALUE),
    Cat(id=2, name=VALUE, secret=VALUE),
    Dog(id=3, name=VALUE, chip=VALUE),
]


@dataclass(frozen=True)
class Cell:
    """One ciphertext in a table, and the attribute that reads it."""

    kind: Any
    identity: tuple[Any, ...]
    attribute: str
    ciphertext: bytes

    def __str__(self) -> str:
        return f"{self.kind.__name__}{self.identity}.{self.attribute}"

    def write(self, session: Session, ciphertext: bytes) -> None:
        """Put a ciphertext there past everything that would look at it."""
        column = inspect(self.kind).columns[self.attribute]
        assert isinstance(column.table, Table)
        keys = list(column.table.primary_key)
        where = " AND ".join(f"{key.name} = :k{at}" for at, key in enumerate(keys))
        values = [bindparam(f"k{at}", self.identity[at], key.type) for at, key in enumerate(keys)]
        statement = text(f"UPDATE {column.table} SET {column.name} = :sealed WHERE {where}")
        session.execute(statement.bindparams(bindparam("sealed", ciphertext, LargeBinary), *values))

    def read(self, session: Session) -> object:
        """Return what the application sees there."""
        session.expire_all()
        value = getattr(session.get_one(self.kind, self.identity), self.attribute)
        return value.decrypt() if isinstance(value, Encrypted) else value


@pytest.fixture
def cells(any_app: Application) -> list[Cell]:
    """Every ciphertext of the objects."""
    found = []
    with any_app.session() as session:
        session.add_all(session.merge(each) for each in OBJECTS)
        session.commit()
        for each in OBJECTS:
            mapper = inspect(type(each))
            identity = tuple(getattr(each, key.key) for key in mapper.primary_key)
            for place in mapper.class_manager.info["keystead.places"]:
                column = type_coerce(getattr(type(each), place.key), LargeBinary)
                keys = [getattr(type(each), key.key) for key in mapper.primary_key]
                matches = [key == part for key, part in zip(keys, identity, strict=True)]
                sealed = session.scalars(select(column).where(*matches)).one()
                if sealed is not None:
                    found.append(Cell(type(each), identity, place.key, bytes(sealed)))
    return found


def test_each_ciphertext_is_refused_in_the_place_of_each_other(any_app: Application, cells: list[Cell]) -> None:
    opened, refused = [], 0
    with any_app.session() as session:
        for cell in cells:
            assert cell.read(session) is not None
            for other in cells:
                if other is not cell:
                    cell.write(session, other.ciphertext)
                    try:
                        cell.read(session)
                        opened.append(f"{other} in {cell}")
                    except DecryptionError:
                        refused += 1
            cell.write(session, cell.ciphertext)
            assert cell.read(session) is not None
    assert opened == []
    assert refused == len(cells) * (len(cells) - 1) == 21 * 20
