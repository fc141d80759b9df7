"""The schema's version: migrating to it, and refusing to work on another."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, column, select, table, text

from keystead.errors import ConfigurationError, ForeignSchemaError, SchemaVersionError
from keystead.stores.engines import IS_WRITING, sync_engine
from keystead.stores.failures import ours_only
from keystead.stores.handles import open_handles
from keystead.stores.tables import VERSION_TABLE, metadata
from keystead.stores.urls import StoreUrl, checked_schema, parse_url

REVISIONS: Final = tuple(f"{number:04}" for number in range(1, 19))
"""Every revision this release knows, oldest first; the last is the one it needs."""

HEAD: Final = REVISIONS[-1]

_OUR_TABLES: Final = frozenset(metadata.tables)
_MIGRATION_LOCK: Final = 0x6B65797374656164
"""PostgreSQL advisory lock of migrations: the ASCII bytes of the project's name."""

_FOREIGN: Final = (
    "the database holds {names}, and Keystead did not make them: give the store a file, a database or a PostgreSQL "
    "schema (schema=, or ?schema= in the URL) of its own; an older key table is read by `keystead import legacy --from`"
)


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    """What stands at a store's URL: the names of its tables, our revision, and from which revision on it is usable."""

    tables: frozenset[str]
    revision: str | None = None
    usable_from: str | None = None


def migrate(url: str | StoreUrl, *, schema: str | None = None, sql: bool = False) -> str | None:
    """Bring the schema to this release's revision, creating an SQLite file that is absent. Synchronous.

    With ``sql`` nothing is touched: the statements that create the schema are returned as text. Without a live
    connection it cannot be told which revision a store has, so the text begins at an empty one.

    Raises:
        ForeignSchemaError: tables of our names are there, and are not ours; nothing was changed.
        SchemaVersionError: the schema is newer than this release.
        ConfigurationError: a memory store has nothing to migrate.
    """
    parsed = parse_url(url, schema=schema)
    if parsed.kind == "memory":
        raise ConfigurationError("a memory store makes its schema itself; there is nothing to migrate")
    if sql:
        return _as_sql(parsed)
    if parsed.path is not None:
        from keystead.stores.creation import create_file

        create_file(parsed.path)
    with ours_only(), open_handles.transaction(), sync_engine(parsed).connect() as connection:
        writing = connection.execution_options(**{IS_WRITING: True})
        with writing.begin():
            _migrate_connection(writing, parsed.schema)
    return None


def current_revision(url: str | StoreUrl, *, schema: str | None = None) -> str | None:
    """Return the schema's revision, or None where there is none."""
    parsed = parse_url(url, schema=schema)
    with ours_only(), open_handles.transaction(), sync_engine(parsed).connect() as connection:
        return read_facts(connection, parsed.schema).revision


def check_schema(url: str | StoreUrl, *, schema: str | None = None) -> None:
    """Raise what ``check`` raises for the store at ``url``."""
    parsed = parse_url(url, schema=schema)
    with ours_only(), open_handles.transaction(), sync_engine(parsed).connect() as connection:
        check_connection(connection, parsed.schema)


def check_connection(connection: Connection, schema: str | None = None) -> None:
    """Raise what ``check`` raises for the store behind ``connection``."""
    check(read_facts(connection, schema))


def check(facts: SchemaFacts) -> None:
    """Return if this release may work on a store with these facts.

    Raises:
        ForeignSchemaError: tables of our names are there, and are not ours.
        SchemaVersionError: no schema, an older or a newer one; the message names the cure.
    """
    refuse_foreign(facts)
    if facts.revision is None:
        raise SchemaVersionError("the database holds no key store yet: run `keystead migrate`")
    if facts.revision == HEAD:
        return
    if facts.revision in REVISIONS:
        raise SchemaVersionError(
            f"the store's schema is older ({facts.revision}) than this release needs ({HEAD}): run `keystead migrate`"
        )
    if facts.usable_from not in REVISIONS:
        raise SchemaVersionError(
            f"the store's schema ({facts.revision}) is newer than this release knows ({HEAD}): upgrade keystead",
            is_newer=True,
        )


def refuse_foreign(facts: SchemaFacts) -> None:
    """Raise ``ForeignSchemaError`` when tables of our names are there without our version table."""
    foreign = sorted(facts.tables & _OUR_TABLES)
    if foreign and VERSION_TABLE not in facts.tables:
        names = "a table named " + foreign[0] if len(foreign) == 1 else "tables named " + ", ".join(foreign)
        raise ForeignSchemaError(_FOREIGN.format(names=names))


def migrate_if_empty(connection: Connection, schema: str | None = None) -> None:
    """Create the schema where no table at all is; leave anything else as it is."""
    if not _tables(connection, schema):
        _migrate_connection(connection, schema)


def read_facts(connection: Connection, schema: str | None = None) -> SchemaFacts:
    """Return what stands at the store behind ``connection``."""
    tables = _tables(connection, schema)
    if VERSION_TABLE not in tables:
        return SchemaFacts(tables)
    version = table(VERSION_TABLE, column("version_num"), schema=schema)
    revision = connection.execute(select(version.c.version_num)).scalar()
    usable_from = None
    if revision is not None and revision not in REVISIONS:
        state = table("store_state", column("usable_from"), schema=schema)
        usable_from = connection.execute(select(state.c.usable_from)).scalar()
    return SchemaFacts(tables, revision, usable_from)


