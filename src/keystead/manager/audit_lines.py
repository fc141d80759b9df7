"""Entries of the audit trail, each told in a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from keystead.manager.audit_record import AuditRecord
from keystead.model.counts import counted

NAMED: Final = 3
"""How many keys, or keyrings, of one entry are named; of more the number is told."""
LONGEST: Final = 120


def keyrings_text(record: AuditRecord) -> str:
    """Return the keyring that an entry is about, or those of the keys that it names; empty where it names none."""
    if record.keyring is not None:
        return record.keyring
    names = sorted({str(key.get("keyring")) for key in record.keys})
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def details_text(record: AuditRecord) -> str:
    """Return what an entry tells besides, in a line that is no longer than ``LONGEST``; empty where that is nothing."""
    if record.rejected is not None:
        return f"NOT authentic: {record.rejected}"
    told = [_keys(record.keys)] if record.keys else []
    # What the keys themselves say need not be said twice, nor that there is no tenant.
    details = {
        name: value
        for name, value in record.details.items()
        if value != "" and not (record.keys and _is_said(name, value))
    }
    text = "; ".join([*told, *(f"{name}: {_shown(value)}" for name, value in details.items())])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _is_said(name: str, value: object) -> bool:
    return name in ("version", "part", "total") or (name, value) == ("restored", False)


def _keys(keys: Sequence[Mapping[str, Any]]) -> str:
    """Return which keys an entry tells of, in which states."""
    if len(keys) <= NAMED and len({key.get("keyring") for key in keys}) == 1:
        return ", ".join(f"version {key.get('version')} {key.get('state')}" for key in keys)
    states = Counter(str(key.get("state")) for key in keys)
    if len(states) == 1:
        return f"{counted(len(keys), 'key')} {next(iter(states))}"
    return f"{counted(len(keys), 'key')}: {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}"


def _shown(value: Any) -> str:
    """Return a detail as a person reads it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Collection) and not isinstance(value, Mapping):
        return ", ".join(map(_shown, value)) or "-"
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
