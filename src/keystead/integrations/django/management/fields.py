"""Which fields a command is about, and where their rows lie."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.db import connections, router

from keystead.integrations.django.binding import current, declared_fields
from keystead.integrations.django.field import EncryptedField
from keystead.integrations.django.located import url_of


def chosen(labels: list[str]) -> list[EncryptedField]:
    """Return the fields that are named ``app.Model.field``, ``app.Model`` or ``app``; all of them for none."""
    known = list(declared_fields())
    found = {field: None for label in labels for field in known if _is_of(field, label)} if labels else known
    for label in labels:
        if not any(_is_of(field, label) for field in known):
            raise CommandError(f"no encrypted field is called {label}; there are: {', '.join(map(str, known))}")
    return list(found)


def database_of(field: EncryptedField, alias: str | None) -> str:
    """Return the URL of the database that a field's rows lie in, with what it takes to log in there."""
    alias = alias or router.db_for_write(field.model)
    given = current().source(alias)
    url = url_of(connections[alias], with_password=True) if given is None or not given.startswith("app:") else None
    if url is None:
        raise CommandError(f"database {alias!r} cannot be reached: it is in memory, or looked through by app:")
    return url


def add_labels(parser: Any) -> None:
    """Let a command take fields, and a database."""
    parser.add_argument("fields", nargs="*", metavar="FIELD", help="app, app.Model or app.Model.field; all without.")
    parser.add_argument("--database", metavar="ALIAS", help="The database, if not the one that the router names.")


def _is_of(field: EncryptedField, label: str) -> bool:
    meta = field.model._meta
    names = (meta.app_label, meta.label, f"{meta.label}.{field.name}")
    return label.lower() in {name.lower() for name in names}
