"""Devices of the visitor's tenant with their key pairs, problematic keys, locked secrets, and what is done to them."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from urllib.parse import quote

from keystead.access.callers import Scope, checked_subject
from keystead.devices.lockouts import NAMES
from keystead.devices.summary import MIN_DECRYPTS, THRESHOLD_PERCENT, TOP_KEYS, fault_of
from keystead.errors import InvalidInputError
from keystead.model import utc_text
from keystead.ports import ClientKeyRecord, CredentialRecord, DeviceRecord, SecretKind
from keystead.server.console.pages import Deed, Done, Page, Preview, Shown
from keystead.server.console.rendering import moment
from keystead.server.console.visits import Visit

PATH: Final = "/console/devices"
USERS: Final = "/console/users"
PROBLEMATIC: Final = "/console/problematic-keys"
LOCKOUTS: Final = "/console/lockouts"
SHOWN: Final = 50
KEYS: Final = 100
_ADMINISTERS, _RESETS, _MEASURES = Scope.DEVICES_ADMIN, Scope.SECRETS_RESET, Scope.METRICS_READ
_HOURS: Final = {"1": "the last hour", "24": "the last day", "168": "the last week", "720": "the last 30 days"}
_ERASED: Final = (
    "The private halves of its key pairs are erased for good: what was encrypted to them is not decrypted any more."
)


def address(device: str) -> str:
    """Return the address of a device's page; a slash in an id is no part of the path."""
    return f"{_of_device(device)}/keys"


async def listed(visit: Visit) -> Shown:
    """Show devices by id, or those of one user, a page at a time."""
    asked = visit.request.query_params
    owner, after = asked.get("owner", "").strip(), asked.get("after", "")
    found = await _owned(visit, checked_subject(owner) if owner else None, after)
    values = {
        "devices": [(each, _standing(each)) for each in found[:SHOWN]],
        "owner": owner,
        "after": after,
        "after_this": found[SHOWN - 1].device_id if len(found) > SHOWN else None,
        "path": PATH,
        "address": address,
        "of_owner": _of_owner,
        "forget": _forget(owner) if owner else None,
    }
    return Shown("devices.html", values)


async def shown(visit: Visit) -> Shown:
    """Show a device, and its key pairs, the newest first, a page at a time."""
    device, owners, who = visit.path("device"), visit.service.devices.owners, visit.by.principal
    found = await owners.get(who, device)
    after = visit.request.query_params.get("after")
    keys = await owners.client_keys(who, found.device_id, is_admin=True, after=after, limit=KEYS + 1)
    now = visit.service.now()
    values = {
        "device": found,
        "standing": _standing(found),
        "keys": [(key, datetime.fromisoformat(key.created_at), _state(key, now)) for key in keys[:KEYS]],
        "after_this": keys[KEYS - 1].id if len(keys) > KEYS else None,
        "path": PATH,
        "address": address(found.device_id),
        "at": _of_device(found.device_id),
        "of_owner": _of_owner,
    }
    return Shown("device.html", values)


async def problematic(visit: Visit) -> Shown:
    """Show keys of which too many decrypts failed, most failures first."""
    hours = visit.request.query_params.get("hours", "24")
    if hours not in _HOURS:
        raise InvalidInputError(f"hours is one of {', '.join(_HOURS)}")
    found = await visit.service.devices.summaries.find_problematic_keys(int(hours), limit=TOP_KEYS + 1)
    values = {
        "keys": found[:TOP_KEYS],
        "is_cut": len(found) > TOP_KEYS,
        "hours": hours,
        "spans": _HOURS,
        "least": MIN_DECRYPTS,
        "percent": THRESHOLD_PERCENT,
        "fault_of": fault_of,
        "path": PROBLEMATIC,
    }
    return Shown("problematic_keys.html", values)


async def lockouts(visit: Visit) -> Shown:
    """Show whose secrets are locked, those first whose lock is over first."""
    found = await visit.service.devices.lockouts.all(visit.by.principal, after=_place(visit), limit=SHOWN + 1)
    last = found[SHOWN - 1] if len(found) > SHOWN else None
    values = {
        "locked": [(each, NAMES[each.kind], f"{_of_secret(each)}/release") for each in found[:SHOWN]],
        "after_this": None if last is None else _text_of(last),
        "path": LOCKOUTS,
    }
    return Shown("lockouts.html", values)


async def preview_revoke(visit: Visit) -> Preview:
    """Show what revoking a device does."""
    device = await _device(visit)
    return Preview(
        title=f"Revoke the device {device.device_id}",
        effects=[
            _whose(device),
            _ERASED,
            "It gets no other key pair, whoever asks, until it is released.",
        ],
        button="Revoke the device",
        back=address(device.device_id),
        typed=device.device_id,
    )


async def revoke(visit: Visit) -> Done:
    """Revoke a device."""
    device = visit.path("device")
    await visit.service.devices.owners.revoke(visit.by.principal, device, is_admin=True)
    return Done(address(device), f"The device {device} is revoked, and its private keys are erased.")


async def preview_release(visit: Visit) -> Preview:
    """Show what releasing a device does."""
    device = await _device(visit)
    return Preview(
        title=f"Release the device {device.device_id}",
        effects=[
            _whose(device),
            "It belongs to the next user who uses it, revoked or not.",
            _ERASED,
        ],
        button="Release the device",
        back=address(device.device_id),
        typed=device.device_id,
    )


async def release(visit: Visit) -> Done:
    """Release a device."""
    device = visit.path("device")
    await visit.service.devices.owners.release(visit.by.principal, device)
    return Done(address(device), f"The device {device} belongs to the next user who uses it.")


