"""A column of JSON that is being encrypted: what stands in it is read once, by SQLAlchemy."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import JSON, Engine, Table, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from keystead import blocking
from keystead.integrations.sqlalchemy import bind, encrypted
from tests.integrations.sqlalchemy.windowed import before


class Base(DeclarativeBase):
    """The class below."""


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[str] = mapped_column(primary_key=True)
    doc: Mapped[dict[str, Any] | None] = encrypted(plaintext="doc_plain")
    doc_plain: Mapped[Any] = mapped_column(JSON, nullable=True)


@pytest.mark.parametrize("value", [{"a": 1}, "123", "abc", 123, True, []])
def test_a_value_in_clear_is_read_as_it_is(engine: Engine, km: blocking.KeyManager, value: Any) -> None:
    Base.metadata.create_all(engine)
    table = Note.__table__
    assert isinstance(table, Table)
    with engine.begin() as connection:
        connection.execute(insert(before(table)), [{"id": "a", "doc_plain": value}])
    bind(engine, km, Base)
    with Session(engine) as session:
        held = session.scalars(select(Note)).one()
        assert (held.doc, type(held.doc)) == (value, type(value))
