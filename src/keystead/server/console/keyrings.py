"""Keyrings, their versions on a time line, and what is done to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from keystead.access.callers import Scope
from keystead.errors import InvalidInputError
from keystead.lifecycle.destruction import DEFAULT_WAIT, LONGEST_WAIT, SHORTEST_WAIT
from keystead.manager import admin
from keystead.manager.key_listing import keyring_standing, keyrings_after, newest_versions
from keystead.manager.nodes import nodes
from keystead.manager.protected import protected
from keystead.model import DataKeyInfo, KeyringPurpose, is_of_transit
from keystead.server.console.pages import Deed, Done, Input, Page, Preview, Shown
from keystead.server.console.rendering import MOST_COUNTED, count, moment, part
from keystead.server.console.time_line import time_line
from keystead.server.console.visits import Visit

PATH: Final = "/console/keyrings"
SHOWN: Final = 50
VERSIONS: Final = 100
_READS, _WRITES = Scope.KEYRINGS_READ, Scope.KEYRINGS_WRITE
_DAYS: Final = tuple(str(each.days) for each in (SHORTEST_WAIT, LONGEST_WAIT, DEFAULT_WAIT))


def address(keyring: str) -> str:
    """Return the address of a keyring's page."""
    return f"{PATH}/{part(keyring)}"


async def listed(visit: Visit) -> Shown:
    """Show keyrings by name, a page at a time."""
    after = visit.request.query_params.get("after", "")
    found = await keyrings_after(visit.manager, after, limit=SHOWN + 1)
    behind = found[SHOWN - 1].name if len(found) > SHOWN else None
    return Shown("keyrings.html", {"keyrings": found[:SHOWN], "after": after, "after_this": behind, "address": address})


async def shown(visit: Visit) -> Shown:
    """Show a keyring, and its versions, the newest first."""
    name = visit.path("keyring")
    standing = await keyring_standing(visit.manager, name, counts=False)
    found = await newest_versions(visit.manager, name, limit=VERSIONS + 1)
    versions = found[-VERSIONS:]
    uses = await admin.list_uses(visit.manager, name)
    values = {
        "standing": standing,
        "versions": versions[::-1],
        "is_cut": len(found) > VERSIONS,
        "line": time_line(versions, visit.service.now()),
        "uses": uses,
        "address": address(name),
        "may_write": visit.may(_WRITES, is_of_store=True),
        "rotates": _rotates(name, standing.keyring.purpose),
    }
    return Shown("keyring.html", values)


def _rotates(name: str, purpose: KeyringPurpose) -> bool:
    return purpose is KeyringPurpose.ENCRYPT and not is_of_transit(name)


async def preview_new(visit: Visit) -> Preview:
    """Show what making a keyring does."""
    return Preview(
        title="New keyring",
        effects=["A keyring is made, with a first version that encrypts at once. It cannot be renamed or removed."],
        button="Make the keyring",
        back=PATH,
        inputs=(
            Input("name", "Name", hint="What its data is, never who it is about: orders, invoices", is_required=True),
            Input("is_for_files", "For files of any size, instead of messages", "checkbox"),
        ),
    )


async def make(visit: Visit) -> Done:
    """Make a keyring."""
    is_for_files = "is_for_files" in visit.fields
    key = await admin.create_keyring(visit.manager, visit.fields.get("name", "").strip(), is_for_files=is_for_files)
    return Done(address(key.keyring), f"Keyring {key.keyring} is there, and version {key.version} encrypts.")


