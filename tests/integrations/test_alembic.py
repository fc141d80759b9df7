"""An application's autogenerate leaves Keystead's tables alone, and still sees its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, text
from sqlalchemy.engine import Engine, make_url

from keystead.integrations.alembic import TABLES, include_name, include_object
from keystead.stores.schema import migrate

pytestmark = pytest.mark.usefixtures("by_alembic")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/app.db"
    address: str = request.getfixturevalue("postgres_url")
    return address


@pytest.fixture
def application() -> MetaData:
    """An application with one table that is not in the database yet."""
    metadata = MetaData()
    Table("people", metadata, Column("id", Integer, primary_key=True), Column("mail", String(100), index=True))
    return metadata


def engine_of(url: str) -> Engine:
    return create_engine(make_url(url.replace("postgresql:", "postgresql+psycopg:")))


def autogenerate(url: str, application: MetaData, **filters: Any) -> list[str]:
    """Return what an autogenerate would write, by operation and table."""
    engine = engine_of(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": application, **filters})
        operations = produce_migrations(context, application).upgrade_ops
    engine.dispose()
    assert operations is not None
    return [f"{type(each).__name__} {getattr(each, 'table_name', '')}" for each in operations.ops]


OWN = ["CreateTableOp people", "ModifyTableOps people"]


def test_without_the_filter_keysteads_tables_would_be_dropped(url: str, application: MetaData) -> None:
    migrate(url)
    written = autogenerate(url, application)
    assert {f"DropTableOp {table}" for table in TABLES} <= set(written)


@pytest.mark.parametrize("filters", [{"include_name": include_name}, {"include_object": include_object}])
def test_with_a_filter_only_the_applications_tables_are_written(
    url: str, application: MetaData, filters: dict[str, Any]
) -> None:
    migrate(url)
    written = autogenerate(url, application, **filters)
    assert written == OWN


@pytest.mark.parametrize("filters", [{"include_name": include_name}, {"include_object": include_object}])
def test_with_a_filter_the_applications_own_drift_is_still_seen(
    url: str, application: MetaData, filters: dict[str, Any]
) -> None:
    migrate(url)
    engine = engine_of(url)
    with engine.begin() as connection:
        application.create_all(connection)
        connection.execute(text("CREATE TABLE left_over (id INTEGER)"))
    engine.dispose()
    assert autogenerate(url, application, **filters) == ["DropTableOp left_over"]


@pytest.mark.parametrize("name", ["include_name", "include_object"])
def test_the_filter_keeps_to_keysteads_postgresql_schema(postgres_url: str, application: MetaData, name: str) -> None:
    migrate(postgres_url, schema="keys_of_app")
    engine = engine_of(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE leases (flat INTEGER)"))
    engine.dispose()
    chosen: dict[str, Callable[..., bool]] = {"include_name": include_name, "include_object": include_object}
    filters: dict[str, Any] = {name: partial(chosen[name], schema="keys_of_app"), "include_schemas": True}
    assert autogenerate(postgres_url, application, **filters) == [*OWN, "DropTableOp leases"]
