"""``keystead key uses``: where the ciphertexts of a keyring lie, so that a destroy looks there first."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.cli.frame import FAILED, Call, command, group, say
from keystead.cli.render import Outcome, table
from keystead.manager import admin
from keystead.manager.protected import protected

Keyring = Annotated[
    str, typer.Argument(metavar="KEYRING", help="The keyring whose ciphertexts lie there; may hold {tenant}.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What to call the source.")]
Locator = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="file:<glob>, sql:<url>#<table>.<column>, or app:<name> for the application's own."
    ),
]


def register(key: typer.Typer) -> None:
    """Add the group below ``key``."""
    noun = group(key, "uses", "Data sources that a destroy looks through.")
    command(noun, "add")(add)
    command(noun, "list")(list_uses)
    command(noun, "remove")(remove)
    command(noun, "count")(count)


def add(call: Call, keyring: Keyring, name: Name, source: Locator) -> Outcome:
    """Declare a data source, or change the one of that name."""
    use = call.run(lambda km: admin.declare_use(km, keyring, name, source))
    return Outcome(use, f"a destroy of keyring {keyring!r} looks through {use.locator}")


def list_uses(
    call: Call, keyring: Annotated[str | None, typer.Argument(metavar="KEYRING", help="Only this one's.")] = None
) -> Outcome:
    """List the declared data sources."""
    uses = call.run(lambda km: admin.list_uses(km, keyring))
    rows = [(use.keyring, use.name, use.locator) for use in uses]
    return Outcome(
        {"uses": uses}, table("keyring", "name", "source", rows=rows) if rows else "no data sources declared"
    )


def count(
    call: Call, keyring: Annotated[str, typer.Argument(metavar="KEYRING", help="Whose versions are looked for.")]
) -> Outcome:
    """Count what each version still protects, in every declared source. Exits with 1 if one cannot be read."""
    found = call.run(lambda km: protected(km, keyring))
    rows = []
    for key in found.versions:
        where = [f"{name}: {hits}" for name, hits in found.by_version(key.version)]
        rows.append((key.version, key.state.value, ", ".join(where) or "-"))
    for each in found.sources:
        if each.error is not None:
            say(f"not looked through: {each.error}")
    told = table("version", "state", "protects", rows=rows) if found.sources else "no data sources declared"
    return Outcome(found, told, 0 if found.is_whole else FAILED)


def remove(call: Call, keyring: Keyring, name: Name) -> Outcome:
    """Take a declaration back; the data itself is not touched."""
    call.run(lambda km: admin.drop_use(km, keyring, name))
    return Outcome({"keyring": keyring, "name": name, "removed": True}, f"{name!r} is no longer looked through")
