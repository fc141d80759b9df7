"""Alembic's entry: runs on the connection it is given, or writes SQL for the dialect it is given."""

from __future__ import annotations

from typing import Any

from alembic import context

from keystead.stores.tables import VERSION_TABLE

given = context.config.attributes
connection = given.get("connection")
options: dict[str, Any] = {
    "version_table": VERSION_TABLE,
    "version_table_schema": given.get("schema"),
    "transactional_ddl": True,
}
if connection is None:
    context.configure(dialect_name=given["dialect"], as_sql=True, literal_binds=True, **options)
else:
    context.configure(connection=connection, **options)
with context.begin_transaction():
    context.run_migrations()
