"""Fail when a Python file is longer than 400 lines: it has more than one subject by then."""

from __future__ import annotations

import sys
from pathlib import Path

LIMIT = 400
FOLDERS = ("src", "tests", "scripts", "benchmarks", "soak")


def main() -> int:
    """Print each file over the limit; return 1 if there is one."""
    root = Path(__file__).resolve().parent.parent
    too_long = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > LIMIT:
                too_long.append(f"{path.relative_to(root)}: {lines} lines, the limit is {LIMIT}")
    print("\n".join(too_long) or f"no file is longer than {LIMIT} lines")
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
