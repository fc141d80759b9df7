"""Alembic migrations of the store's schema; run through ``keystead.stores.schema.migrate``."""
