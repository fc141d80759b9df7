"""Alembic for applications: autogenerate keeps off Keystead's tables and writes encrypted columns; row keys are added.

In the application's ``env.py``::

    from keystead.integrations.alembic import include_name, render_item

    context.configure(
        connection=connection, target_metadata=metadata, include_name=include_name, render_item=render_item
    )

``include_name`` is for applications whose database holds Keystead's tables too, ``render_item`` for those that have
encrypted columns: they are plain columns of bytes in a migration, which needs neither keys nor Keystead.

``add_row_key(op, "users")``, in a migration, gives a table that has rows already the row key that its encrypted columns
are bound to.

An application with a filter of its own combines the two: ``include_name=lambda *given: mine(*given) and
include_name(*given)``. ``keystead migrate`` changes Keystead's tables, and the application's migrations change the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from keystead.errors import InvalidInputError

TABLES: Final = frozenset(
    {
        "access_roles",
        "access_secret_ids",
        "api_tokens",
        "approvals",
        "audit_entries",
        "audit_log",
        "audit_sessions",
        "audit_state",
        "client_devices",
        "client_encryption_keys",
        "console_sessions",
        "data_keys",
        "encryption_device_metric_counts",
        "encryption_key_failure_counts",
        "encryption_key_metric_counts",
        "encryption_metric_counts",
        "encryption_metrics",
        "erasure_state",
        "fields",
        "job_runs",
        "key_uses",
        "keyrings",
        "keystead_version",
        "leases",
        "nodes",
        "ready_key_pairs",
        "reencryption_chunks",
        "reencryption_listeners",
        "reencryption_wishes",
        "reencryptions",
        "spent_ciphertexts",
        "store_rules",
        "store_state",
        "subjects",
        "transit_keys",
        "transit_settings",
        "user_credentials",
    }
)
"""Names of Keystead's tables; a test compares them with the schema."""


def include_name(
    name: str | None, type_: str, parent_names: Mapping[str, str | None], *, schema: str | None = None
) -> bool:
    """Return whether autogenerate may reflect what is so named; False for Keystead's tables and what they hold.

    ``schema`` is the PostgreSQL schema the store is in; None means the connection's default one.
    """
    table = name if type_ == "table" else parent_names.get("table_name")
    return table not in TABLES or parent_names.get("schema_name") != schema


def include_object(
    object_: Any, name: str | None, type_: str, reflected: bool, compare_to: Any, *, schema: str | None = None
) -> bool:
    """Return whether autogenerate may compare ``object_``; for an application that filters objects, not names.

    A table of the application's own metadata is compared even if it is named like one of ours: migrating it would
    be refused anyway, and silence would hide it.
    """
    table = object_ if type_ == "table" else getattr(object_, "table", None)
    if table is None or not reflected:
        return True
    return table.name not in TABLES or table.schema != schema


def render_item(type_: str, object_: Any, autogen_context: Any) -> str | Literal[False]:
    """Return how a migration writes the type of an encrypted column, and False for everything else."""
    from keystead.integrations.sqlalchemy import EncryptedBytes

    if type_ == "type" and isinstance(object_, EncryptedBytes):
        return f"{autogen_context.opts['sqlalchemy_module_prefix']}LargeBinary()"
    return False


def add_row_key(op: Any, table: str, *, schema: str | None = None, column: str = "keystead_row", **batch: Any) -> None:
    """Add the row key to a table: NOT NULL, with a unique index, and a random UUID in each row that is there.

    For autogenerate's ``add_column`` and ``create_index`` of that column, which would fail on a table with rows. The
    UUIDs are drawn by the database, version 4, in the form that SQLAlchemy's ``Uuid`` keeps; whoever uses the table
    meanwhile waits. On SQLite the table is made anew, as in every batch migration: what Alembic cannot read of a table
    there, such as a CHECK without a name, has to be said again by ``table_args``. ``--sql`` works on PostgreSQL, and on
    SQLite with ``copy_from``.

    Args:
        op: Alembic's ``op``.
        table: the table's name.
        schema: the schema it is in, if not the default one.
        column: the row key's name.
        batch: what ``op.batch_alter_table`` takes besides, such as ``table_args`` or ``copy_from``.

    Raises:
        InvalidInputError: another database than SQLite or PostgreSQL, or an SQLite connection that enforces foreign
            keys: making the table anew would delete the rows that refer to it.
    """
    import sqlalchemy as sa

    dialect = op.get_context().dialect
    if dialect.name == "postgresql":
        # One rewrite of the table; an UPDATE would leave each row behind a second time.
        drawn = sa.Column(column, sa.Uuid(), nullable=False, server_default=sa.text("gen_random_uuid()"))
        op.add_column(table, drawn, schema=schema)
        op.alter_column(table, column, server_default=None, schema=schema)
        op.create_index(None, table, [column], unique=True, schema=schema)
        return
    if dialect.name != "sqlite":
        raise InvalidInputError(f"a row key is added on SQLite and PostgreSQL, not on {dialect.name}")
    if not op.get_context().as_sql and op.get_bind().scalar(sa.text("PRAGMA foreign_keys")):
        raise InvalidInputError(
            f"SQLite makes table {table!r} anew, and would delete the rows of others that refer to it: let env.py run "
            "`PRAGMA foreign_keys = OFF` on the connection before its transaction begins"
        )
    op.add_column(table, sa.Column(column, sa.Uuid(), nullable=True), schema=schema)
    rows = sa.table(table, sa.column(column, sa.Text()), schema=schema)
    op.execute(rows.update().values({column: sa.text(_RANDOM_UUID)}))
    with op.batch_alter_table(table, schema=schema, **batch) as altered:
        altered.alter_column(column, existing_type=sa.Uuid(), nullable=False)
    op.create_index(None, table, [column], unique=True, schema=schema)


_RANDOM_UUID: Final = (
    "lower(hex(randomblob(6)) || '4' || substr(hex(randomblob(2)), 2) || substr('89AB', 1 + (random() & 3), 1) || "
    "substr(hex(randomblob(2)), 2) || hex(randomblob(6)))"
)
"""A UUID of version 4 in hex, in SQLite's SQL, where each row draws its own."""
