"""Figures as a page and as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.backends.openssl import backend

from soak.figures import Figure, Scenario

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "evidence.md"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario that has run: its figures, how long it took, and what stopped it, if anything did."""

    scenario: Scenario
    figures: list[Figure]
    seconds: float
    failure: str = ""

    @property
    def is_good(self) -> bool:
        """Whether every bar was met."""
        return not self.failure and all(figure.is_met is not False for figure in self.figures)

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        return {
            "name": self.scenario.name,
            "claim": self.scenario.claim,
            "seconds": round(self.seconds, 1),
            "is_good": self.is_good,
            "failure": self.failure,
            "figures": [asdict(figure) for figure in self.figures],
        }


def page(outcomes: Sequence[Outcome], command: str, server: str, earlier: Mapping[str, str] | None = None) -> str:
    """Return the report as Markdown. ``earlier`` are the sections of scenarios that are not in this run, by name."""
    about = facts(command, server)
    kept = dict(earlier or {})
    lines = [
        "# Evidence",
        "",
        "Written by the soak runner (`make soak` runs all of it): crash, race, fuzz and load tests against a real "
        "SQLite and a real PostgreSQL. Every figure beside a bar is a test; a run that misses one exits with 1.",
        "",
        "![How much of its bars each scenario used](assets/evidence.svg)",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in about.items()),
        f"| outcome | {sum(o.is_good for o in outcomes)} of {len(outcomes)} scenarios met every bar, "
        f"in {_duration(sum(o.seconds for o in outcomes))} |",
    ]
    if kept:
        lines.append(f"| of earlier runs | {', '.join(kept)}; each section says of when, and at which commit |")
    text = "\n".join(lines) + "\n"
    sections = kept | {outcome.scenario.name: _section(outcome, about) for outcome in outcomes}
    return text + "".join(f"\n## {name}\n{sections[name]}" for name in sections)


def sections(text: str) -> dict[str, str]:
    """Return the sections of a page by the names of their scenarios."""
    parts = (part.partition("\n") for part in ("\n" + text).split("\n## ")[1:])
    return {name: body.rstrip("\n") + "\n" for name, _, body in parts}


def _section(outcome: Outcome, about: Mapping[str, str]) -> str:
    told = f"{_duration(outcome.seconds)}, on {about['date']}, at {about['commit']}."
    lines = ["", f"{outcome.scenario.claim} {told}", ""]
    if outcome.failure:
        lines += [f"**Stopped:** `{outcome.failure.strip().splitlines()[-1]}`", ""]
    lines += ["| on | what | measured | bar | met |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {figure.where} | {figure.what} | {figure.value} | {figure.bar} | {_mark(figure)} |"
        for figure in outcome.figures
    ]
    return "\n".join(lines) + "\n"


def facts(command: str, server: str) -> dict[str, str]:
    """Return what a reader needs to compare figures: when, what, and on which machine. No host names, no paths."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "command": f"`{command}`",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "Python": platform.python_version(),
        "cryptography": f"{importlib.metadata.version('cryptography')}, {backend.openssl_version_text()}",
        "SQLAlchemy": importlib.metadata.version("sqlalchemy"),
        "SQLite": sqlite3.sqlite_version,
        "PostgreSQL": _postgresql_version(server),
    }


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--", "src", "soak", "tests")
    return (head or "none") + (" with uncommitted changes" if changed else "")


def _postgresql_version(server: str) -> str:
    with psycopg.connect(server) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return str(row[0]) if row else "unknown"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _mark(figure: Figure) -> str:
    return "" if figure.is_met is None else "yes" if figure.is_met else "**no**"
