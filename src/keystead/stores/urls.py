"""Store URLs. Nothing here prints a URL: it may hold a password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from keystead.errors import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    from sqlalchemy import URL

EXAMPLES: Final = (
    "use sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user:password@host/database or memory://"
)
_THRESHOLD: Final = re.compile(r"[0-9]{1,6}")
_SCHEMA_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A parsed store URL: ``path`` for SQLite, ``url`` and ``schema`` for PostgreSQL, neither for memory.

    ``prepare_threshold`` is after how many times PostgreSQL keeps a statement prepared on a connection; None for never.
    """

    kind: Literal["sqlite", "postgresql", "memory"]
    path: Path | None = None
    url: URL | None = field(default=None, repr=False)
    schema: str | None = None
    prepare_threshold: int | None = None


def parse_url(text: str | StoreUrl, *, schema: str | None = None) -> StoreUrl:
    """Return ``text`` parsed. A relative SQLite path is taken from the working directory of this moment.

    Raises:
        ConfigurationError: the URL names no kind of store that exists, or cannot be read.
        MissingDependencyError: the PostgreSQL driver is not installed.
    """
    if isinstance(text, StoreUrl):
        return text
    if not isinstance(text, str):
        raise ConfigurationError(f"a store URL is text; {EXAMPLES}")
    scheme = text.partition(":")[0].lower()
    if scheme == "memory":
        if text.lower() not in ("memory:", "memory://"):
            raise ConfigurationError("a memory store has no name: write memory://")
        return StoreUrl("memory")
    if scheme == "sqlite":
        return StoreUrl("sqlite", path=_sqlite_path(text))
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        return _postgresql(text, schema)
    raise ConfigurationError(f"unknown kind of store in the URL; {EXAMPLES}")


def _sqlite_path(text: str) -> Path:
    location = text[len("sqlite:") :]
    if not location.startswith("///") or location in ("///", "////"):
        raise ConfigurationError(
            f"an SQLite URL names a file after three slashes (four for an absolute path); {EXAMPLES}"
        )
    name = location[3:]
    if name == ":memory:":
        raise ConfigurationError("for a store in memory write memory://")
    if "?" in name or "#" in name:
        raise ConfigurationError("an SQLite store URL takes no options and no fragment; it ends with the file's name")
    return Path(name).absolute()


def _postgresql(text: str, schema: str | None) -> StoreUrl:
    if find_spec("psycopg") is None:
        raise MissingDependencyError("PostgreSQL needs psycopg 3: pip install 'keystead[postgres]'")
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"the PostgreSQL URL cannot be read (percent-encode special characters of the password); {EXAMPLES}"
        ) from None
    named = url.query.get("schema")
    if named is not None:
        url = url.difference_update_query(["schema"])
        if not isinstance(named, str) or schema not in (None, named):
            raise ConfigurationError("the URL and the schema option name different PostgreSQL schemas; give one")
        schema = named
    threshold = url.query.get("prepare_threshold")
    if threshold is not None:
        url = url.difference_update_query(["prepare_threshold"])
        if not isinstance(threshold, str) or _THRESHOLD.fullmatch(threshold) is None:
            raise ConfigurationError("prepare_threshold in a PostgreSQL URL is a number: 5 is a good one")
    return StoreUrl(
        "postgresql",
        url=url,
        schema=checked_schema(schema),
        prepare_threshold=None if threshold is None else int(threshold),
    )


def checked_schema(schema: str | None) -> str | None:
    """Return ``schema`` if it is a plain identifier, or None.

    Raises:
        ConfigurationError: it would need quoting.
    """
    if schema is not None and not _SCHEMA_NAME.fullmatch(schema):
        raise ConfigurationError("a schema name has letters, digits and underscores, and does not begin with a digit")
    return schema
