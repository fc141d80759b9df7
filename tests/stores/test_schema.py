"""The schema: made by migrations alone, the same on both databases, guarded by rules that code cannot forget."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url

from keystead.errors import ConfigurationError, ForeignSchemaError, SchemaVersionError, StorageOperationError
from keystead.integrations.alembic import TABLES
from keystead.model import DataKeyState
from keystead.ports import FieldRecord, ReencryptionRecord
from keystead.stores import engines, open_store, schema
from keystead.stores.schema import check_schema, current_revision, grants, migrate
from keystead.stores.tables import VERSION_TABLE, metadata
from keystead.stores.urls import parse_url
from tests.stores.records import data_key, fill

pytestmark = pytest.mark.usefixtures("by_alembic")

FOREIGN_DATA_KEYS = "CREATE TABLE data_keys (version VARCHAR(64) PRIMARY KEY, key_data TEXT, status VARCHAR(16))"


def execute(url: str, *statements: str) -> None:
    with connected(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()


class connected:  # noqa: N801 -- reads as the words of a with statement
    """A plain connection to a store's database, without any of the store's own settings."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(make_url(url.replace("postgresql:", "postgresql+psycopg:")))

    def __enter__(self) -> Connection:
        self._connection = self._engine.connect()
        return self._connection

    def __exit__(self, *given: object) -> None:
        self._connection.close()
        self._engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


def rules(connection: Connection) -> dict[str, Any]:
    """Return what autogenerate does not compare."""
    inspector = inspect(connection)
    found: dict[str, Any] = {
        table: {check["name"]: check["sqltext"] for check in inspector.get_check_constraints(table)}
        for table in metadata.tables
    }
    for table in metadata.tables:
        for index in inspector.get_indexes(table):
            options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
            found[f"{table} {index['name']}"] = index["column_names"], index["unique"], options
    found |= {f"{table} key": inspector.get_pk_constraint(table) for table in metadata.tables}
    return found


def triggers(connection: Connection) -> list[str]:
    if connection.dialect.name == "sqlite":
        query = "SELECT sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    else:
        query = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgrelid, tgname"
    return list(connection.execute(text(query)).scalars())


def differences(connection: Connection) -> list[Any]:
    options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
    found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    return found


def test_migrations_give_exactly_the_tables_of_the_code(empty_url: str, tmp_path: Path) -> None:
    migrate(empty_url)
    with connected(empty_url) as connection:
        assert differences(connection) == []


