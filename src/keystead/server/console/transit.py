"""Transit keys of the visitor's tenant, their versions, and what is done to them."""

from __future__ import annotations

from typing import Final

from keystead.access.callers import Scope
from keystead.access.transit_scopes import TransitOperation as Op
from keystead.config.durations import age_text, parse_duration
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.manager import transit_keys
from keystead.manager.key_listing import versions_after
from keystead.manager.transit import TransitEngine
from keystead.manager.transit_keys import curing
from keystead.model import TransitType
from keystead.ports import TransitKeyRecord
from keystead.server.console import keyrings
from keystead.server.console.pages import Deed, Done, Input, Page, Preview, Shown
from keystead.server.console.rendering import part
from keystead.server.console.time_line import time_line
from keystead.server.console.visits import HOME, Visit
from keystead.transit.administration import KeyChanges, NewTransitKey
from keystead.transit.kinds import LARGEST_HMAC_KEY, SMALLEST_HMAC_KEY, type_of
from keystead.transit.opened import OpenKey

PATH: Final = "/console/transit"
_KEY: Final = f"{PATH}/{{transit:transit}}"
_FOR_GOOD: Final = ("trim", "delete")
NEW: Final = "/console/new-transit-key"
SHOWN: Final = 50
VERSIONS: Final = 100
_LONGEST_NUMBER: Final = 9
_WITHIN: Final = "Every node heeds it within seconds."
_PERIOD: Final = "Such as 30d, an hour at least; 0s for never"


def address(key: str) -> str:
    """Return the address of a key's page."""
    return f"{PATH}/{part(key)}"


async def listed(visit: Visit) -> Shown:
    """Show keys by name, a page at a time."""
    after = visit.request.query_params.get("after", "")
    found = await transit_keys.keys_after(visit.manager, _tenant(visit), after, limit=SHOWN + 1)
    values = {
        "keys": [(each, _rotates_by_itself(each.key), visit.may_transit(Op.READ, each.key.name)) for each in found],
        "shown": SHOWN,
        "after": after,
        "after_this": found[SHOWN - 1].key.name if len(found) > SHOWN else None,
        "address": address,
        "path": PATH,
        "new": NEW if visit.may_transit(Op.CREATE) else None,
    }
    return Shown("transit_keys.html", values)


async def shown(visit: Visit) -> Shown:
    """Show a key, and its versions, the newest first; never what is secret of it."""
    key = await _key(visit)
    record = key.record
    first = max(key.latest - VERSIONS, 0)
    versions = await versions_after(visit.manager, record.keyring, first, limit=VERSIONS)
    may_see_keyring = visit.may(Scope.KEYRINGS_READ, is_of_store=True)
    values = {
        "key": record,
        "latest": key.latest,
        "versions": [(each, transit_keys.public_key(key, each.version)) for each in reversed(versions)],
        "first": first,
        "line": time_line(versions, visit.service.now()),
        "does": _does(record.type),
        "acts": _acts(visit, record),
        "rotates": _rotates_by_itself(record),
        "path": PATH,
        "keyring": keyrings.address(record.keyring) if may_see_keyring else None,
    }
    return Shown("transit_key.html", values)


def _does(kind: TransitType) -> tuple[str, str]:
    """Return what a key of a type does, and what it does to what came of that."""
    if kind.is_rsa:
        return "encrypts and signs", "decrypts and verifies"
    if kind.encrypts:
        return "encrypts", "decrypts"
    return ("signs", "verifies") if kind.signs else ("makes codes", "checks codes")


def _acts(visit: Visit, record: TransitKeyRecord) -> list[tuple[str, str]]:
    """Return what the visitor may do with a key as it is, and where."""
    is_used = not record.soft_deleted
    acts = (
        ("Rotate", "rotate", Op.ROTATE, is_used and (not record.imported or record.allow_rotation)),
        ("Configure", "config", Op.CONFIG, True),
        ("Trim", "trim", Op.TRIM, _oldest_kept(record) > max(record.min_available, 1)),
        ("Soft-delete", "soft-delete", Op.DELETE, is_used),
        ("Restore", "restore", Op.DELETE, not is_used),
        ("Delete", "delete", Op.DELETE, record.deletion_allowed),
    )
    at = address(record.name)
    return [
        (label, f"{at}/{word}") for label, word, takes, is_so in acts if is_so and visit.may_transit(takes, record.name)
    ]


async def preview_new(visit: Visit) -> Preview:
    """Show what making a key does."""
    return Preview(
        title="New Transit key",
        effects=[
            "A key is made, with a first version that is used at once. It never leaves the store.",
            "Clients of Vault ask for it by its name. Name, type and whether it is derived stay as they are.",
        ],
        button="Make the key",
        back=_list(visit),
        inputs=(
            Input("name", "Name", hint="Letters, digits, _, and . or - within", is_required=True),
            Input(
                "type",
                "Type",
                "select",
                TransitType.AES_256.value,
                options=[(kind.value, kind.value) for kind in TransitType],
            ),
            Input("derived", "Derived: a key of its own for each context, which every request names", "checkbox"),
            Input(
                "convergent",
                "Convergent: equal plaintexts of a context have equal ciphertexts; takes a derived key",
                "checkbox",
            ),
            Input(
                "key_size", "Bytes of an hmac key", hint=f"{SMALLEST_HMAC_KEY} to {LARGEST_HMAC_KEY}; of others empty"
            ),
            Input("auto_rotate", "Rotate by itself every", value="0s", hint=_PERIOD),
        ),
    )


