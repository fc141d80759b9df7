"""``keystead device`` and ``keystead user``: devices with their key pairs, and users forgotten."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from keystead.access.callers import checked_subject
from keystead.cli import lists
from keystead.cli.frame import Call, ask_for, command, group, say
from keystead.cli.render import Outcome, cell, pairs, printable, table
from keystead.devices.owners import Forgotten
from keystead.devices.summary import MAX_HOURS, TOP_KEYS, ProblematicKey, fault_of
from keystead.manager.devices import owners, summaries
from keystead.manager.manager import KeyManager
from keystead.model import Principal
from keystead.ports import ClientKeyRecord, DeviceRecord

Tenant = Annotated[str, typer.Option("--tenant", help="Of this tenant, where there are tenants.")]
Id = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id, as `list` shows it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def whoever(tenant: str) -> Principal:
    """Return who acts here on a tenant: nobody whom the service knows."""
    return Principal("command line", checked_subject(tenant) if tenant else "")


def register(app: typer.Typer) -> None:
    """Add the groups."""
    noun = group(app, "device", "Devices and their key pairs: list, revoke, release.")
    command(noun, "list")(list_devices)
    command(noun, "keys")(list_keys)
    command(noun, "revoke")(revoke)
    command(noun, "release")(release)
    command(noun, "problematic-keys")(problematic_keys)
    command(group(app, "user", "Users of devices: forget."), "forget")(forget)


def list_devices(
    call: Call,
    *,
    owner: Annotated[str | None, typer.Option("--owner", metavar="USER", help="Only this user's.")] = None,
    after: Annotated[str, typer.Option("--after", metavar="DEVICE", help="Only those behind this id.")] = "",
    tenant: Tenant = "",
) -> Outcome:
    """List devices by id, those that were revoked or released among them."""

    async def find(km: KeyManager) -> list[DeviceRecord]:
        return await (await owners(km)).all(whoever(tenant), owner=owner, after=after, limit=lists.LIMIT + 1)

    shown, behind = lists.part_of(call.run(find), lambda each: each.device_id)
    rows = [(cell(each.device_id), cell(each.owner), cell(each.created_at), cell(each.revoked_at)) for each in shown]
    told = table("device", "owner", "created", "revoked", rows=rows) if rows else "no devices"
    return Outcome({"devices": shown, "next": behind}, told)


def list_keys(
    call: Call,
    device: Id,
    *,
    after: Annotated[str | None, typer.Option("--after", metavar="KEY", help="Only those behind this id.")] = None,
    tenant: Tenant = "",
) -> Outcome:
    """List the key pairs of a device, the newest first, without the private halves."""

    async def find(km: KeyManager) -> list[ClientKeyRecord]:
        room = await owners(km)
        return await room.client_keys(whoever(tenant), device, is_admin=True, after=after, limit=lists.LIMIT + 1)

    shown, behind = lists.part_of(call.run(find), lambda each: each.id)
    found = [_key_facts(each) for each in shown]
    names = ("id", "owner", "created", "expires", "deprecated", "erased", "uses")
    rows = [tuple(cell(each[name]) for name in names) for each in found]
    return Outcome({"keys": found, "next": behind}, table(*names, rows=rows) if rows else "no key pairs")


def revoke(call: Call, device: Id, *, tenant: Tenant = "", yes: Yes = False) -> Outcome:
    """Erase the private keys of a device for good. It gets no others until it is released."""
    _ask(yes, "the device's id", device)
    call.run(lambda km: _revoked(km, tenant, device))
    return Outcome({"device": device, "tenant": tenant}, pairs([("revoked", printable(device))]))


def release(call: Call, device: Id, *, tenant: Tenant = "", yes: Yes = False) -> Outcome:
    """Let a device belong to the next user who uses it. What its last owner was given is erased for good."""
    _ask(yes, "the device's id", device)
    call.run(lambda km: _released(km, tenant, device))
    return Outcome({"device": device, "tenant": tenant}, pairs([("released", printable(device))]))


def forget(
    call: Call,
    user: Annotated[str, typer.Argument(metavar="USER", help="The user, as its tokens name it.")],
    *,
    tenant: Tenant = "",
    yes: Yes = False,
) -> Outcome:
    """Remove a user's devices, key pairs, passcode and PIN for good. The audit trail keeps what it has.

    Tokens of the user are not touched: `keystead token revoke` ends them.
    """
    name = checked_subject(user)
    _ask(yes, "the user's name", user)

    async def act(km: KeyManager) -> Forgotten:
        return await (await owners(km)).forget(whoever(tenant), name)

    gone = call.run(act)
    told = [
        ("forgotten", printable(user)),
        ("devices", gone.devices),
        ("key pairs", gone.client_keys),
        ("secrets", gone.secrets),
    ]
    return Outcome(gone, pairs(told))


def problematic_keys(
    call: Call,
    *,
    hours: Annotated[int, typer.Option("--hours", metavar="N", min=1, max=MAX_HOURS, help="Of the last N hours.")] = 24,
) -> Outcome:
    """List key pairs of devices of which too many decrypts failed, and why; most failures first."""

    async def find(km: KeyManager) -> list[ProblematicKey]:
        return await (await summaries(km)).find_problematic_keys(hours, limit=TOP_KEYS + 1)

    found = call.run(find)
    if len(found) > TOP_KEYS:
        say(f"the {TOP_KEYS} with the most failures")
    shown = found[:TOP_KEYS]
    data = [
        {
            "key": each.key_id,
            "total": each.total,
            "failures": each.failures,
            "failure_rate": each.failure_rate,
            "reasons": [
                {"reason": why.reason, "fault": fault_of(why.reason), "count": why.count} for why in each.reasons
            ],
        }
        for each in shown
    ]
    rows = [
        (each.key_id, each.total, each.failures, ", ".join(f"{why.reason} {why.count}" for why in each.reasons))
        for each in shown
    ]
    told = table("key", "decrypts", "failures", "reasons", rows=rows) if rows else "no problematic keys"
    return Outcome({"keys": data}, told)


async def _revoked(km: KeyManager, tenant: str, device: str) -> None:
    await (await owners(km)).revoke(whoever(tenant), device, is_admin=True)


async def _released(km: KeyManager, tenant: str, device: str) -> None:
    await (await owners(km)).release(whoever(tenant), device)


def _ask(is_sure: bool, what: str, answer: str) -> None:
    if not is_sure:
        say("The private halves of its key pairs are erased: what was encrypted to them is lost for good.")
        ask_for(what, answer)


def _key_facts(key: ClientKeyRecord) -> dict[str, object]:
    return {
        "id": key.id,
        "owner": key.owner,
        "kind": key.kind,
        "created": datetime.fromisoformat(key.created_at),
        "expires": key.expires_at,
        "deprecated": key.deprecated,
        "erased": key.wrapped_private_key is None,
        "uses": key.usage_count,
        "last_used": key.last_used,
    }
