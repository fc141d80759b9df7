"""``keystead lockout``: secrets of users that are locked after wrong attempts."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.cli import lists
from keystead.cli.device import Tenant, whoever
from keystead.cli.frame import Call, command, group, say
from keystead.cli.render import Outcome, moment, pairs, printable, table
from keystead.devices.lockouts import NAMES
from keystead.manager.devices import lockouts
from keystead.manager.manager import KeyManager
from keystead.ports import CredentialRecord, SecretKind


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "lockout", "Locked passcodes and PINs: list, release.")
    command(noun, "list")(list_lockouts)
    command(noun, "release")(release)


def list_lockouts(call: Call, *, tenant: Tenant = "") -> Outcome:
    """List the secrets that are locked now, those first whose lock is over first."""

    async def find(km: KeyManager) -> list[CredentialRecord]:
        return await (await lockouts(km)).all(whoever(tenant), limit=lists.LIMIT + 1)

    found = call.run(find)
    if len(found) > lists.LIMIT:
        say(f"the first {lists.LIMIT}; the others are told once these are released or over")
    shown = found[: lists.LIMIT]
    rows = [(printable(each.user_id), each.kind, each.failures, moment(each.locked_until)) for each in shown]
    told = table("user", "kind", "failures", "locked until", rows=rows) if rows else "nothing is locked"
    return Outcome({"lockouts": [_facts(each) for each in shown]}, told)


def release(
    call: Call,
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose secret it is, as `list` shows it.")],
    kind: Annotated[SecretKind, typer.Argument(metavar="KIND", help="passcode or transaction_pin.")],
    *,
    tenant: Tenant = "",
) -> Outcome:
    """End a lock at once and forgive what has failed. The secret stays as it is.

    Whoever guesses has as many attempts again: make sure first that it is the user who asks for it.
    """

    async def act(km: KeyManager) -> CredentialRecord:
        return await (await lockouts(km)).release(whoever(tenant), user, kind)

    was = call.run(act)
    told = [("released", f"{NAMES[kind]} of {printable(user)}"), ("failures forgiven", was.failures)]
    return Outcome(_facts(was), pairs(told))


def _facts(row: CredentialRecord) -> dict[str, object]:
    return {
        "user": row.user_id,
        "tenant": row.tenant,
        "kind": row.kind,
        "failures": row.failures,
        "locked_until": row.locked_until,
    }