async def preview_forget(visit: Visit) -> Preview:
    """Show what forgetting a user does."""
    user = checked_subject(visit.path("user"))
    devices = len(await _owned(visit, user, ""))
    number = f"more than {SHOWN}" if devices > SHOWN else str(devices)
    return Preview(
        title=f"Forget the user {user}",
        effects=[
            f"Removed for good are {user}'s devices ({number}), every key pair that was given to {user}, and the "
            "passcode and PIN: what was encrypted to those key pairs is not decrypted any more.",
            "A device that others have key pairs of stays, and belongs to the next who uses it.",
            "The audit trail keeps what it has. Tokens of this user are not touched: revoke them on their own page.",
        ],
        button="Forget the user",
        back=_of_owner(user),
        typed=user,
    )


async def forget(visit: Visit) -> Done:
    """Forget a user."""
    user = checked_subject(visit.path("user"))
    gone = await visit.service.devices.owners.forget(visit.by.principal, user)
    told = f"{gone.devices} device(s), {gone.client_keys} key pair(s) and {gone.secrets} secret(s)"
    return Done(PATH, f"{user} is forgotten: {told} are removed.")


async def preview_unlock(visit: Visit) -> Preview:
    """Show what ending a lock does."""
    room = visit.service.devices.lockouts
    locked = await room.get(visit.by.principal, visit.path("user"), _kind(visit))
    name = NAMES[locked.kind]
    until = "" if locked.locked_until is None else f", until {moment(locked.locked_until)}"
    return Preview(
        title=f"End the lock on the {name} of {locked.user_id}",
        effects=[
            f"It is locked after {locked.failures} wrong ones{until}.",
            f"The lock ends at once, and what has failed is forgiven: {room.rule.free} may be wrong before the next "
            "lock, whoever tries them. Make sure first that it is the user who asks for it.",
            f"The {name} itself stays. Where it is forgotten, a program with the scope {_RESETS} sets another one, "
            "which ends the lock as well.",
        ],
        button="End the lock",
        back=LOCKOUTS,
    )


async def unlock(visit: Visit) -> Done:
    """End a lock."""
    user = visit.path("user")
    locked = await visit.service.devices.lockouts.release(visit.by.principal, user, _kind(visit))
    return Done(LOCKOUTS, f"The {NAMES[locked.kind]} of {user} may be tried again.")


async def _owned(visit: Visit, owner: str | None, after: str) -> list[DeviceRecord]:
    owners = visit.service.devices.owners
    return await owners.all(visit.by.principal, owner=owner, after=after, limit=SHOWN + 1)


async def _device(visit: Visit) -> DeviceRecord:
    return await visit.service.devices.owners.get(visit.by.principal, visit.path("device"))


def _whose(device: DeviceRecord) -> str:
    return "It belongs to nobody now." if device.owner is None else f"It belongs to {device.owner}."


def _standing(device: DeviceRecord) -> tuple[str, str]:
    """Return how a device stands, and the colour of that."""
    if device.revoked_at is not None:
        return "revoked", "destroyed"
    return ("released", "disabled") if device.owner is None else ("in use", "active")


def _state(key: ClientKeyRecord, now: datetime) -> tuple[str, str]:
    """Return the state of a key pair, and the colour of that."""
    if key.wrapped_private_key is None:
        return "erased", "destroyed"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired", "disabled"
    return ("decrypt-only", "decrypt-only") if key.deprecated else ("active", "active")


def _kind(visit: Visit) -> SecretKind:
    try:
        return SecretKind(visit.path("kind"))
    except ValueError:
        raise InvalidInputError(f"a secret is one of {', '.join(SecretKind)}") from None


def _of_device(device: str) -> str:
    return f"{PATH}/{quote(device, safe='')}"


def _of_owner(user: str) -> str:
    return f"{PATH}?owner={quote(user, safe='')}"


def _forget(user: str) -> str:
    return f"{USERS}/{quote(user, safe='')}/forget"


def _of_secret(locked: CredentialRecord) -> str:
    return f"{LOCKOUTS}/{locked.kind}/{quote(locked.user_id, safe='')}"


def _text_of(locked: CredentialRecord) -> str:
    until = "" if locked.locked_until is None else utc_text(locked.locked_until)
    return f"{until},{locked.kind},{locked.user_id}"


def _place(visit: Visit) -> tuple[datetime, str, str] | None:
    """Return the last secret of the page before."""
    text = visit.request.query_params.get("after")
    if text is None:
        return None
    until, kind, user = (*text.split(",", 2), "", "")[:3]
    try:
        at = datetime.fromisoformat(until)
    except ValueError:
        raise InvalidInputError("this is no page of the list; begin at its first one") from None
    if at.tzinfo is None:
        raise InvalidInputError("this is no page of the list; begin at its first one")
    return at, user, kind


PAGES: Final = (
    Page(PATH, _ADMINISTERS, listed, is_of_store=False, title="Devices", group="Devices"),
    Page(f"{PATH}/{{device:name}}/keys", _ADMINISTERS, shown, is_of_store=False),
    Page(PROBLEMATIC, _MEASURES, problematic, title="Problematic keys", group="Devices"),
    Page(LOCKOUTS, _RESETS, lockouts, is_of_store=False, title="Lockouts", group="Devices"),
)
DEEDS: Final = (
    Deed(f"{PATH}/{{device:name}}/revoke", _ADMINISTERS, preview_revoke, revoke, is_of_store=False),
    Deed(f"{PATH}/{{device:name}}/release", _ADMINISTERS, preview_release, release, is_of_store=False),
    Deed(f"{USERS}/{{user:name}}/forget", _ADMINISTERS, preview_forget, forget, is_of_store=False, takes_two=True),
    Deed(f"{LOCKOUTS}/{{kind}}/{{user:name}}/release", _RESETS, preview_unlock, unlock, is_of_store=False),
)
