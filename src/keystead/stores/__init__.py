"""Where wrapped keys live: one schema on SQLite, PostgreSQL and in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keystead.ports import KeyStore

__all__ = ["open_store"]


def open_store(url: str, *, schema: str | None = None, creates: bool = True) -> KeyStore:
    """Return the store that ``url`` names. Does no I/O: the store connects at its first use.

    ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user@host/database`` (``schema``, or
    ``?schema=`` in the URL, names a PostgreSQL schema) and ``memory://``. Without ``creates`` an SQLite file in which
    there is no store is refused when the store is opened, and not made.

    Raises:
        ConfigurationError: another scheme, or a URL that cannot be read.
        MissingDependencyError: the PostgreSQL driver is not installed.
    """
    from keystead.stores.memory import MemoryKeyStore
    from keystead.stores.sql import SqlKeyStore
    from keystead.stores.urls import parse_url

    parsed = parse_url(url, schema=schema)
    return MemoryKeyStore() if parsed.kind == "memory" else SqlKeyStore(parsed, creates=creates)
