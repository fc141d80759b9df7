"""Where the tables of an engine lie, as other processes find them.

Re-encryption and the destruction of a key look there. A database that is registered under another place would let a key
be destroyed that its rows still need, so that what is not certain is an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, Engine

from keystead.errors import ConfigurationError
from keystead.fields import Field
from keystead.integrations.sqlalchemy.binding import as_itself, binding_of

_CURE = (
    "say where the data are: bind(engine, km, Base, database='postgresql://host/name'), or database='app:<name>' for "
    "what key_sources= of the manager looks through"
)
_OWN = "sqlalchemy.engine.create"
"""Where the function is from that makes connections by the engine's URL."""


def source_of(connection: Connection, column: Column[Any]) -> str | None:
    """Return the URL of the database that a column's table lies in; None for one in memory, which nobody else finds.

    Raises:
        ConfigurationError: that cannot be told.
    """
    engine, schema = connection.engine, getattr(column.table, "schema", None)
    if _is_elsewhere(column, connection.get_execution_options()):
        raise ConfigurationError(f"schema_translate_map= moves the table of {column} to another schema; {_CURE}")
    backend = engine.url.get_backend_name()
    if backend == "sqlite":
        return _sqlite_source(connection, schema or "main")
    if backend != "postgresql":
        raise ConfigurationError(f"a database of {backend} is not looked through by Keystead itself; {_CURE}")
    if getattr(engine.pool._creator, "__module__", None) != _OWN:
        raise ConfigurationError(f"the engine's connections are made by creator=, not by its URL; {_CURE}")
    return engine.url.render_as_string(hide_password=True)


def require_here(connection: Connection, column: Column[Any], field: Field, options: Mapping[str, Any]) -> None:
    """Refuse to write into a schema that was not bound.

    Raises:
        ConfigurationError: execution options name one, and the field is registered in the schema that was.
    """
    if _is_elsewhere(column, options):
        source = binding_of(connection.dialect).sources.get(field.id)
        if source is not None and not source.startswith("app:"):
            raise as_itself(
                ConfigurationError(
                    f"schema_translate_map= moves the table of {column} to a schema that bind() did not see, where no "
                    f"re-encryption and no check before a destruction would look; {_CURE}"
                )
            )


def _is_elsewhere(column: Column[Any], options: Mapping[str, Any]) -> bool:
    schema = getattr(column.table, "schema", None)
    found = (options.get("schema_translate_map") or {}).get(schema, schema)
    return bool(found != schema)


def _sqlite_source(connection: Connection, schema: str) -> str | None:
    """Return the URL of the file that SQLite says a schema lies in."""
    listed = connection.exec_driver_sql("PRAGMA database_list").all()
    path = next((file for _, name, file in listed if name == schema), None)
    if path is None:
        raise ConfigurationError(f"no database is attached as {schema!r}; {_CURE}")
    if not path:
        return None
    if schema != "main":
        raise ConfigurationError(f"the tables of {schema!r} lie in an attached database; {_CURE}")
    engine: Engine = connection.engine
    given = engine.url.database
    if given and os.path.realpath(given) == os.path.realpath(path):
        return f"sqlite:///{os.path.abspath(given)}"
    return f"sqlite:///{path}"