def test_migrations_give_exactly_the_rules_of_the_code(
    empty_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    migrate(empty_url)
    with connected(empty_url) as connection:
        migrated = rules(connection)
        connection.rollback()
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
            metadata.create_all(connection)
            assert rules(connection) == migrated
            connection.rollback()
            return
    with connected(f"sqlite:///{tmp_path}/made.db") as connection:
        metadata.create_all(connection)
        assert rules(connection) == migrated


def test_the_sql_text_gives_the_same_schema(empty_url: str, tmp_path: Path) -> None:
    script = migrate(empty_url, sql=True)
    assert script is not None
    if empty_url.startswith("sqlite"):
        applied = f"sqlite:///{tmp_path}/by-hand.db"
        with sqlite3.connect(tmp_path / "by-hand.db") as raw:
            raw.executescript(script)
        raw.close()
    else:
        applied = empty_url
        with psycopg.connect(empty_url, autocommit=True) as raw_postgresql:
            raw_postgresql.execute(script.encode())
    with connected(applied) as connection:
        assert differences(connection) == []
        by_hand = rules(connection), triggers(connection)
    check_schema(applied)
    if applied == empty_url:
        execute(empty_url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    migrate(empty_url)
    with connected(empty_url) as connection:
        assert (rules(connection), triggers(connection)) == by_hand


def test_the_sql_text_touches_nothing(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path}/keys.db", sql=True)
    assert list(tmp_path.iterdir()) == []


def test_migrating_again_changes_nothing(durable_url: str) -> None:
    with connected(durable_url) as connection:
        before = connection.execute(text("SELECT * FROM store_state")).all()
    migrate(durable_url)
    with connected(durable_url) as connection:
        assert connection.execute(text("SELECT * FROM store_state")).all() == before


def test_every_revision_is_known_to_the_code() -> None:
    scripts = ScriptDirectory.from_config(schema._alembic({}))
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == schema.REVISIONS


def test_the_autogenerate_filter_knows_every_table() -> None:
    assert {*metadata.tables, VERSION_TABLE} == TABLES


def test_no_column_is_named_as_if_it_held_a_key_in_clear() -> None:
    binary = [column for table in metadata.tables.values() for column in table.columns if "BLOB" in repr(column.type)]
    large = [
        str(column)
        for table in metadata.tables.values()
        for column in table.columns
        if type(column.type).__name__ == "LargeBinary"
    ]
    trail = {"id", "entry", "code", "line", "entry_id", "state", "wrapped_key"}
    assert binary == []
    assert {column for column in large if not column.startswith("audit_")} == {
        "data_keys.wrapped_key",
        "client_encryption_keys.wrapped_private_key",
        "ready_key_pairs.wrapped_private_key",
        "spent_ciphertexts.digest",
        "api_tokens.code",
        "access_roles.code",
        "access_secret_ids.code",
        "console_sessions.code",
        "approvals.code",
        "subjects.id",
        "erasure_state.head",
    }
    assert {column.partition(".")[2] for column in large if column.startswith("audit_")} == trail


async def test_a_store_lives_in_a_postgresql_schema_of_its_own(postgres_url: str) -> None:
    migrate(postgres_url, schema="keys_of_app")
    execute(postgres_url, "CREATE TABLE leases (flat int)")
    store = open_store(f"{postgres_url}&schema=keys_of_app")
    await store.open()
    await fill(store, data_key(id=1))
    await store.aclose()
    with connected(postgres_url) as connection:
        assert connection.execute(text("SELECT id FROM keys_of_app.data_keys")).scalars().all() == [1]
    assert current_revision(postgres_url, schema="keys_of_app") == schema.HEAD


def test_the_sql_text_makes_the_postgresql_schema(postgres_url: str) -> None:
    script = migrate(postgres_url, schema="keys_of_app", sql=True)
    assert script is not None
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute(script.encode())
    check_schema(postgres_url, schema="keys_of_app")


async def test_an_empty_postgresql_database_is_refused_with_the_cure(postgres_url: str) -> None:
    with pytest.raises(SchemaVersionError, match="keystead migrate"):
        await open_store(postgres_url).open()
    assert current_revision(postgres_url) is None


async def test_an_sqlite_file_with_other_tables_is_not_filled_by_opening(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    execute(url, "CREATE TABLE people (name TEXT)")
    with pytest.raises(SchemaVersionError, match="keystead migrate"):
        await open_store(url).open()
    migrate(url)
    store = open_store(url)
    await store.open()
    await store.aclose()


async def test_a_foreign_key_table_is_refused_before_anything_is_written(empty_url: str) -> None:
    execute(empty_url, FOREIGN_DATA_KEYS)
    for attempt in (open_store(empty_url).open, None):
        with pytest.raises(ForeignSchemaError, match=r"data_keys.*import legacy"):
            if attempt is None:
                migrate(empty_url)
            else:
                await attempt()
    with connected(empty_url) as connection:
        assert inspect(connection).get_table_names() == ["data_keys"]


@pytest.mark.parametrize(("made_by", "cure"), [("0000", "keystead migrate"), ("9999", "upgrade keystead")])
async def test_another_version_of_the_schema_is_refused_with_the_cure(
    durable_url: str, made_by: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "REVISIONS", ("0000", *schema.REVISIONS))
    execute(
        durable_url,
        f"UPDATE {VERSION_TABLE} SET version_num = '{made_by}'",
        f"UPDATE store_state SET usable_from = '{made_by}'",
    )
    with pytest.raises(SchemaVersionError, match=cure):
        await open_store(durable_url).open()


def test_migrating_a_newer_schema_is_refused(durable_url: str) -> None:
    execute(durable_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaVersionError, match="upgrade keystead"):
        migrate(durable_url)


async def test_a_newer_schema_that_says_it_is_still_usable_is_used(durable_url: str) -> None:
    execute(durable_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    store = open_store(durable_url)
    await store.open()
    await fill(store, data_key())
    await store.aclose()


@pytest.mark.parametrize(
    "forbidden",
    [
        "DELETE FROM data_keys",
        "DELETE FROM keyrings",
        "UPDATE data_keys SET id = 2",
        "UPDATE data_keys SET keyring = 'other'",
        "UPDATE data_keys SET version = 2",
        "UPDATE data_keys SET purpose = 'wrap'",
        "UPDATE data_keys SET algorithm = 'AES-128-GCM'",
        "UPDATE data_keys SET created = '2000-01-01T00:00:00.000000Z'",
        'UPDATE data_keys SET context = \'{"tenant":"b"}\'',
        "UPDATE data_keys SET wrapped_key = NULL",
        "UPDATE data_keys SET state = 'imagined'",
        "UPDATE keyrings SET next_version = 1 WHERE name = 'default'",
        "UPDATE keyrings SET wrap_keyring = 'other'",
        "INSERT INTO store_state SELECT 2, store_id, epoch, restored, usable_from, created_at FROM store_state",
    ],
)
async def test_the_database_itself_refuses(durable_url: str, forbidden: str) -> None:
    store = open_store(durable_url)
    await fill(store, data_key(id=1))
    async with store.transaction() as work:
        await work.take_version("default")
        await work.take_version("default")
    with pytest.raises(StorageOperationError):
        async with store._connections.begin(is_writing=True) as connection:  # type: ignore[attr-defined]
            from keystead.stores.failures import ours_only

            with ours_only():
                await connection.exec_driver_sql(forbidden)
    await store.aclose()


@pytest.mark.parametrize("table", ["data_keys", "keyrings"])
def test_postgresql_refuses_to_truncate_keys(postgres_url: str, table: str) -> None:
    migrate(postgres_url)
    with pytest.raises(psycopg.errors.RaiseException), psycopg.connect(postgres_url) as raw:
        raw.execute(f"TRUNCATE {table} CASCADE".encode())


async def test_a_destroyed_key_stays_destroyed_in_the_database_itself(durable_url: str) -> None:
    store = open_store(durable_url)
    await fill(store, data_key(id=1, state=DataKeyState.DESTROYED, wrapped_key=None))
    await store.aclose()
    value = "zeroblob(60)" if durable_url.startswith("sqlite") else "decode(repeat('00', 60), 'hex')"
    with pytest.raises(Exception, match="never changes"):
        execute(durable_url, f"UPDATE data_keys SET state = 'active', wrapped_key = {value}")


@pytest.fixture
def roles(postgres_url: str) -> Iterator[tuple[str, str]]:
    """A database whose migrator made the schema and whose application role holds the printed grants."""
    execute(postgres_url, "CREATE ROLE keystead_migrator LOGIN", 'CREATE ROLE "keystead-app" LOGIN')
    execute(postgres_url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    printed = grants("keystead-app", migrator="keystead_migrator").splitlines()
    execute(postgres_url, printed[0])
    migrator = postgres_url.replace("postgres@", "keystead_migrator@")
    migrate(migrator)
    execute(migrator, *printed[1:])
    yield postgres_url, postgres_url.replace("postgres@", "keystead-app@")
    execute(
        postgres_url,
        'DROP OWNED BY "keystead-app", keystead_migrator CASCADE',
        'DROP ROLE "keystead-app", keystead_migrator',
    )


async def test_the_application_role_can_work(roles: tuple[str, str]) -> None:
    store = open_store(roles[1])
    await store.open()
    await fill(store, data_key(id=1))
    async with store.transaction() as work:
        await work.find_keyring("default", lock=True)
        lease = await work.claim_lease("rotate", "a", 1000)
        assert lease is not None
        await work.drop_lease(lease)
        await work.beat("a", 1, 1000)
        await work.drop_expired()
        await work.drop_node("a")
        await work.put_field(FieldRecord("people.email", "default", "index", "app:people"))
        await work.note_indexed("people.email", 1)
        await work.drop_field("people.email")
        await work.add_reencryption(ReencryptionRecord("job", "people.email", "app:people", 500, "{}"))
        await work.cut_chunk("job", None, "1", low=None, high="1", exhausted=True, owner="a", ttl_ms=1000)
        chunk = await work.claim_chunk("job", "a", 1000)
        assert chunk is not None
        await work.save_chunk(chunk, 0)
    await store.aclose()


@pytest.mark.parametrize(
    "forbidden", ["DELETE FROM data_keys", "TRUNCATE data_keys", "DROP TABLE data_keys", "DELETE FROM keyrings"]
)
def test_the_application_role_cannot_remove_keys(roles: tuple[str, str], forbidden: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(roles[1]) as raw:
        raw.execute(forbidden.encode())


def test_grants_without_a_migrator_name_the_application_alone() -> None:
    printed = grants("app", schema="keys_of_app")
    assert "CREATE" not in printed
    assert 'ON SCHEMA "keys_of_app" TO "app"' in printed
    assert not any("DELETE" in line and "data_keys" in line for line in printed.splitlines())


def test_a_role_name_that_needs_escaping_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        grants('app"; DROP TABLE data_keys; --')


def test_a_memory_store_has_nothing_to_migrate() -> None:
    with pytest.raises(ConfigurationError):
        migrate("memory://")


def test_a_write_of_the_migration_waits_for_its_turn(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as raw:
        raw.execute("SELECT pg_advisory_xact_lock(%s)", [schema._MIGRATION_LOCK])
        engine = engines.sync_engine(parse_url(postgres_url))
        with engine.connect() as connection:
            connection.exec_driver_sql("SET lock_timeout = '200ms'")
            connection.commit()
            with pytest.raises(Exception, match="lock timeout"):
                schema._migrate_connection(connection, None)
