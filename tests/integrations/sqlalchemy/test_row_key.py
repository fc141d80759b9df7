"""A migration gives a table with rows its row key, and autogenerate then finds nothing to do."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import CheckConstraint, Engine, MetaData, create_engine, inspect, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from keystead import blocking
from keystead.errors import InvalidInputError
from keystead.integrations.alembic import add_row_key
from keystead.integrations.sqlalchemy import Exact, bind, encrypted

ROWS: Final = 3000
ENVIRONMENT: Final = """\
from alembic import context

from keystead.integrations.alembic import include_name, render_item

given = context.config.attributes
options = {"target_metadata": given["metadata"], "include_name": include_name, "render_item": render_item}
if context.is_offline_mode():
    context.configure(url=str(given["engine"].url), literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with given["engine"].connect() as connection:
        context.configure(connection=connection, render_as_batch=True, **options)
        with context.begin_transaction():
            context.run_migrations()
"""
TEMPLATE: Final = """\
import sqlalchemy as sa
from alembic import op

from keystead.integrations.alembic import add_row_key

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}
"""
CONVENTION: Final = {"ix": "index_of_%(table_name)s_by_%(column_0_name)s"}


def people(convention: dict[str, str] | None = None) -> tuple[Any, Any]:
    """Return the class of a table as it was, and as it is to be."""

    class Before(DeclarativeBase):
        metadata = MetaData(naming_convention=convention)

    class Former(Before):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(index=True)

    class After(DeclarativeBase):
        metadata = MetaData(naming_convention=convention)

    class User(After):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(index=True)
        note: Mapped[str | None] = encrypted(indexes=[Exact()])

    return Former, User


class Migrations:
    """An application's folder of migrations, and its database."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.engine, self._folder = engine, folder
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(ENVIRONMENT)
        (folder / "script.py.mako").write_text(TEMPLATE)
        self.said = io.StringIO()
        self._config = Config(output_buffer=self.said, stdout=io.StringIO())
        self._config.set_main_option("script_location", str(folder))
        self._config.set_main_option("path_separator", "os")
        self._config.attributes["engine"] = engine

    def revise(self, number: str, metadata: MetaData) -> str:
        """Let autogenerate write a revision, and return its text."""
        self._config.attributes["metadata"] = metadata
        command.revision(self._config, rev_id=number, autogenerate=True)
        [path] = (self._folder / "versions").glob(f"{number}*.py")
        return path.read_text()

    def edit(self, number: str, content: str) -> None:
        """Replace the text of a revision."""
        [path] = (self._folder / "versions").glob(f"{number}*.py")
        path.write_text(content)

    def upgrade(self, revision: str = "head", *, sql: bool = False) -> None:
        """Run the revisions, or write their SQL."""
        command.upgrade(self._config, revision, sql=sql)

    def check(self) -> None:
        """Raise where autogenerate would write something."""
        command.check(self._config)


@pytest.fixture(params=["sqlite", "postgresql"])
def migrations(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Migrations]:
    """An empty environment on each database."""
    url = f"sqlite:///{tmp_path}/app.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    yield Migrations(tmp_path / "migrations", engine)
    engine.dispose()


def with_rows(migrations: Migrations, convention: dict[str, str] | None = None) -> Any:
    """Make the table as it was, with rows, and the migration after it as the guide says; return the new class."""
    former, user = people(convention)
    migrations.revise("0001", former.metadata)
    migrations.upgrade()
    with migrations.engine.begin() as connection:
        connection.execute(former.__table__.insert(), [{"name": f"person {n}"} for n in range(ROWS)])
    written = migrations.revise("0002", user.metadata)
    assert len(re.findall("keystead_row", written)) == 3
    written = re.sub(r"\n.*(add_column|create_index).*keystead_row.*", "", written)
    migrations.edit("0002", written.replace("    with op.batch", '    add_row_key(op, "users")\n    with op.batch', 1))
    return user


