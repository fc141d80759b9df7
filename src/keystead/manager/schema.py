"""A store's schema, for whoever makes it: loads the database library, so that commands import this when they run."""

from __future__ import annotations

from keystead.stores import schema


def migrate(url: str, schema_name: str | None = None) -> str:
    """Bring the store's schema to this release's revision, and return that."""
    schema.migrate(url, schema=schema_name)
    return schema.HEAD


def migration_sql(url: str, schema_name: str | None = None) -> str:
    """Return the statements that make the schema, touching nothing."""
    return schema.migrate(url, schema=schema_name, sql=True) or ""


def grants(role: str, migrator: str | None = None, archiver: str | None = None, schema_name: str | None = None) -> str:
    """Return the grants for a role that an application runs as; see ``keystead.stores.schema.grants``."""
    return schema.grants(role, migrator=migrator, archiver=archiver, schema=schema_name)
