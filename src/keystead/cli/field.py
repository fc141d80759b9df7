"""``keystead field``: the encrypted fields that applications have registered."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.cli.frame import Call, command, group
from keystead.cli.render import Outcome, table


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "field", "Encrypted fields that applications have registered.")
    command(noun, "list")(list_fields)
    command(noun, "forget")(forget)


def list_fields(call: Call) -> Outcome:
    """List the registered fields, and for which version of its index key each is filled."""
    fields = call.run(lambda km: km.fields())
    rows = [(one.id, one.keyring, one.index_keyring or "-", one.indexed_version or "-", one.locator) for one in fields]
    shown = table("field", "keyring", "index keyring", "filled for", "source", rows=rows)
    return Outcome({"fields": fields}, shown if rows else "no fields registered")


def forget(
    call: Call,
    field: Annotated[str, typer.Argument(metavar="ID", help="The field's id, as `keystead field list` shows it.")],
) -> Outcome:
    """Take a field off the register when its column is gone: a destroy looks there no more; data is not touched."""
    call.run(lambda km: km.forget_field(field))
    return Outcome({"field": field, "forgotten": True}, f"field {field!r} is forgotten")
