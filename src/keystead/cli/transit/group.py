"""``keystead transit``: the keys that clients of Vault use, over their lives."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from keystead.cli.frame import Call, ask_for, command, duration_option, group, say, wrong_usage
from keystead.cli.render import Outcome, moment, pairs, table
from keystead.cli.transit import importing, move, trying
from keystead.config.durations import age_text
from keystead.manager import transit_keys
from keystead.manager.manager import KeyManager
from keystead.manager.transit import transit
from keystead.manager.transit_keys import KeyFacts
from keystead.model import TransitType
from keystead.transit.administration import KeyChanges, NewTransitKey
from keystead.transit.opened import OpenKey

Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]
Tenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose key it is, where there are tenants.")]
AutoRotate = Annotated[
    str | None,
    typer.Option("--auto-rotate", metavar="30d", help="Add a version when the latest is so old; 0s for never."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_LISTED: Final = ("name", "type", "latest", "rotates", "notes")


def register(app: typer.Typer) -> None:
    """Add the group."""
    noun = group(app, "transit", "Keys of the machine API, which speaks Vault's Transit.")
    command(noun, "create")(create)
    command(noun, "list")(list_keys)
    command(noun, "show")(show)
    command(noun, "config")(config)
    command(noun, "rotate")(rotate)
    command(noun, "trim")(trim)
    command(noun, "soft-delete")(soft_delete)
    command(noun, "restore")(restore)
    command(noun, "delete")(delete)
    command(noun, "upsert")(upsert)
    importing.register(noun)
    trying.register(noun)
    move.register(noun)


def create(
    call: Call,
    *,
    name: Name,
    type: Annotated[TransitType, typer.Option("--type", help="What it is.")] = TransitType.AES_256,
    derived: Annotated[bool, typer.Option("--derived", help="A key of its own for each context.")] = False,
    convergent: Annotated[
        bool, typer.Option("--convergent", help="Equal plaintexts have equal ciphertexts; with --derived.")
    ] = False,
    key_size: Annotated[int, typer.Option("--key-size", metavar="BYTES", help="Of an hmac key: 32 to 512.")] = 0,
    auto_rotate: AutoRotate = None,
    tenant: Tenant = "",
) -> Outcome:
    """Make a key, with a first version. It never leaves the store."""
    wanted = NewTransitKey(
        type,
        derived=derived,
        convergent=convergent,
        auto_rotate_s=_seconds(auto_rotate) or 0,
        key_size=key_size,
    )
    key = call.run(lambda km: transit_keys.create(km, tenant, name, wanted), creates=True)
    return _answer(key, f"made {type} key {name!r}")


def list_keys(call: Call, tenant: Tenant = "") -> Outcome:
    """List a tenant's keys by name."""
    found = call.run(lambda km: transit_keys.all_of(km, tenant))
    rows = [
        (each.key.name, each.key.type.value, each.latest, _period(each), ", ".join(_notes(each)) or "-")
        for each in found
    ]
    shown = table(*_LISTED, rows=rows) if rows else "no Transit keys"
    return Outcome({"keys": [_facts(each) for each in found]}, shown)


def show(call: Call, name: Name, tenant: Tenant = "") -> Outcome:
    """Tell everything about a key but the key, with the public half of each version of a key pair."""
    found = call.run(lambda km: transit_keys.facts(km, tenant, name))
    record = found.key
    lines: list[tuple[str, object]] = [
        ("name", record.name),
        *([("tenant", record.tenant)] if record.tenant else []),
        ("type", record.type.value),
        ("latest version", found.latest),
        ("decrypts from", f"version {record.min_decryption}"),
        ("encrypts by", "the latest" if not record.min_encryption else f"version {record.min_encryption} and later"),
        ("destroyed before", f"version {record.min_available}" if record.min_available else "none"),
        ("rotates", _period(found)),
        ("notes", ", ".join(_notes(found)) or "-"),
        ("keyring", record.keyring),
    ]
    for each in found.versions:
        lines.append((f"version {each.version}", f"{each.state}, made {moment(each.created)}"))
        if each.public_key:
            lines += [("", line) for line in each.public_key.splitlines()]
    return Outcome({**_facts(found), "versions": found.versions}, pairs(lines))


def config(
    call: Call,
    *,
    name: Name,
    min_decryption: Annotated[
        int | None, typer.Option("--min-decryption", metavar="VERSION", help="The oldest that decrypts and verifies.")
    ] = None,
    min_encryption: Annotated[
        int | None,
        typer.Option("--min-encryption", metavar="VERSION", help="The oldest that encrypts and signs; 0: the latest."),
    ] = None,
    deletion_allowed: Annotated[
        bool | None,
        typer.Option("--deletion-allowed/--no-deletion-allowed", help="Whether the key may be deleted."),
    ] = None,
    auto_rotate: AutoRotate = None,
    tenant: Tenant = "",
) -> Outcome:
    """Change what a key allows; nothing is changed where one of the changes is refused."""
    changes = KeyChanges(min_decryption, min_encryption, deletion_allowed, auto_rotate_s=_seconds(auto_rotate))
    if changes == KeyChanges():
        wrong_usage("nothing to change: name an option")

    async def change(km: KeyManager) -> OpenKey:
        engine = await transit(km)
        await transit_keys.get(engine, tenant, name)
        return await engine.administration.configure(tenant, name, changes)

    return _answer(call.run(change), f"changed {name!r}")


