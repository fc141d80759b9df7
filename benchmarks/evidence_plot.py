"""The plot docs/assets/evidence.svg: a row a scenario, a dot a figure, and how near each came to its bar."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from benchmarks.evidence import Scenario
from benchmarks.plot_style import GRID, MINE, TEXT, THEIRS, new_figure, set_panel, write

LEAST: Final = 0.001
"""What used less of its bar is drawn here."""
LETTERS: Final = 62
"""Of a label; what comes after them is left out."""


def draw(scenarios: list[Scenario], path: Path) -> None:
    """Write the plot of scenarios to ``path``."""
    figure = new_figure(11, 0.3 * len(scenarios) + 1.2)
    axes: Any = figure.subplots()
    set_panel(axes, "part of its bar that each figure used; logarithmic, left is better")
    rows = range(len(scenarios), 0, -1)
    for row, scenario in zip(rows, scenarios, strict=True):
        axes.plot([LEAST, 1], [row, row], color=GRID, linewidth=0.8, zorder=1)
        for part in scenario.used:
            is_nearest = part == max(scenario.used)
            axes.plot(
                max(part, LEAST), row, "o", color=MINE if is_nearest else THEIRS, markersize=6 if is_nearest else 4
            )
        axes.annotate(
            shortened(scenario.label),
            (1.12, row),
            xytext=(12, 0),
            textcoords="offset points",
            va="center",
            color=TEXT,
            fontsize=8.5,
            annotation_clip=False,
        )
    axes.axvline(1, color=TEXT, linewidth=1.2)
    axes.set_xlim(LEAST * 0.8, 1.12)
    axes.set_ylim(0.3, len(scenarios) + 0.7)
    axes.set_xticks([0.001, 0.01, 0.1, 0.5, 1], ["0.1 %", "1 %", "10 %", "50 %", "the bar"])
    axes.set_yticks(list(rows), [scenario.name for scenario in scenarios])
    write(figure, path)


def shortened(label: str) -> str:
    """Return what there is room for."""
    return label if len(label) <= LETTERS else f"{label[: LETTERS - 1].rstrip()}…"
