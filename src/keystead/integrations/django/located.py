"""Where Django's databases lie, as other processes find them: re-encryption, and the check before a destruction."""

from __future__ import annotations

import os
from typing import Any, Final

from sqlalchemy import URL

from keystead.errors import ConfigurationError

_CURE: Final = (
    "say where the data are: bind(km, database='postgresql://host/name'), or database='app:<name>' for what "
    "key_sources= of the manager looks through"
)
_OPTIONS: Final = ("service", "options", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout")


def place_of(connection: Any) -> str:
    """Return what tells a database from the others that this process is connected to."""
    return f"{connection.alias}:{connection.settings_dict['NAME']}"


def url_of(connection: Any, *, with_password: bool = False) -> str | None:
    """Return the URL of the database that a connection's settings name; None for one in memory.

    Raises:
        ConfigurationError: a database that Keystead does not look through itself.
    """
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        name = os.fspath(given["NAME"])
        is_in_memory = connection.is_in_memory_db() or not name
        return None if is_in_memory else f"sqlite:///{os.path.abspath(name)}"
    if connection.vendor != "postgresql":
        raise ConfigurationError(f"a database of {connection.vendor} is not looked through by Keystead itself; {_CURE}")
    options = given.get("OPTIONS") or {}
    url = URL.create(
        "postgresql",
        username=given["USER"] or None,
        password=(given["PASSWORD"] or None) if with_password else None,
        host=None if _is_socket(given["HOST"]) else given["HOST"] or None,
        port=int(given["PORT"]) if given["PORT"] else None,
        database=given["NAME"] or None,
        query={
            **({"host": given["HOST"]} if _is_socket(given["HOST"]) else {}),
            **{name: str(options[name]) for name in _OPTIONS if name in options},
        },
    )
    return url.render_as_string(hide_password=False)


def _is_socket(host: str) -> bool:
    return host.startswith("/")
