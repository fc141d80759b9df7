"""Where fields' columns lie, and under which id each place of a field is registered."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

from keystead.errors import InvalidInputError
from keystead.fields.field import Field
from keystead.ports import UnitOfWork

if TYPE_CHECKING:
    from sqlalchemy import URL

_SOURCES: Final = (
    "a field's source is the URL of its database, sqlite:///app.db or postgresql://user@host/database, or app:<name> "
    "for one that the application looks through itself (key_sources=)"
)
_KEPT_OPTIONS: Final = frozenset(
    {
        "application_name",
        "connect_timeout",
        "host",
        "hostaddr",
        "options",
        "port",
        "schema",
        "service",
        "sslcert",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "target_session_attrs",
        "user",
    }
)
"""Options of libpq that say where a database is and hold no secret. What a driver adds of its own is left out."""
_PLACE_OPTIONS: Final = ("hostaddr", "options", "schema", "service")
"""Those of them that say which table is meant, beside host and port; the others say how to get there."""


def locate(field: Field, source: str) -> str:
    """Return the locator of a field's column, which holds no password.

    Raises:
        InvalidInputError: the source is no URL of a database that can be looked through, and no ``app:<name>``.
    """
    if source.startswith("app:") and source != "app:":
        return source
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(source)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError, TypeError):
        raise InvalidInputError(_SOURCES) from None
    if backend == "sqlite":
        return f"sql:{_sqlite(url)}#{field.table}.{field.column}"
    if backend in ("postgresql", "postgres"):
        return f"sql:{_postgresql(url)}#{field.table}.{field.column}"
    raise InvalidInputError(_SOURCES)


async def registration_of(work: UnitOfWork, field_id: str, locator: str) -> str:
    """Return the id under which a field's column in one place is registered, or is to be.

    The place that is registered first has the field's own id, every other one ``<id>@`` and 8 hex digits that follow
    from the place. Two locators that tell only the user or the way to the database apart name one place.
    """
    place = _place(locator)
    try:
        other = f"{field_id}@{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    except UnicodeEncodeError:
        raise InvalidInputError(f"the place of field {field_id} has a lone surrogate: name it by UTF-8") from None
    first = await work.find_field(field_id)
    if first is None or _place(first.locator) == place:
        return other if await work.find_field(other) is not None else field_id
    return other


def _place(locator: str) -> str:
    """Return what two locators of one column have in common."""
    if not locator.startswith("sql:postgresql:"):
        return locator
    from sqlalchemy import make_url

    address, _, target = locator.removeprefix("sql:").rpartition("#")
    url = make_url(address)
    options = {name: str(value) for name, value in url.query.items()}
    parts = {
        "host": url.host or options.get("host", ""),
        "port": str(url.port or options.get("port", "5432")),
        "database": url.database or url.username or options.get("user", ""),
        **{name: options.get(name, "") for name in _PLACE_OPTIONS},
    }
    return f"{sorted(parts.items())}#{target}"


def _sqlite(url: URL) -> str:
    if not url.database or url.database.startswith((":memory:", "file:")) or set("?#") & set(url.database):
        raise InvalidInputError(
            "a field's SQLite database is a file that other processes find by its path; for a database in memory or "
            "under a file: URI, register app:<name>"
        )
    return "sqlite:///" + os.path.abspath(url.database)


def _postgresql(url: URL) -> str:
    options = {name: value for name, value in url.query.items() if name in _KEPT_OPTIONS}
    plain = url._replace(drivername="postgresql", password=None).difference_update_query(url.query)
    return plain.update_query_dict(options).render_as_string(hide_password=False).replace("#", "%23")
