"""Keep an application's Alembic autogenerate off Keystead's tables, and let it write encrypted columns.

In the application's ``env.py``::

    from keystead.integrations.alembic import include_name, render_item

    context.configure(
        connection=connection, target_metadata=metadata, include_name=include_name, render_item=render_item
    )

``include_name`` is for applications whose database holds Keystead's tables too, ``render_item`` for those that have
encrypted columns: they are plain columns of bytes in a migration, which needs neither keys nor Keystead.

An application with a filter of its own combines the two: ``include_name=lambda *given: mine(*given) and
include_name(*given)``. ``keystead migrate`` changes Keystead's tables, and the application's migrations change the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

TABLES: Final = frozenset(
    {
        "data_keys",
        "fields",
        "key_uses",
        "keyrings",
        "keystead_version",
        "leases",
        "nodes",
        "reencryption_chunks",
        "reencryptions",
        "store_state",
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
