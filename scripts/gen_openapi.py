"""Write ``docs/reference/openapi.json`` from the routes of the administration."""

from __future__ import annotations

import json
from pathlib import Path

from keystead.server.rest.openapi import document
from keystead.server.rest.router import new_router

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "openapi.json"


def text() -> str:
    """Return the document as text."""
    return json.dumps(document(new_router()), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