async def make(visit: Visit) -> Done:
    """Make a key."""
    wanted = NewTransitKey(
        type_of(visit.fields.get("type", "")),
        derived="derived" in visit.fields,
        convergent="convergent" in visit.fields,
        auto_rotate_s=_period(visit) or 0,
        key_size=_number(visit, "key_size", "the size of an hmac key") or 0,
    )
    key = await transit_keys.create(visit.manager, _tenant(visit), visit.transit_key or "", wanted)
    name = key.record.name
    return Done(_then(visit, name), f"The {key.record.type} key {name} is there, and version {key.latest} is used.")


async def preview_rotation(visit: Visit) -> Preview:
    """Show what a rotation does."""
    key = await _key(visit)
    name, oldest = key.record.name, key.record.min_decryption
    return Preview(
        title=f"Rotate {name}",
        effects=[
            f"A new version {key.latest + 1} is made, and is used where a request names none; now it is {key.latest}.",
            f"What version {oldest} and later have encrypted or signed goes on to be decrypted and verified.",
            "Nothing is encrypted again. A rewrap, transit/rewrap, moves a ciphertext to the new version.",
        ],
        button="Rotate",
        back=_then(visit, name),
    )


async def rotate(visit: Visit) -> Done:
    """Rotate a key."""
    name = _name(visit)
    cures = ("add a version of your own by keystead transit import-version", "restore it first")
    with curing("does not allow rotation", cures[0]), curing("soft-deleted", cures[1]):
        key = await _engine(visit).administration.rotate(_tenant(visit), name)
    return Done(_then(visit, name), f"Version {key.latest} of {name} is the one that is used.")


async def preview_config(visit: Visit) -> Preview:
    """Show what a key allows, and what changing it does."""
    key = await _key(visit)
    record = key.record
    makes, opens = _does(record.type)
    return Preview(
        title=f"Configure {record.name}",
        effects=[
            f"What you change here is changed at once, or nothing is where one change is refused. {_WITHIN}",
            f"What was made by a version before the oldest that {opens} is refused. Such versions are kept until they "
            "are trimmed: before that the number can be lowered again.",
            "Once deletion is allowed, whoever may delete can destroy the key for good.",
        ],
        button="Change",
        back=_then(visit, record.name),
        inputs=(
            Input(
                "min_decryption",
                f"Oldest version that {opens}",
                "number",
                str(record.min_decryption),
                f"1 to {key.latest}",
                is_required=True,
            ),
            Input(
                "min_encryption",
                f"Oldest version that {makes}",
                "number",
                str(record.min_encryption),
                f"0 for the latest alone, or up to {key.latest}",
                is_required=True,
            ),
            Input("auto_rotate", "Rotate by itself every", value=age_text(record.auto_rotate_s), hint=_PERIOD),
            Input("deletion_allowed", "Deletion is allowed", "checkbox", "yes" if record.deletion_allowed else ""),
        ),
    )


async def configure(visit: Visit) -> Done:
    """Change what a key allows."""
    name = _name(visit)
    changes = KeyChanges(
        _number(visit, "min_decryption", "the oldest version that decrypts"),
        _number(visit, "min_encryption", "the oldest version that encrypts"),
        "deletion_allowed" in visit.fields,
        auto_rotate_s=_period(visit),
    )
    await _engine(visit).administration.configure(_tenant(visit), name, changes)
    return Done(_then(visit, name), f"What {name} allows is as it was set.")


async def preview_trim(visit: Visit) -> Preview:
    """Show what destroying old versions does."""
    record = (await _key(visit)).record
    oldest = _oldest_kept(record)
    return Preview(
        title=f"Trim {record.name}",
        effects=[
            "Every version before the one that you name is destroyed for good. What such a version has encrypted is "
            "lost, and what it has signed is not verified here any more.",
            f"Version {oldest} is the newest that may be named: the oldest that decrypts is {record.min_decryption}, "
            f"the oldest that encrypts {record.min_encryption}."
            if oldest
            else "Nothing can be trimmed yet: set the oldest version that encrypts first, by Configure.",
        ],
        button="Destroy the old versions",
        back=_then(visit, record.name),
        inputs=(Input("before", "Oldest version that stays", "number", str(oldest or ""), is_required=True),),
        typed=record.name,
    )