def _tables(connection: Connection, schema: str | None) -> frozenset[str]:
    if connection.dialect.name == "sqlite":
        return frozenset(
            connection.execute(text("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")).scalars()
        )
    query = text(
        "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = coalesce(:schema, current_schema()) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
    ).bindparams(bindparam("schema", schema))
    return frozenset(connection.execute(query).scalars())


def _migrate_connection(connection: Connection, schema: str | None) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)").bindparams(lock=_MIGRATION_LOCK))
        known = connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema}).scalar()
        if schema is not None and not known:
            connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
    facts = read_facts(connection, schema)
    refuse_foreign(facts)
    if facts.revision == HEAD:
        return
    if facts.revision is not None and facts.revision not in REVISIONS:
        raise SchemaVersionError(
            f"the store's schema ({facts.revision}) is newer than this release knows ({HEAD}): upgrade keystead",
            is_newer=True,
        )
    from alembic import command

    configuration = _alembic({"connection": connection, "schema": schema})
    command.upgrade(configuration, "head")


def _as_sql(url: StoreUrl) -> str:
    from alembic import command

    text_of = io.StringIO()
    kind: Literal["sqlite", "postgresql"] = "sqlite" if url.kind == "sqlite" else "postgresql"
    configuration = _alembic({"dialect": kind, "schema": url.schema}, text_of)
    command.upgrade(configuration, "head", sql=True)
    made = f'CREATE SCHEMA IF NOT EXISTS "{url.schema}";\n\n' if url.schema else ""
    return made + text_of.getvalue()


def _alembic(attributes: dict[str, Any], output: io.StringIO | None = None) -> Any:
    from alembic.config import Config

    configuration = Config(output_buffer=output) if output is not None else Config()
    configuration.set_main_option("script_location", "keystead.stores:migrations")
    configuration.set_main_option("path_separator", "os")
    configuration.attributes.update(attributes)
    return configuration


_ROLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")


_RIGHTS: Final = (
    ("SELECT", (VERSION_TABLE,)),
    ("SELECT, UPDATE", ("store_state",)),
    ("SELECT, INSERT, UPDATE", ("keyrings", "data_keys")),
    ("SELECT, INSERT, UPDATE, DELETE", ("leases", "nodes", "key_uses", "fields")),
    ("SELECT, INSERT, UPDATE", ("reencryptions", "reencryption_chunks")),
    ("SELECT, INSERT, UPDATE, DELETE", ("reencryption_wishes", "reencryption_listeners")),
    ("SELECT, INSERT, DELETE", ("audit_entries",)),
    ("SELECT, INSERT, UPDATE, DELETE", ("audit_sessions",)),
    ("SELECT, INSERT, UPDATE", ("audit_state",)),
    ("SELECT, INSERT", ("audit_log",)),
    ("SELECT, INSERT, UPDATE, DELETE", ("client_devices",)),
    ("SELECT, INSERT, UPDATE, DELETE", ("api_tokens", "access_roles", "access_secret_ids", "console_sessions")),
    ("SELECT, INSERT, UPDATE, DELETE", ("approvals", "store_rules")),
    ("SELECT, INSERT, DELETE", ("subjects",)),
    ("SELECT, INSERT, UPDATE", ("erasure_state",)),
    ("SELECT, INSERT, UPDATE, DELETE", ("client_encryption_keys", "ready_key_pairs", "user_credentials")),
    ("SELECT, INSERT, DELETE", ("spent_ciphertexts", "encryption_metrics")),
    ("SELECT, INSERT, UPDATE, DELETE", ("encryption_metric_counts", "encryption_key_metric_counts")),
    ("SELECT, INSERT, UPDATE, DELETE", ("encryption_key_failure_counts", "encryption_device_metric_counts")),
)
"""What the application does with each table."""


def grants(role: str, *, migrator: str | None = None, archiver: str | None = None, schema: str | None = None) -> str:
    """Return SQL that gives ``role`` what the application needs and nothing more: no DELETE, no TRUNCATE of keys.

    ``migrator`` is granted what `keystead migrate` needs, ``archiver`` what `keystead audit archive` does: besides the
    application's rights, to delete records of the audit trail.

    Raises:
        ConfigurationError: a name that would need escaping.
    """
    for name in (role, migrator, archiver):
        if name is not None and not _ROLE_NAME.fullmatch(name):
            raise ConfigurationError("a role name has letters, digits, '_', '-' and '$', and begins with a letter")
    named = f'"{checked_schema(schema) or "public"}"'

    def tables(*names: str) -> str:
        return ", ".join(f'{named}."{name}"' for name in names)

    lines = [] if migrator is None else [f'GRANT USAGE, CREATE ON SCHEMA {named} TO "{migrator}";']
    for each in (role, archiver):
        if each is not None:
            lines.append(f'GRANT USAGE ON SCHEMA {named} TO "{each}";')
            lines.append(f'REVOKE ALL ON {tables(*sorted(_OUR_TABLES), VERSION_TABLE)} FROM "{each}";')
            lines += [f'GRANT {rights} ON {tables(*names)} TO "{each}";' for rights, names in _RIGHTS]
    if archiver is not None:
        lines.append(f'GRANT DELETE ON {tables("audit_log")} TO "{archiver}";')
    return "\n".join(lines) + "\n"
