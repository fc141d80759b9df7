"""What an entry says of data keys, and whether a store's rows are what a trail says. Spec: docs/spec/audit-v1.md, 4."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from keystead.ledger.audit.entries import canonical
from keystead.model import KeyRecord, utc_text
from keystead.ports import AuditEvent, Detail

_PLAIN: Final = (
    "keyring",
    "version",
    "algorithm",
    "created",
    "kek_provider",
    "kek_key_id",
    "kek_version",
    "kek_algorithm",
    "legacy_version",
)
_TIMES: Final = ("activated_at", "rotate_after", "expires_at", "destroy_after")


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """A data key that is not as the trail says: ``what`` is ``state``, ``row``, ``absent`` or ``unknown``.

    ``absent``: the store has no such key. ``unknown``: the trail knows of none.
    """

    id: int
    keyring: str
    version: int
    what: str
    trail: str | None = None
    store: str | None = None


def told_of(row: KeyRecord) -> dict[str, Detail]:
    """Return what an entry says of a data key."""
    return {
        "id": str(row.id),
        "keyring": row.keyring,
        "version": row.version,
        "state": row.state.value,
        "row": row_digest(row),
    }


def row_digest(row: KeyRecord) -> str:
    """Return the digest of everything in a row that only Keystead changes, use counts and epoch left out."""
    wrapped = row.wrapped_key
    columns: dict[str, object] = {name: getattr(row, name) for name in _PLAIN}
    columns |= {name: _time(getattr(row, name)) for name in _TIMES}
    columns |= {
        "id": str(row.id),
        "purpose": row.purpose.value,
        "state": row.state.value,
        "context": dict(row.context),
        "wrapped_by": None if row.wrapped_by is None else str(row.wrapped_by),
        "wrapped_key": None if wrapped is None else sha256(wrapped).hexdigest(),
    }
    return b64encode(sha256(canonical(columns).encode()).digest())[:-1].decode()


def shared_out(events: Sequence[AuditEvent], rows: Iterable[KeyRecord]) -> list[list[KeyRecord]]:
    """Return for each event the keys it is about: the one that it names; and the last one takes the others."""
    found: list[list[KeyRecord]] = [[] for _ in events]
    for row in rows:
        at = max((at for at, each in enumerate(events) if each.key_id == row.id), default=len(events) - 1)
        found[at].append(row)
    return found


class KeyStates:
    """The state of each data key, as the entries of a trail tell it, whatever order they come in."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[tuple[int, int], Mapping[str, Any]]] = {}
        self._begun = -1

    def take(self, members: Mapping[str, Any]) -> None:
        """Take an entry."""
        epoch, keys = members.get("epoch"), members.get("keys")
        if isinstance(epoch, int) and _is_whole(members):
            self._begun = max(self._begun, epoch)
        if not isinstance(epoch, int) or not isinstance(keys, list):
            return
        place = epoch, int(members["n"])
        for told in keys:
            key_id = int(told["id"])
            known = self._known.get(key_id)
            if known is None or known[0] <= place:
                self._known[key_id] = place, told

    @property
    def is_whole(self) -> bool:
        """Whether there was an entry that begins with the keys of the whole store."""
        return self._begun >= 0

    def differences(self, rows: Iterable[KeyRecord]) -> list[KeyDifference]:
        """Return how the rows of a store, all of them, differ."""
        # What was there before the trail began, the last time, is in what it began with.
        known = {key_id: told for key_id, (place, told) in self._known.items() if place[0] >= self._begun}
        found: list[KeyDifference] = []
        for row in rows:
            told = known.pop(row.id, None)
            if told is None:
                found.append(KeyDifference(row.id, row.keyring, row.version, "unknown", store=row.state.value))
            elif told["state"] != row.state.value:
                found.append(KeyDifference(row.id, row.keyring, row.version, "state", told["state"], row.state.value))
            elif told["row"] != row_digest(row):
                found.append(KeyDifference(row.id, row.keyring, row.version, "row", told["row"], row_digest(row)))
        for key_id, told in known.items():
            found.append(
                KeyDifference(key_id, str(told["keyring"]), int(told["version"]), "absent", str(told["state"]))
            )
        return sorted(found, key=lambda each: (each.keyring, each.version, each.id))


def _is_whole(members: Mapping[str, Any]) -> bool:
    """Whether an entry, with those that follow it, tells of every key of the store."""
    if members.get("action") == "audit.begin":
        return True
    details = members.get("details")
    return members.get("action") == "audit.snapshot" and isinstance(details, dict) and details.get("part") == 0


def _time(value: datetime | None) -> str | None:
    return None if value is None else utc_text(value)
