"""Tables of the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.results import Bar


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> Iterator[str]:
    """Give the lines of a table."""
    yield "| " + " | ".join(head) + " |"
    yield align or "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def bar_table(bars: Iterable[Bar]) -> Iterator[str]:
    """Give the lines of a table of bars."""
    rows = [[bar.requirement, bar.seen, "pass" if bar.is_met else "**fail**"] for bar in bars]
    return table(["bar", "seen", ""], rows)


def summary(bars: Iterable[Bar]) -> str:
    """Return bars for the terminal."""
    return "\n".join(
        f"{'pass' if bar.is_met else 'FAIL'}  {bar.requirement.replace('`', '')}: {bar.seen.replace('`', '')}"
        for bar in bars
    )