def rotate(call: Call, name: Name, tenant: Tenant = "") -> Outcome:
    """Add a version, which encrypts from now on; what was encrypted before stays readable."""

    async def add(km: KeyManager) -> OpenKey:
        engine = await transit(km)
        await transit_keys.get(engine, tenant, name)
        cure = f"`keystead transit import-version {shlex.quote(name)}` adds a version from outside"
        with (
            transit_keys.curing("does not allow rotation", cure),
            transit_keys.curing("soft-deleted", f"`keystead transit restore {shlex.quote(name)}` takes it into use"),
        ):
            return await engine.administration.rotate(tenant, name)

    key = call.run(add)
    return _answer(key, f"version {key.latest} of {name!r} is the latest")


def trim(
    call: Call,
    *,
    name: Name,
    before: Annotated[int, typer.Option("--before", metavar="VERSION", help="The oldest version that stays.")],
    tenant: Tenant = "",
    yes: Yes = False,
) -> Outcome:
    """Destroy old versions, for good: what they encrypted is lost. They must not decrypt any more as it is."""

    async def act(km: KeyManager) -> OpenKey:
        engine = await transit(km)
        key = await transit_keys.get(engine, tenant, name)
        if not yes:
            say(f"What versions of {name!r} before {before} encrypted is lost for good.")
            ask_for("the key's name", name)
        again = f"--min-decryption {before} --min-encryption {before}"
        cure = f"set them first: `keystead transit config {shlex.quote(name)} {again}`"
        with transit_keys.curing("minimum", cure):
            return await engine.administration.trim(tenant, key.record.name, before)

    return _answer(call.run(act, asks=True), f"versions of {name!r} before {before} are destroyed")


def soft_delete(call: Call, name: Name, tenant: Tenant = "") -> Outcome:
    """Take a key out of use, until it is restored."""
    return _soft(call, name, tenant, is_deleted=True)


def restore(call: Call, name: Name, tenant: Tenant = "") -> Outcome:
    """Take a soft-deleted key into use again."""
    return _soft(call, name, tenant, is_deleted=False)


def delete(call: Call, name: Name, tenant: Tenant = "", yes: Yes = False) -> Outcome:
    """Destroy a key and all its versions, for good: whatever they encrypted is lost.

    The key has to allow it: `keystead transit config NAME --deletion-allowed`.
    """

    async def act(km: KeyManager) -> None:
        engine = await transit(km)
        key = await transit_keys.get(engine, tenant, name)
        if not yes and key.record.deletion_allowed:
            say(f"What {name!r} encrypted is lost for good, and so is its name for what it signed.")
            ask_for("the key's name", name)
        cure = f"`keystead transit config {shlex.quote(name)} --deletion-allowed` allows it"
        with transit_keys.curing("deletion is not allowed", cure):
            await engine.administration.delete(tenant, name)

    call.run(act, asks=True)
    return Outcome({"name": name, "tenant": tenant, "deleted": True}, f"{name!r} is deleted")


def upsert(
    call: Call,
    allowed: Annotated[
        str | None, typer.Argument(metavar="on|off", show_default=False, help="Without it the setting is told.")
    ] = None,
    tenant: Tenant = "",
) -> Outcome:
    """Say whether encrypting under a name that is no key's makes one, as Vault does; `off` has it refused."""
    if allowed not in (None, "on", "off"):
        wrong_usage("say on or off")

    async def act(km: KeyManager) -> bool:
        engine = await transit(km)
        if allowed is not None:
            await engine.administration.disable_upsert(tenant, allowed == "off")
        async with engine.keys.live.surroundings.store.reading() as work:
            return not await work.is_upsert_disabled(tenant)

    is_on = call.run(act)
    return Outcome({"tenant": tenant, "upsert": is_on}, f"upsert is {'on' if is_on else 'off'}")


def _soft(call: Call, name: str, tenant: str, *, is_deleted: bool) -> Outcome:
    async def act(km: KeyManager) -> tuple[OpenKey, bool]:
        engine = await transit(km)
        await transit_keys.get(engine, tenant, name)
        changed = await engine.administration.soft_delete(tenant, name, deleted=is_deleted)
        return await transit_keys.get(engine, tenant, name), changed

    key, changed = call.run(act)
    state = "out of use" if is_deleted else "in use"
    undo = f"; `keystead transit restore {shlex.quote(name)}` undoes it" if is_deleted else ""
    return _answer(key, f"{name!r} is {state}{undo}" if changed else f"{name!r} was {state} already")


def _answer(key: OpenKey, told: str) -> Outcome:
    return Outcome(_facts(KeyFacts(key.record, key.latest, [])), told)


def _facts(found: KeyFacts) -> dict[str, Any]:
    return {**asdict(found.key), "latest": found.latest}


def _period(found: KeyFacts) -> str:
    return age_text(found.key.auto_rotate_s) if found.key.auto_rotate_s else "-"


def _notes(found: KeyFacts) -> list[str]:
    record = found.key
    told = {
        "derived": record.derived,
        "convergent": record.convergent,
        "imported": record.imported,
        "may be deleted": record.deletion_allowed,
        "soft-deleted": record.soft_deleted,
    }
    size = [f"{record.key_size} bytes"] if record.key_size else []
    return [*size, *(name for name, is_so in told.items() if is_so)]


def _seconds(auto_rotate: str | None) -> int | None:
    period = duration_option("--auto-rotate", auto_rotate)
    return None if period is None else round(period.total_seconds())
