"""Fail unless every line and branch of ``crypto/`` and ``lifecycle/`` was executed.

Reads the report of ``coverage json``. The floor for the whole package is coverage's own ``fail_under``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path, PurePath

COMPLETE_ROOMS = ("crypto", "lifecycle")


def gaps(report: Path) -> list[str]:
    """Return one line for each file of a complete room that has an unexecuted line or branch."""
    found = []
    files = json.loads(report.read_text(encoding="utf-8"))["files"]
    for name, data in sorted(files.items()):
        parts = PurePath(name).parts
        room = parts[parts.index("keystead") + 1] if "keystead" in parts[:-1] else ""
        if room not in COMPLETE_ROOMS:
            continue
        lines: list[int] = data["missing_lines"]
        missed = ranges(lines)
        missed += [
            f"{start}->{'exit' if end < 0 else end}" for start, end in data["missing_branches"] if start not in lines
        ]
        if missed:
            found.append(f"{name}: not executed: {', '.join(missed)}")
    return found


def ranges(lines: list[int]) -> list[str]:
    """Return rising line numbers as texts, neighbours joined: 7, 9-12."""
    runs: list[list[int]] = []
    for line in lines:
        if runs and line == runs[-1][-1] + 1:
            runs[-1].append(line)
        else:
            runs.append([line])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def main(arguments: list[str]) -> int:
    """Print the gaps; return 1 if there is one, 2 when the report is missing."""
    report = Path(arguments[0] if arguments else "coverage.json")
    if not report.exists():
        print(f"{report} does not exist: run pytest with --cov --cov-report=json first", file=sys.stderr)
        return 2
    found = gaps(report)
    print("\n".join(found) or f"every line and branch of {' and '.join(COMPLETE_ROOMS)} was executed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
