"""``keystead token``: who may call the service."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.access.callers import Scope, scopes_of
from keystead.cli import lists, token_role
from keystead.cli.frame import Call, command, duration_option, group, say
from keystead.cli.render import Outcome, moment, pairs, table
from keystead.manager import access
from keystead.manager.manager import KeyManager
from keystead.ports import TokenRecord

_SCOPES = ", ".join((*sorted(Scope), "transit:<operation>:<key glob>"))


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "token", "API tokens: who may call the service, and what for.")
    command(noun, "create")(create)
    command(noun, "list")(list_tokens)
    command(noun, "revoke")(revoke)
    token_role.register(noun)


def create(
    call: Call,
    *,
    subject: Annotated[str, typer.Argument(metavar="USER", help="Whom the token is for: a user or a program.")],
    scope: Annotated[list[str], typer.Option("--scope", help=f"What it may do; may be repeated: {_SCOPES}.")],
    tenant: Annotated[str, typer.Option("--tenant", help="The user's tenant, where there are tenants.")] = "",
    label: Annotated[str, typer.Option("--label", help="What it is for, to tell it from others.")] = "",
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="How long it is good, such as 90d; else no end.")
    ] = None,
) -> Outcome:
    """Make a token and show it, this once."""
    scopes = scopes_of(scope)
    lifetime = duration_option("--expires", expires)

    async def make(km: KeyManager) -> tuple[str, TokenRecord]:
        made = await (await access.tokens(km)).create(subject, scopes, tenant=tenant, label=label, lifetime=lifetime)
        return "".join(made.text), made.row

    text, row = call.run(make, asks=True)
    say("the token is shown this once; it is sent as `Authorization: Bearer <token>`")
    return Outcome({**_facts(row), "token": text}, text)


def list_tokens(
    call: Call,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this one's.")] = None,
    after: lists.After = None,
) -> Outcome:
    """List the tokens, newest first; none is shown."""
    place = lists.newest_after(after)

    async def find(km: KeyManager) -> list[TokenRecord]:
        return await (await access.tokens(km)).all(tenant=tenant, after=place, limit=lists.LIMIT + 1)

    shown, behind = lists.newest_of(call.run(find))
    found = [_facts(row) for row in shown]
    names = ("id", "user", "tenant", "scopes", "label", "created", "expires", "revoked")
    rows = [tuple("-" if each[name] in (None, "") else each[name] for name in names) for each in found]
    return Outcome({"tokens": found, "next": behind}, table(*names, rows=rows) if rows else "no tokens")


def revoke(
    call: Call, token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `list` shows it.")]
) -> Outcome:
    """Have a token be refused, on every node within five seconds."""

    async def act(km: KeyManager) -> TokenRecord:
        return await (await access.tokens(km)).revoke(token_id)

    row = call.run(act)
    return Outcome(_facts(row), pairs([("revoked", row.id), ("user", row.subject)]))


def _facts(row: TokenRecord) -> dict[str, str | None]:
    return {
        "id": row.id,
        "user": row.subject,
        "tenant": row.tenant,
        "scopes": row.scopes,
        "label": row.label,
        "created": row.created_at,
        "expires": row.expires_at,
        "revoked": None if row.revoked_at is None else moment(row.revoked_at),
    }
