"""A database that was used is handed out again only where nothing of its user is left."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests.fakes import databases
from tests.fakes.databases import Databases
from tests.fakes.postgres import PostgresServer

FOUND = (
    "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' "
    "UNION ALL SELECT relname::text FROM pg_class WHERE oid >= 16384"
)


@pytest.fixture
def made(postgres_server: PostgresServer) -> Iterator[Databases]:
    kept = Databases(postgres_server.url())
    yield kept
    kept.close()


def execute(made: Databases, name: str, *statements: str) -> None:
    with psycopg.connect(made.url(name), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def found(made: Databases, name: str) -> list[str]:
    with psycopg.connect(made.url(name)) as connection:
        return [row[0] for row in connection.execute(FOUND)]


def test_a_database_is_empty_when_it_is_handed_out_again(made: Databases) -> None:
    name = made.take()
    execute(made, name, "CREATE TABLE mine (id serial)", "CREATE SCHEMA apart", "CREATE VIEW apart.seen AS SELECT 1")
    made.give_back(name)
    assert made.take() == name
    assert found(made, name) == ["public"]


def test_whoever_is_connected_still_is_no_longer(made: Databases) -> None:
    name = made.take()
    left = psycopg.connect(made.url(name))
    left.execute("CREATE TABLE mine (id int)")
    made.give_back(name)
    assert made.take() == name
    with pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")
    left.close()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'",
        "ALTER DATABASE {name} CONNECTION LIMIT 7",
        "REVOKE CONNECT ON DATABASE {name} FROM PUBLIC",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "SELECT lo_create(0)",
        "CREATE CAST (text AS int4) WITH INOUT",
        "CREATE PUBLICATION told",
    ],
)
def test_a_database_that_stays_changed_is_dropped(made: Databases, statement: str) -> None:
    name = made.take()
    with psycopg.connect(made.url(name), autocommit=True) as connection:
        connection.execute(SQL(statement).format(name=Identifier(name)))
    made.give_back(name)
    assert made.take() != name


def test_a_database_is_not_used_for_ever(made: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "USES", 2)
    name = made.take()
    made.give_back(name)
    assert made.take() == name
    made.give_back(name)
    assert made.take() != name


def test_every_database_is_dropped_in_the_end(postgres_server: PostgresServer) -> None:
    made = Databases(postgres_server.url())
    names = [made.take(), made.take()]
    made.give_back(names[0])
    made.close()
    with psycopg.connect(postgres_server.url()) as connection:
        existing = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
    assert not existing & set(names)
