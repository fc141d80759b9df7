"""The audit trail: its entries searched and shown whole, what it is verified by, and proofs to keep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from keystead.access.callers import Scope
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.ledger.audit.entries import MAX_KEY_ID
from keystead.ledger.audit.verifying import MOST_AT_ONCE
from keystead.manager.audit_lines import details_text, keyrings_text
from keystead.manager.audit_listing import BOOKKEEPING, AuditPage, newest_before, proof_at, sealed_at
from keystead.model import utc_text
from keystead.ports import AuditFilter
from keystead.server.console.keyrings import address as keyring_address
from keystead.server.console.pages import Deed, Done, File, Page, Preview, Shown
from keystead.server.console.rendering import MOST_COUNTED, count
from keystead.server.console.verdict import verdict
from keystead.server.console.visits import Visit

PATH: Final = "/console/audit"
VERIFY: Final = f"{PATH}/verify"
CHECKPOINT: Final = f"{PATH}/checkpoint"
SHOWN: Final = 50
MOST_CHARS: Final = 20_000
"""Of one record that are shown: an entry may have a megabyte."""
_READS: Final = Scope.AUDIT_READ
_ACTION: Final = re.compile(r"[a-z0-9_]{1,64}\.[a-z0-9_]{1,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_FIELDS: Final = ("actor", "action", "keyring", "key_id", "since", "until", "everything", "before")


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for, as the address of the page says it."""

    asked: Mapping[str, str]

    @property
    def where(self) -> AuditFilter:
        """What the trail lists its entries by.

        Raises:
            InvalidInputError: something that no entry has.
        """
        action, key_id = self.asked["action"], self.asked["key_id"]
        if action and not _ACTION.fullmatch(action):
            raise InvalidInputError("an operation is a word, a dot and a word, such as key.rotate")
        if key_id and not (_NUMBER.fullmatch(key_id) and int(key_id) <= MAX_KEY_ID):
            raise InvalidInputError("a data key's id is a number, as the page of its keyring shows it")
        return AuditFilter(
            self.asked["keyring"] or None,
            action or None,
            int(key_id) if key_id else None,
            _moment(self.asked["since"]),
            _moment(self.asked["until"]),
        )

    @property
    def before(self) -> int | None:
        """The record that the page begins before; None for the newest."""
        before = self.asked["before"]
        if before and not (_NUMBER.fullmatch(before) and int(before) <= MAX_KEY_ID):
            raise InvalidInputError("the number of a record is a whole number")
        return int(before) if before else None

    @property
    def leaves_out(self) -> frozenset[str]:
        """Actions that are not shown."""
        return frozenset() if self.asked["everything"] or self.asked["action"] else BOOKKEEPING

    def behind(self, before: int) -> str:
        """Return the address of what is older."""
        asked = {**self.asked, "before": str(before)}
        return f"{PATH}?{urlencode({name: value for name, value in asked.items() if value})}"


def _moment(text: str) -> str | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            "a time is a date, or a date and a time in UTC: 2030-01-31 or 2030-01-31T14:30"
        ) from None
    return utc_text(at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC))


async def listed(visit: Visit) -> Shown:
    """Show entries that are sealed, the newest first."""
    search = Search({name: visit.request.query_params.get(name, "").strip() for name in _FIELDS})
    found, refused = AuditPage([]), None
    try:
        found = await newest_before(
            visit.manager,
            search.where,
            before=search.before,
            limit=SHOWN,
            actor=search.asked["actor"],
            leaves_out=search.leaves_out,
        )
    except InvalidInputError as exc:
        refused = str(exc)
    except ConfigurationError:
        found = AuditPage([])
    values = {
        "asked": search.asked,
        "entries": [(each, keyrings_text(each), details_text(each)) for each in found.records],
        "older": None if found.behind is None else search.behind(found.behind),
        "looked_to": found.behind,
        "refused": refused,
        "status": await visit.manager.audit.status(at_most=MOST_COUNTED + 1),
        "address": PATH,
        "verify": VERIFY,
        "checkpoint": CHECKPOINT,
    }
    return Shown("audit.html", values, 200 if refused is None else 400)


async def shown(visit: Visit) -> Shown:
    """Show a record whole."""
    record = await sealed_at(visit.manager, _record(visit))
    status = await visit.manager.audit.status(at_most=MOST_COUNTED + 1)
    keyring = None if record.entry is None else record.entry.keyring
    values = {
        "record": record,
        "text": record.text[:MOST_CHARS],
        "is_cut": len(record.text) > MOST_CHARS,
        "keyring": keyring_address(keyring) if keyring and visit.may(Scope.KEYRINGS_READ, is_of_store=True) else None,
        "is_covered": record.seq < status.checkpoint_records,
        "is_on": status.is_on,
        "address": PATH,
        "checkpoint": CHECKPOINT,
    }
    return Shown("audit_record.html", values)


async def proof(visit: Visit) -> File:
    """Give the proof that a record is in the trail, as ``keystead log verify-proof`` reads it."""
    bundle = await proof_at(visit.manager, _record(visit))
    return File(f"audit-{bundle.index}.tlog-proof", bundle.render())


async def preview_verify(visit: Visit) -> Preview:
    """Show what verifying does."""
    return Preview(
        title="Verify the audit trail",
        effects=[
            "Each record's seal and number, each entry's code and each checkpoint's signature is computed again, and "
            "what is missing is looked for. This takes seconds.",
            f"Of a long trail the newest files are checked, up to {count(MOST_AT_ONCE)} records; the result says from "
            "which record on. `keystead audit verify` checks all of it, however long that takes.",
            "Nothing is changed by it.",
            "It is this service that checks what it has written itself. Whoever does not want to believe it checks the "
            "trail elsewhere, by a policy and a checkpoint that were kept there.",
        ],
        button="Verify now",
        back=PATH,
    )


async def verify(visit: Visit) -> Shown:
    """Verify the newest of the trail, and say in sentences what was found."""
    return Shown("audit_verdict.html", {"verdict": verdict(await visit.manager.audit.verify_newest()), "address": PATH})


async def preview_checkpoint(visit: Visit) -> Preview:
    """Show what making a checkpoint does."""
    return Preview(
        title="Make a checkpoint",
        effects=[
            "Everything that waits is sealed, and a signed statement over the whole trail is made and downloaded.",
            "It is worth what it is kept away from: keep it where nobody who writes the database can change it.",
            "`keystead audit verify --since-checkpoint FILE` then finds whatever was taken back since.",
        ],
        button="Make the checkpoint",
        back=PATH,
    )


async def make_checkpoint(visit: Visit) -> Done | File:
    """Make a checkpoint, and give it to the visitor."""
    return File("audit.checkpoint", await visit.manager.audit.checkpoint())


def _record(visit: Visit) -> int:
    number = visit.path("record")
    if int(number) > MAX_KEY_ID:
        raise InvalidInputError("no trail has so many records")
    return int(number)


PAGES: Final = (
    Page(PATH, _READS, listed, title="Audit trail"),
    Page(f"{PATH}/{{record:int}}", _READS, shown),
    Page(f"{PATH}/{{record:int}}/proof", _READS, proof, is_whole=False),
)
DEEDS: Final = (
    Deed(VERIFY, _READS, preview_verify, verify),
    Deed(CHECKPOINT, _READS, preview_checkpoint, make_checkpoint),
)
