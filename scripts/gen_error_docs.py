"""Write ``docs/errors.md`` from the error tree: one section, and so one anchor, for each code."""

from __future__ import annotations

from pathlib import Path

from keystead.server.error_page import page

TARGET = Path(__file__).resolve().parent.parent / "docs" / "errors.md"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