async def preview_rotation(visit: Visit) -> Preview:
    """Show what a rotation does."""
    name = visit.path("keyring")
    standing = await keyring_standing(visit.manager, name, counts=False)
    now = "none" if standing.active is None else f"version {standing.active.version}"
    others = sum(not node.is_this for node in await nodes(visit.manager))
    waits = (
        f"{others} other node(s) are running: the new version encrypts once each of them has loaded it, within seconds."
        if others > 0
        else "No other node is running: the new version encrypts at once."
    )
    return Preview(
        title=f"Rotate {name}",
        effects=[
            f"A new version {standing.keyring.next_version} is made; what encrypts now is {now}.",
            waits,
            "Everything that was encrypted before stays readable: earlier versions go on to decrypt.",
            "Nothing is encrypted again. To move data to the new version, re-encrypt it.",
        ],
        button="Rotate",
        back=address(name),
    )


async def rotate(visit: Visit) -> Done:
    """Rotate a keyring."""
    name = visit.path("keyring")
    key = await admin.rotate_keyring(visit.manager, name)
    does = "encrypts" if key.is_active else "encrypts as soon as every node has loaded it"
    return Done(address(name), f"Version {key.version} of {name} {does}.")


async def preview_disable(visit: Visit) -> Preview:
    """Show what disabling does."""
    key = await _key(visit)
    return Preview(
        title=f"Disable version {key.version} of {key.keyring}",
        effects=[
            "Within seconds no node decrypts anything with this version any more.",
            f"What it has encrypted, {key.messages} message(s) as far as they are counted, cannot be read meanwhile.",
            "It can be enabled again at any time; nothing is lost.",
        ],
        button="Disable",
        back=address(key.keyring),
    )


async def disable(visit: Visit) -> Done:
    """Disable a version."""
    key = await admin.disable_key(visit.manager, (await _key(visit)).id)
    return Done(address(key.keyring), f"Version {key.version} does not decrypt any more.")


async def preview_enable(visit: Visit) -> Preview:
    """Show what enabling does."""
    key = await _key(visit)
    return Preview(
        title=f"Enable version {key.version} of {key.keyring}",
        effects=["It decrypts again what it has encrypted. It encrypts nothing new."],
        button="Enable",
        back=address(key.keyring),
    )


async def enable(visit: Visit) -> Done:
    """Enable a version."""
    key = await admin.enable_key(visit.manager, (await _key(visit)).id)
    return Done(address(key.keyring), f"Version {key.version} decrypts again.")


async def preview_destroy(visit: Visit) -> Preview:
    """Show what destroying does."""
    key = await _key(visit)
    uses = await admin.list_uses(visit.manager, key.keyring)
    told = ", ".join(use.name for use in uses)
    looks = (
        f"The data sources that are declared are looked through now, and again when the time has come: {told}."
        if uses
        else "No data source of this keyring is declared: nothing can be looked through, unless one is declared first."
    )
    return Preview(
        title=f"Destroy version {key.version} of {key.keyring}",
        effects=[
            "When the wait is over the key is erased for good: whatever is still encrypted under it is lost, in "
            "backups as well.",
            looks,
            f"It has encrypted {key.messages} message(s), as far as they are counted.",
            "Until the wait is over it can be called off. It decrypts nothing meanwhile.",
        ],
        button="Schedule the destruction",
        back=address(key.keyring),
        inputs=(
            Input("days", "Days to wait", "number", _DAYS[2], f"{_DAYS[0]} to {_DAYS[1]}", is_required=True),
            Input(
                "without_sources",
                "I vouch that nothing is encrypted under it, although no data source says so",
                "checkbox",
            ),
        ),
        typed=f"{key.keyring}/{key.version}",
    )


async def destroy(visit: Visit) -> Done:
    """Schedule the destruction of a version."""
    days = visit.fields.get("days", "").strip()
    if not days.isdecimal() or len(days) > 3:
        raise InvalidInputError(f"a destruction waits {_DAYS[0]} to {_DAYS[1]} days")
    key = await admin.schedule_destroy(
        visit.manager,
        (await _key(visit)).id,
        wait=timedelta(days=int(days)),
        without_sources="without_sources" in visit.fields,
    )
    when = "" if key.destroy_after is None else f" after {moment(key.destroy_after)}"
    return Done(
        address(key.keyring), f"Version {key.version} will be destroyed{when}. Until then it can be called off."
    )