def keys(engine: Engine) -> list[UUID]:
    with engine.connect() as connection:
        return [UUID(str(each)) for each in connection.execute(text("SELECT keystead_row FROM users")).scalars()]


@pytest.mark.parametrize("convention", [None, CONVENTION])
def test_every_row_gets_a_random_key_and_autogenerate_finds_no_difference(
    migrations: Migrations, km: blocking.KeyManager, convention: dict[str, str] | None
) -> None:
    user = with_rows(migrations, convention)
    migrations.upgrade()
    migrations.check()
    drawn = keys(migrations.engine)
    assert len(set(drawn)) == len(drawn) == ROWS
    assert {each.version for each in drawn} == {4}
    bind(migrations.engine, km, user)
    with Session(migrations.engine) as session:
        for each in session.scalars(select(user).limit(5)):
            each.note = f"of {each.name}"
        session.add(user(name="new", note="of new"))
        session.commit()
        session.expunge_all()
        for name in ("person 3", "new"):
            assert session.scalars(select(user).where(user.note == f"of {name}")).one().name == name


def test_the_column_is_not_null_unique_and_without_a_default(migrations: Migrations) -> None:
    with_rows(migrations)
    migrations.upgrade()
    [column] = [each for each in inspect(migrations.engine).get_columns("users") if each["name"] == "keystead_row"]
    assert (column["nullable"], column["default"]) == (False, None)
    [index] = [
        each for each in inspect(migrations.engine).get_indexes("users") if "keystead_row" in each["column_names"]
    ]
    assert (index["name"], bool(index["unique"])) == ("ix_users_keystead_row", True)


def test_the_sql_of_the_migration_does_the_same_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    migrations = Migrations(tmp_path / "migrations", engine)
    with_rows(migrations)
    migrations.upgrade("0001:0002", sql=True)
    with psycopg.connect(postgres_url) as raw:
        raw.execute(migrations.said.getvalue().encode())
    migrations.check()
    assert len(set(keys(engine))) == ROWS
    engine.dispose()


def test_a_table_in_a_schema_of_its_own_gets_a_row_key(postgres_url: str) -> None:
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA hr"))
        connection.execute(text("CREATE TABLE hr.staff (id INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO hr.staff VALUES (1), (2)"))
        add_row_key(Operations(MigrationContext.configure(connection)), "staff", schema="hr", column="row_key")
        assert connection.execute(text("SELECT count(DISTINCT row_key) FROM hr.staff")).scalar() == 2
    engine.dispose()


def test_what_is_told_of_the_table_is_kept_when_sqlite_makes_it_anew(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT CONSTRAINT named CHECK (name <> ''))")
        )
        connection.execute(text("INSERT INTO users (name) VALUES ('ada'), ('bob')"))
        operations = Operations(MigrationContext.configure(connection))
        add_row_key(operations, "users", table_args=(CheckConstraint("id > 0", name="positive"),))
        made = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'users'")).scalar_one()
    engine.dispose()
    assert "positive" in made
    assert "named" in made


def test_a_table_whose_rows_others_refer_to_is_not_made_anew_while_sqlite_would_delete_those(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    with engine.connect() as connection:
        connection.execute(text("PRAGMA foreign_keys = ON"))
        connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE posts (author INTEGER REFERENCES users ON DELETE CASCADE)"))
        connection.execute(text("INSERT INTO users VALUES (1)"))
        connection.execute(text("INSERT INTO posts VALUES (1)"))
        with pytest.raises(InvalidInputError, match="foreign_keys = OFF"):
            add_row_key(Operations(MigrationContext.configure(connection)), "users")
        assert connection.execute(text("SELECT count(*) FROM posts")).scalar() == 1
    engine.dispose()


def test_another_database_is_refused() -> None:
    context = MigrationContext.configure(dialect_name="oracle", opts={"as_sql": True})
    with pytest.raises(InvalidInputError, match="not on oracle"):
        add_row_key(Operations(context), "users")
