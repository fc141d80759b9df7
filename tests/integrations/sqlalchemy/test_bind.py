"""Binding loads what is needed, and says at the start what would fail later."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from keystead import blocking
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.integrations.sqlalchemy import bind, encrypted
from keystead.testing import FakeKMS
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Base, Letter, Person


def test_a_binding_gives_the_cipher_of_an_attribute(app: Application) -> None:
    cipher = app.binding.cipher(Person.email)
    assert cipher.field.id == "people.email"
    assert app.binding.cipher(cipher.field) is cipher
    with pytest.raises(InvalidInputError, match="no encrypted column"):
        app.binding.cipher(Person.name)


def test_bind_takes_bases_classes_and_metadata(app: Application) -> None:
    every = {field.id for field in bind(app.engine, app.km, Base.metadata).fields}
    assert every == {field.id for field in app.binding.fields}
    assert [field.id for field in bind(app.engine, app.km, Letter).fields] == ["letters.content", "letters.mood"]


def test_what_holds_no_encrypted_column_is_refused(app: Application) -> None:
    class Empty(DeclarativeBase):
        pass

    with pytest.raises(ConfigurationError, match="no encrypted column"):
        bind(app.engine, app.km, Empty)
    with pytest.raises(InvalidInputError, match="declarative bases"):
        bind(app.engine, app.km, "Base")


def test_an_async_engine_with_a_blocking_manager_is_refused(app: Application) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(ConfigurationError, match=r"keystead\.KeyManager"):
        bind(engine, app.km, Base)  # type: ignore[call-overload]


def renamed(former: str | None) -> type[DeclarativeBase]:
    """Return a base with the table of letters under another name."""

    class Renamed(DeclarativeBase):
        pass

    class Note(Renamed):
        __tablename__ = "notes"
        id: Mapped[str] = mapped_column(primary_key=True)
        content: Mapped[bytes] = encrypted(id=former)

    return Renamed


def test_a_column_that_was_renamed_without_its_id_is_named_as_the_cause(app: Application) -> None:
    class Before(DeclarativeBase):
        pass

    class Note(Before):
        __tablename__ = "remarks"
        id: Mapped[str] = mapped_column(primary_key=True)
        content: Mapped[bytes] = encrypted()

    engine = create_engine("sqlite://")
    Before.metadata.create_all(engine)
    bind(engine, app.km, Before)
    with Session(engine) as session:
        session.add(Note(id="a", content=b"hello"))
        session.commit()
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE remarks RENAME TO notes"))
    with pytest.raises(ConfigurationError, match="was renamed"):
        bind(engine, app.km, renamed(None))
    assert len(bind(engine, app.km, renamed("remarks.content")).fields) == 1
    engine.dispose()


def test_another_store_is_named_as_the_cause(app: Application, kms: FakeKMS) -> None:
    with app.session() as session:
        session.add(Letter(body=b"hello"))
        session.commit()
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as other:
        with pytest.raises(ConfigurationError, match="another store"):
            bind(app.engine, other, Base)
        bind(app.engine, app.km, Base)


def test_fields_of_a_database_that_others_can_reach_are_registered(tmp_path: Path, km: blocking.KeyManager) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    bind(engine, km, renamed("notes.registered"))
    assert [each.locator for each in km.fields() if each.id == "notes.registered"] == [
        f"sql:sqlite:///{tmp_path}/app.db#notes.content"
    ]
    km.forget_field("notes.registered")
    engine.dispose()


def test_two_columns_of_one_id_are_refused(app: Application) -> None:
    class Twice(DeclarativeBase):
        pass

    class One(Twice):
        __tablename__ = "one"
        id: Mapped[str] = mapped_column(primary_key=True)
        a: Mapped[str] = encrypted(id="same")
        b: Mapped[str] = encrypted(id="same")

    with pytest.raises(ConfigurationError, match="two encrypted columns have the id 'same'"):
        bind(app.engine, app.km, Twice)