async def preview_cancel(visit: Visit) -> Preview:
    """Show what calling a destruction off does."""
    key = await _key(visit)
    return Preview(
        title=f"Keep version {key.version} of {key.keyring}",
        effects=["Its destruction is called off.", "It stays disabled until it is enabled."],
        button="Call the destruction off",
        back=address(key.keyring),
    )


async def cancel(visit: Visit) -> Done:
    """Call a destruction off."""
    key = await admin.cancel_destroy(visit.manager, (await _key(visit)).id)
    return Done(address(key.keyring), f"Version {key.version} is kept. It is disabled; enable it to read with it.")


async def preview_rewrap(visit: Visit) -> Preview:
    """Show what rewrapping does."""
    status = await admin.store_status(visit.manager, lists_leaving=False, at_most=MOST_COUNTED + 1)
    keks = [f"{kek.provider} {kek.key_id}" + (f" version {kek.version}" if kek.version else "") for kek in status.keks]
    is_cut = max(status.keys.values()) > MOST_COUNTED
    many = "More than" if is_cut else "Up to"
    total = count(sum(min(each, MOST_COUNTED) for each in status.keys.values()))
    return Preview(
        title="Rewrap every key",
        effects=[
            f"A new WRAP key is made and wrapped by the KEK that is set now. WRAP keys are under: {'; '.join(keks)}.",
            f"{many} {total} data keys are wrapped again by it. No data is touched, and nothing stops meanwhile.",
            "It may be stopped at any moment and begun again.",
        ],
        button="Rewrap",
        back=PATH,
    )


async def rewrap(visit: Visit) -> Done:
    """Wrap every key again."""
    report = await admin.rewrap(visit.manager)
    return Done(PATH, f"{report.data_keys} data keys are under the newest WRAP key.")


async def preview_count(visit: Visit) -> Preview:
    """Show what counting does."""
    name = visit.path("keyring")
    await keyring_standing(visit.manager, name, counts=False)
    uses = await admin.list_uses(visit.manager, name)
    sources = ", ".join(use.name for use in uses) or "none is declared"
    return Preview(
        title=f"Count what {name} still protects",
        effects=[
            f"Every declared data source is read once, whole: {sources}. That takes as long as it takes, and the "
            "answer comes when it has ended.",
            "Nothing is decrypted, and nothing is changed.",
        ],
        button="Count",
        back=address(name),
    )


async def count_uses(visit: Visit) -> Shown:
    """Count what each version still protects."""
    found = await protected(visit.manager, visit.path("keyring"))
    failed = [each for each in found.sources if each.error is not None]
    return Shown("protected.html", {"found": found, "address": address(found.keyring), "failed": failed})


async def _key(visit: Visit) -> DataKeyInfo:
    return await admin.find_key(visit.manager, visit.path("key"))


PAGES: Final = (
    Page(PATH, _READS, listed, title="Keyrings"),
    Page(f"{PATH}/{{keyring:keyring}}", _READS, shown),
)
DEEDS: Final = (
    Deed("/console/new-keyring", _WRITES, preview_new, make),
    Deed("/console/rewrap", _WRITES, preview_rewrap, rewrap),
    Deed(f"{PATH}/{{keyring:name}}/rotate", _WRITES, preview_rotation, rotate),
    Deed(f"{PATH}/{{keyring:name}}/count-uses", _WRITES, preview_count, count_uses),
    Deed("/console/keys/{key:key}/disable", _WRITES, preview_disable, disable),
    Deed("/console/keys/{key:key}/enable", _WRITES, preview_enable, enable),
    Deed("/console/keys/{key:key}/destroy", _WRITES, preview_destroy, destroy, takes_two=True),
    Deed("/console/keys/{key:key}/keep", _WRITES, preview_cancel, cancel),
)
