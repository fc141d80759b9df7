"""Reads the files of ``testvectors/``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "testvectors"


def load(name: str) -> dict[str, Any]:
    """Return a vector file's content."""
    content: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return content


def cases(name: str, member: str = "tests") -> list[dict[str, Any]]:
    """Return the list ``member`` of a vector file."""
    found: list[dict[str, Any]] = load(name)[member]
    return found


def context_of(case: dict[str, Any]) -> dict[str, str]:
    """Return a case's pairs as a context."""
    return dict(case.get("pairs", case.get("context", [])))
