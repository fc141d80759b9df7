"""A field is registered where its rows are; where that is not certain, nothing is bound."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, StaticPool, create_engine, event, make_url, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from keystead import KeyManager, blocking
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.integrations.sqlalchemy import bind
from keystead.testing import FakeKMS
from tests.integrations.sqlalchemy.models import Base, Letter


@pytest.fixture
def own_km(kms: FakeKMS) -> Iterator[blocking.KeyManager]:
    """A manager in whose store nothing is registered."""
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as manager:
        yield manager


def locators(km: blocking.KeyManager) -> set[str]:
    return {each.locator for each in km.fields() if each.id == "letters.content"}


@pytest.mark.parametrize("how", ["path", "uri", "uri with options", "relative", "creator", "main", "link"])
def test_an_sqlite_file_is_registered_by_its_path(
    tmp_path: Path, own_km: blocking.KeyManager, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    path = str(tmp_path / "app.db")
    monkeypatch.chdir(tmp_path)
    os.symlink(path, tmp_path / "link.db")
    engine = {
        "path": lambda: create_engine(f"sqlite:///{path}"),
        "uri": lambda: create_engine(f"sqlite:///file:{path}?uri=true"),
        "uri with options": lambda: create_engine(f"sqlite:///file:{path}?mode=rwc&uri=true"),
        "relative": lambda: create_engine("sqlite:///app.db"),
        "creator": lambda: create_engine("sqlite:///elsewhere.db", creator=lambda: sqlite3.connect(path)),
        "main": lambda: create_engine(f"sqlite:///{path}", execution_options={"schema_translate_map": {"x": "y"}}),
        "link": lambda: create_engine(f"sqlite:///{tmp_path}/link.db"),
    }[how]()
    Base.metadata.create_all(engine)
    bind(engine, own_km, Base)
    found = f"{tmp_path}/link.db" if how == "link" else path
    assert locators(own_km) == {f"sql:sqlite:///{found}#letters.content"}
    engine.dispose()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&cache=shared&uri=true"]
)
def test_a_database_in_memory_is_registered_nowhere(own_km: blocking.KeyManager, url: str) -> None:
    engine = create_engine(url, poolclass=StaticPool)
    Base.metadata.create_all(engine)
    bind(engine, own_km, Base)
    assert own_km.fields() == []
    engine.dispose()


async def test_an_async_engine_is_registered_by_its_path(tmp_path: Path, async_km: KeyManager) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///file:{tmp_path}/app.db?uri=true")
    await bind(engine, async_km, Letter)
    assert {each.locator for each in await async_km.fields()} == {
        f"sql:sqlite:///{tmp_path}/app.db#letters.{name}" for name in ("content", "mood")
    }
    await engine.dispose()


@pytest.fixture
def attached(tmp_path: Path) -> Iterator[Engine]:
    """A database of two files, with the tables in both."""
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")

    @event.listens_for(engine, "connect")
    def attach(connection: Any, record: object) -> None:
        connection.execute(f"ATTACH '{tmp_path}/tenant.db' AS tenant")

    for each in (engine, moved(engine)):
        Base.metadata.create_all(each)
    yield engine
    engine.dispose()


def moved(engine: Engine) -> Engine:
    return engine.execution_options(schema_translate_map={None: "tenant"})


def refused(engine: Engine, km: blocking.KeyManager, trouble: str) -> None:
    """See that an engine is bound only by one who says where the data are."""
    with pytest.raises(ConfigurationError, match=rf"{trouble}.*database='app:<name>'"):
        bind(engine, km, Base)
    assert km.fields() == []
    with pytest.raises(InvalidInputError, match="app:<name>"):
        bind(engine, km, Base, database="sqlite://")
    bind(engine, km, Base, database="app:tenants")
    assert locators(km) == {"app:tenants"}


def test_a_schema_that_is_translated_is_refused(attached: Engine, own_km: blocking.KeyManager) -> None:
    refused(moved(attached), own_km, "moves the table of people.email to another schema")


def test_a_database_that_is_attached_is_refused(attached: Engine, own_km: blocking.KeyManager) -> None:
    for name, trouble in (("tenant", "lie in an attached database"), ("other", "no database is attached as 'other'")):

        class Own(Base):
            __abstract__ = True
            metadata = Base.metadata.__class__()

        for table in Base.metadata.tables.values():
            table.to_metadata(Own.metadata, schema=name)
        with pytest.raises(ConfigurationError, match=trouble):
            bind(attached, own_km, Own.metadata)


def test_a_database_that_keystead_cannot_look_through_is_refused(sqlite: Engine, own_km: blocking.KeyManager) -> None:
    Base.metadata.create_all(sqlite)
    sqlite.url = make_url("mysql://host/app")
    refused(sqlite, own_km, "a database of mysql is not looked through")


def test_a_postgresql_database_that_the_url_does_not_name_is_refused(
    postgres_url: str, own_km: blocking.KeyManager
) -> None:
    psycopg = pytest.importorskip("psycopg")
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(postgres_url))
    Base.metadata.create_all(engine)
    refused(engine, own_km, "made by creator=")
    bind(engine, own_km, Base, database=postgres_url)
    # The place that was said first has the field's id.
    (second,) = (each.locator for each in own_km.fields() if each.id.startswith("letters.content@"))
    assert second.startswith("sql:postgresql://")
    engine.dispose()


def test_nothing_is_written_into_a_schema_that_was_not_bound(attached: Engine, own_km: blocking.KeyManager) -> None:
    bind(attached, own_km, Base)
    with Session(moved(attached)) as session:
        session.add(Letter(body=b"secret"))
        with pytest.raises(ConfigurationError, match=r"a schema that bind\(\) did not see"):
            session.flush()
        session.rollback()
        assert session.scalars(select(Letter)).all() == []
    bind(attached, own_km, Base, database="app:tenants")
    with Session(moved(attached)) as session:
        session.add(Letter(body=b"secret"))
        session.commit()
        assert session.scalars(select(Letter)).one().body == b"secret"


def test_a_schema_in_memory_is_written_freely(own_km: blocking.KeyManager) -> None:
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda connection, record: connection.execute("ATTACH ':memory:' AS tenant"))
    Base.metadata.create_all(moved(engine))
    Base.metadata.create_all(engine)
    bind(engine, own_km, Base)
    with Session(moved(engine)) as session:
        session.add(Letter(body=b"secret"))
        session.commit()
        assert session.scalars(select(Letter)).one().body == b"secret"
    engine.dispose()
