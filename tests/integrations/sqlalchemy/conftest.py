"""An application with an engine that is bound, on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from keystead import KeyManager, blocking
from keystead.integrations.sqlalchemy import Binding, bind
from keystead.testing import FakeKMS
from tests.integrations.sqlalchemy.models import Base


@dataclass
class Application:
    """Engine, keys, and what was bound."""

    engine: Engine
    km: blocking.KeyManager
    kms: FakeKMS
    binding: Binding

    def session(self) -> Session:
        """Return a new session."""
        return Session(self.engine)


@pytest.fixture(scope="package")
def kms() -> FakeKMS:
    """A KMS that counts its calls."""
    return FakeKMS()


@pytest.fixture(scope="package")
def km(kms: FakeKMS) -> Iterator[blocking.KeyManager]:
    """A manager for code that is not async."""
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as manager:
        yield manager


@pytest.fixture
def sqlite() -> Iterator[Engine]:
    """An empty SQLite database in memory."""
    made = create_engine("sqlite://")
    yield made
    made.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite")
        return
    made = create_engine(make_url(request.getfixturevalue("postgres_url")).set(drivername="postgresql+psycopg"))
    yield made
    made.dispose()


@pytest.fixture
def app(sqlite: Engine, km: blocking.KeyManager, kms: FakeKMS) -> Application:
    """The application on SQLite."""
    return started(sqlite, km, kms)


@pytest.fixture
def any_app(engine: Engine, km: blocking.KeyManager, kms: FakeKMS) -> Application:
    """The application on each database."""
    return started(engine, km, kms)


def started(engine: Engine, km: blocking.KeyManager, kms: FakeKMS) -> Application:
    Base.metadata.create_all(engine)
    return Application(engine, km, kms, bind(engine, km, Base))


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path, kms: FakeKMS) -> Iterator[Application]:
    """An application on a database that others can reach, with a manager of its own."""
    url = f"sqlite:///{tmp_path}/app.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql:", "postgresql+psycopg:")
    engine: Engine = create_engine(url)
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as km:
        yield started(engine, km, kms)
    engine.dispose()


@pytest.fixture
async def async_km(kms: FakeKMS) -> AsyncIterator[KeyManager]:
    """A manager for async code."""
    async with KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as manager:
        yield manager


@pytest.fixture
async def async_engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An SQLite file with the tables, which nothing is bound to."""
    made = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield made
    await made.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
async def any_async_engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An empty database of each kind, for async code."""
    url, how = make_url(f"sqlite+aiosqlite:///{tmp_path}/app.db"), {"timeout": 60}
    if request.param == "postgresql":
        url, how = make_url(request.getfixturevalue("postgres_url")).set(drivername="postgresql+psycopg"), {}
    made = create_async_engine(url, connect_args=how)
    yield made
    await made.dispose()


@pytest.fixture
def statements() -> Callable[[Engine], list[str]]:
    """Give a list that hears every statement of an engine from then on."""

    def listening(engine: Engine) -> list[str]:
        heard: list[str] = []

        @event.listens_for(engine, "before_cursor_execute")
        def _(connection: object, cursor: object, statement: str, *rest: object) -> None:
            heard.append(statement)

        return heard

    return listening
