"""``keystead token role``: roles by which programs get tokens, and their secret ids."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from keystead.access.callers import scopes_of
from keystead.access.role_rules import AppRoleRules, AuditMode, JwtRules, TokenRules, rules_of, seconds
from keystead.cli import lists
from keystead.cli.frame import Call, command, duration_option, group, say, wrong_usage
from keystead.cli.render import Outcome, pairs, table
from keystead.manager import access
from keystead.manager.manager import KeyManager
from keystead.ports import RoleKind, RoleRecord, SecretIdRecord

Name = Annotated[str, typer.Argument(metavar="ROLE", help="The role's name.")]
Scope = Annotated[list[str], typer.Option("--scope", help="What its tokens may do, as `token create` has it.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose role it is, where there are tenants.")]
Kind = Annotated[RoleKind, typer.Option("--kind", help="A role of secret ids, or one that JWTs show.")]
TokenTtl = Annotated[str, typer.Option("--token-ttl", metavar="TIME", help="How long a token is good, such as 1h.")]
MaxTtl = Annotated[
    str | None,
    typer.Option("--token-max-ttl", metavar="TIME", help="How far renewals may reach; else none is renewed."),
]
TokenUses = Annotated[int | None, typer.Option("--token-uses", help="How often a token can be shown; else any number.")]
Audit = Annotated[AuditMode, typer.Option("--audit", help="An audit entry for each operation, or for many together.")]
_KINDS: Final = {RoleKind.APPROLE: AppRoleRules, RoleKind.JWT: JwtRules}


def register(token: typer.Typer) -> None:
    """Add the group."""
    noun = group(token, "role", "Roles: programs log in, and get tokens that end.")
    command(noun, "create")(create)
    command(noun, "create-jwt")(create_jwt)
    command(noun, "list")(list_roles)
    command(noun, "show")(show)
    command(noun, "delete")(delete)
    secret = group(noun, "secret-id", "Secret ids: by which programs show that they are of an AppRole.")
    command(secret, "create")(create_secret_id)
    command(secret, "list")(list_secret_ids)
    command(secret, "delete")(delete_secret_id)


def create(
    call: Call,
    *,
    name: Name,
    scope: Scope,
    token_ttl: TokenTtl,
    secret_id_ttl: Annotated[
        str, typer.Option("--secret-id-ttl", metavar="TIME", help="How long a secret id is good, such as 90d.")
    ],
    secret_id_uses: Annotated[int, typer.Option("--secret-id-uses", help="For how many logins a secret id is good.")],
    tenant: Tenant = "",
    token_max_ttl: MaxTtl = None,
    token_uses: TokenUses = None,
    audit: Audit = AuditMode.COUNTED,
) -> Outcome:
    """Make an AppRole: programs log in by its role id and a secret id."""
    rules = AppRoleRules(
        **_of_tokens(token_ttl, token_max_ttl, token_uses, audit),
        secret_id_ttl_s=_seconds("--secret-id-ttl", secret_id_ttl),
        secret_id_uses=secret_id_uses,
    )
    row = _made(call, name, scope, rules, tenant)
    return Outcome(_facts(row), pairs([("made role", row.name), ("role id", row.id)]))


def create_jwt(
    call: Call,
    *,
    name: Name,
    scope: Scope,
    audience: Annotated[list[str], typer.Option("--audience", help="What a JWT names as `aud`; may be repeated.")],
    token_ttl: TokenTtl,
    issuer: Annotated[
        str | None, typer.Option("--issuer", metavar="URL", help="What it names as `iss`; its keys are read there.")
    ] = None,
    jwks_uri: Annotated[
        str | None, typer.Option("--jwks-uri", metavar="URL", help="Where its keys are, instead of its discovery.")
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option("--public-key", metavar="FILE", help="A public key in PEM, in place of keys that are read."),
    ] = None,
    bound_subject: Annotated[str | None, typer.Option("--bound-subject", help="What `sub` has to be.")] = None,
    bound_claim: Annotated[
        list[str] | None,
        typer.Option("--bound-claim", metavar="NAME=VALUE", help="What a claim has to be; of several values one."),
    ] = None,
    user_claim: Annotated[str, typer.Option("--user-claim", help="The claim that names who logs in.")] = "sub",
    tenant: Tenant = "",
    token_max_ttl: MaxTtl = None,
    token_uses: TokenUses = None,
    audit: Audit = AuditMode.COUNTED,
) -> Outcome:
    """Make a role that JWTs show, which somebody else signs."""
    rules = JwtRules(
        **_of_tokens(token_ttl, token_max_ttl, token_uses, audit),
        audiences=tuple(audience),
        issuer=issuer,
        jwks_uri=jwks_uri,
        public_keys=tuple(_text(path) for path in public_key or ()),
        bound_subject=bound_subject,
        bound_claims=_claims(bound_claim or ()),
        user_claim=user_claim,
    )
    row = _made(call, name, scope, rules, tenant)
    return Outcome(_facts(row), pairs([("made role", row.name)]))


def list_roles(
    call: Call,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this one's.")] = None,
    after: lists.After = None,
) -> Outcome:
    """List the roles, newest first."""
    place = lists.newest_after(after)

    async def find(km: KeyManager) -> list[RoleRecord]:
        return await (await access.access(km)).roles.all(tenant=tenant, after=place, limit=lists.LIMIT + 1)

    shown, behind = lists.newest_of(call.run(find))
    found = [_facts(row) for row in shown]
    names = ("name", "kind", "tenant", "scopes", "created")
    rows = [tuple(each[name] or "-" for name in names) for each in found]
    return Outcome({"roles": found, "next": behind}, table(*names, rows=rows) if rows else "no roles")


def show(call: Call, name: Name, kind: Kind = RoleKind.APPROLE, tenant: Tenant = "") -> Outcome:
    """Show a role."""

    async def find(km: KeyManager) -> RoleRecord:
        return await (await access.access(km)).roles.get(kind, name, tenant=tenant)

    facts = _facts(call.run(find))
    return Outcome(facts, pairs([(each.replace("_", " "), _shown(value)) for each, value in facts.items()]))


def delete(call: Call, name: Name, kind: Kind = RoleKind.APPROLE, tenant: Tenant = "") -> Outcome:
    """Delete a role with its secret ids; its tokens are refused, on every node within five seconds."""

    async def act(km: KeyManager) -> int:
        return await (await access.access(km)).roles.delete(kind, name, tenant=tenant)

    revoked = call.run(act, asks=True)
    return Outcome({"name": name, "revoked_tokens": revoked}, pairs([("deleted", name), ("revoked tokens", revoked)]))


def create_secret_id(call: Call, name: Name, tenant: Tenant = "") -> Outcome:
    """Make a secret id and show it, this once."""

    async def make(km: KeyManager) -> tuple[str, SecretIdRecord]:
        made = await (await access.access(km)).roles.create_secret_id(name, tenant=tenant)
        return "".join(made.text), made.row

    text, row = call.run(make, asks=True)
    say("the secret id is shown this once; it is sent to auth/approle/login beside the role id")
    return Outcome({**_of_secret_id(row), "secret_id": text}, text)


def list_secret_ids(call: Call, name: Name, tenant: Tenant = "", after: lists.After = None) -> Outcome:
    """List the secret ids of a role, newest first; none is shown."""
    place = lists.newest_after(after)

    async def find(km: KeyManager) -> list[SecretIdRecord]:
        roles = (await access.access(km)).roles
        return await roles.secret_ids(name, tenant=tenant, after=place, limit=lists.LIMIT + 1)

    shown, behind = lists.newest_of(call.run(find))
    found = [_of_secret_id(row) for row in shown]
    rows = [tuple(each.values()) for each in found]
    return Outcome({"secret_ids": found, "next": behind}, table(*found[0], rows=rows) if found else "no secret ids")


def delete_secret_id(
    call: Call,
    name: Name,
    secret_id: Annotated[str, typer.Argument(metavar="ID", help="The secret id's id, as `list` shows it.")],
    tenant: Tenant = "",
) -> Outcome:
    """Delete a secret id: nobody logs in by it any more."""

    async def act(km: KeyManager) -> None:
        await (await access.access(km)).roles.delete_secret_id(name, secret_id, tenant=tenant)

    call.run(act)
    return Outcome({"name": name, "deleted": secret_id}, pairs([("deleted", secret_id), ("role", name)]))


def _of_tokens(ttl: str, max_ttl: str | None, uses: int | None, audit: AuditMode) -> dict[str, Any]:
    longest_s = None if max_ttl is None else _seconds("--token-max-ttl", max_ttl)
    return {
        "token_ttl_s": _seconds("--token-ttl", ttl),
        "token_max_ttl_s": longest_s,
        "token_uses": uses,
        "audit": audit,
    }


def _made(call: Call, name: str, scope: list[str], rules: AppRoleRules | JwtRules, tenant: str) -> RoleRecord:
    scopes = scopes_of(scope)

    async def make(km: KeyManager) -> RoleRecord:
        return await (await access.access(km)).roles.create(name, scopes, rules, tenant=tenant)

    return call.run(make, asks=True)


def _facts(row: RoleRecord) -> dict[str, Any]:
    rules: TokenRules = rules_of(row, _KINDS[row.kind])
    told = {name: getattr(rules, name) for name in type(rules).__dataclass_fields__}
    own = {"name": row.name, "kind": row.kind.value, "tenant": row.tenant, "role_id": row.id, "scopes": row.scopes}
    return own | {"created": row.created_at} | told | {"audit": rules.audit.value}


def _of_secret_id(row: SecretIdRecord) -> dict[str, Any]:
    return {
        "id": row.id,
        "created": row.created_at,
        "expires": row.expires_at,
        "uses": row.uses,
        "used": row.used,
    }


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return "; ".join(f"{name} = {' or '.join(map(str, each))}" for name, each in value.items()) or "-"
    return "-" if value in (None, "") else str(value)


def _seconds(option: str, text: str) -> int:
    found = seconds(duration_option(option, text))
    return wrong_usage(f"{option}: it takes a time") if found is None else found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        wrong_usage(f"--public-key: {path} cannot be read as text")


def _claims(given: list[str] | tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for each in given:
        name, sign, value = each.partition("=")
        if not sign or not name:
            wrong_usage("--bound-claim: it reads NAME=VALUE")
        found[name] = (*found.get(name, ()), value)
    return found