async def trim(visit: Visit) -> Done:
    """Destroy old versions."""
    name = _name(visit)
    before = _number(visit, "before", "the oldest version that stays")
    if before is None:
        raise InvalidInputError("name the oldest version that stays")
    with curing("minimum", "set the oldest versions that decrypt and encrypt first, by Configure"):
        await _engine(visit).administration.trim(_tenant(visit), name, before)
    return Done(_then(visit, name), f"Versions of {name} before {before} are destroyed.")


async def preview_soft_delete(visit: Visit) -> Preview:
    """Show what taking a key out of use does."""
    name = (await _key(visit)).record.name
    return Preview(
        title=f"Soft-delete {name}",
        effects=[
            f"Whatever asks for {name} is refused: it neither encrypts nor decrypts, signs nor verifies. {_WITHIN}",
            "Nothing is lost: it can be restored at any time.",
        ],
        button="Take it out of use",
        back=_then(visit, name),
    )


async def soft_delete(visit: Visit) -> Done:
    """Take a key out of use."""
    name = _name(visit)
    await _engine(visit).administration.soft_delete(_tenant(visit), name)
    return Done(_then(visit, name), f"{name} is out of use until it is restored.")


async def preview_restore(visit: Visit) -> Preview:
    """Show what taking a key into use again does."""
    name = (await _key(visit)).record.name
    return Preview(
        title=f"Restore {name}",
        effects=[f"It is used again as before it was soft-deleted. {_WITHIN}"],
        button="Restore",
        back=_then(visit, name),
    )


async def restore(visit: Visit) -> Done:
    """Take a key into use again."""
    name = _name(visit)
    await _engine(visit).administration.soft_delete(_tenant(visit), name, deleted=False)
    return Done(_then(visit, name), f"{name} is in use.")


async def preview_delete(visit: Visit) -> Preview:
    """Show what deleting does."""
    key = await _key(visit)
    name = key.record.name
    return Preview(
        title=f"Delete {name}",
        effects=[
            f"The key and all its versions, {key.latest} is the latest, are destroyed for good: whatever they have "
            "encrypted is lost, and what they have signed is not verified here any more.",
            "Where it may be needed again, soft-delete it instead: that can be undone."
            if key.record.deletion_allowed
            else "This key does not allow it. Allow deletion by Configure first.",
        ],
        button="Delete the key",
        back=_then(visit, name),
        typed=name,
    )


async def delete(visit: Visit) -> Done:
    """Destroy a key and all its versions."""
    name = _name(visit)
    with curing("deletion is not allowed", "allow it by Configure first"):
        await _engine(visit).administration.delete(_tenant(visit), name)
    return Done(_list(visit), f"{name} and all its versions are destroyed.")


def _tenant(visit: Visit) -> str:
    return visit.by.principal.tenant


def _engine(visit: Visit) -> TransitEngine:
    return visit.service.transit


def _name(visit: Visit) -> str:
    return visit.path("transit")


async def _key(visit: Visit) -> OpenKey:
    return await transit_keys.get(_engine(visit), _tenant(visit), _name(visit))


def _then(visit: Visit, key: str) -> str:
    """Return where a visitor goes on who has done something to a key: where they may."""
    return address(key) if visit.may_transit(Op.READ, key) else _list(visit)


def _list(visit: Visit) -> str:
    return PATH if visit.may_transit(Op.LIST) else HOME


def _rotates_by_itself(record: TransitKeyRecord) -> str:
    return f"every {age_text(record.auto_rotate_s)}" if record.auto_rotate_s else "never"


def _oldest_kept(record: TransitKeyRecord) -> int:
    """Return the newest version before which all may be destroyed; 0 where none is."""
    return min(record.min_decryption, record.min_encryption)


def _number(visit: Visit, name: str, what: str) -> int | None:
    """Return a number that a form has; None where it is left empty."""
    text = visit.fields.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER):
        raise InvalidInputError(f"{what} is a number, such as 1")
    return int(text)


def _period(visit: Visit) -> int | None:
    text = visit.fields.get("auto_rotate", "").strip()
    try:
        return round(parse_duration(text).total_seconds()) if text else None
    except ConfigurationError as exc:
        raise InvalidInputError(str(exc)) from None


PAGES: Final = (
    Page(PATH, None, listed, is_of_store=False, title="Transit keys", transit=Op.LIST),
    Page(_KEY, None, shown, is_of_store=False, transit=Op.READ),
)
DEEDS: Final = (
    Deed(NEW, None, preview_new, make, is_of_store=False, transit=Op.CREATE),
    *(
        Deed(f"{_KEY}/{word}", None, preview, do, is_of_store=False, transit=takes, takes_two=word in _FOR_GOOD)
        for word, takes, preview, do in (
            ("rotate", Op.ROTATE, preview_rotation, rotate),
            ("config", Op.CONFIG, preview_config, configure),
            ("trim", Op.TRIM, preview_trim, trim),
            ("soft-delete", Op.DELETE, preview_soft_delete, soft_delete),
            ("restore", Op.DELETE, preview_restore, restore),
            ("delete", Op.DELETE, preview_delete, delete),
        )
    ),
)
