"""A plan as the store keeps it: JSON of a bounded length."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from keystead.fields.planning import ReencryptPlan, VersionRows

MOST_VERSIONS: Final = 50
LONGEST_S: Final = 1e9
_COUNTS: Final = ("rows", "empty", "erased", "plaintext", "sample_rows", "sample_changes")


@dataclass(frozen=True, slots=True)
class KeptPlan:
    """A plan whose ``versions`` are those with the most rows; ``other_rows`` are under ``other_versions`` more."""

    plan: ReencryptPlan
    other_versions: int = 0
    other_rows: int = 0


def plan_text(found: ReencryptPlan) -> str:
    """Return the text of a plan, which ``parse_plan`` reads."""
    by_rows = sorted(found.versions, key=lambda each: -each.rows)
    kept = {(each.data_key_id, each.keyring, each.version) for each in by_rows[:MOST_VERSIONS]}
    body = asdict(found) | {
        "seconds": min(float(found.seconds), LONGEST_S / 2),
        "versions": [asdict(each) for each in found.versions if (each.data_key_id, each.keyring, each.version) in kept],
        "other_versions": len(by_rows[MOST_VERSIONS:]),
        "other_rows": sum(each.rows for each in by_rows[MOST_VERSIONS:]),
    }
    return json.dumps(body, separators=(",", ":"))


def parse_plan(text: str | None) -> KeptPlan | None:
    """Return the plan of a text; None of one that is no plan, whoever wrote it."""
    try:
        told = json.loads(text or "null")
        versions = [
            VersionRows(
                _count(each["data_key_id"]), _maybe(str, each["keyring"]), _maybe(int, each["version"]), _rows(each)
            )
            for each in told["versions"][:MOST_VERSIONS]
        ]
        plan = ReencryptPlan(
            **{name: _count(told[name]) for name in _COUNTS},
            versions=versions,
            seconds=_seconds(told["seconds"]),
            unfinished=_maybe(str, told["unfinished"]),
        )
        return KeptPlan(plan, _count(told["other_versions"]), _count(told["other_rows"]))
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return None


def _rows(version: Any) -> int:
    return _count(version["rows"])


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a count is a number, zero or more")
    return value


def _seconds(value: Any) -> float:
    if type(value) is not float or not 0 <= value < LONGEST_S:
        raise ValueError("a length of time is zero or more, and no longer than there is")
    return value


def _maybe(kind: type, value: Any) -> Any:
    if value is not None and type(value) is not kind:
        raise ValueError("this is of another type")
    return value
