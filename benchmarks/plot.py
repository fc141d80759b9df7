"""The plot docs/assets/benchmarks.svg: readable on a light and on a dark page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.results import DECRYPT, ENCRYPT, SIZES, Results
from benchmarks.subjects import OURS

# Tones in the middle: enough contrast against white and against black, with nothing painted behind them.
TEXT: Final = "#7b828c"
GRID: Final = "#7b828c40"
THEIRS: Final = "#8a93a0"
MINE: Final = "#2f8fd0"


def draw(results: Results, path: Path) -> None:
    """Write the plot of ``results`` to ``path``: a row a library, a panel a size, time on a logarithmic axis."""
    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "keystead", "font.family": "sans-serif", "font.size": 11}
    )
    names = [subject.name for subject in results.subjects]
    rows = range(len(names), 0, -1)
    figure = Figure(figsize=(11, 0.42 * len(names) + 1.5), layout="constrained")
    figure.patch.set_alpha(0)
    panels: Any = figure.subplots(1, len(SIZES), sharey=True)
    for axes, (size, title) in zip(panels, SIZES.items(), strict=True):
        _panel(axes, title)
        for row, name in zip(rows, names, strict=True):
            colour = MINE if name.startswith(OURS) else THEIRS
            sealing = results.sample((size, ENCRYPT), name).median_ns / 1000
            opening = results.sample((size, DECRYPT), name).median_ns / 1000
            axes.plot([sealing, opening], [row, row], color=colour, linewidth=1.5, zorder=2)
            axes.plot(sealing, row, "o", color=colour, markersize=7, zorder=3)
            axes.plot(opening, row, "D", color=colour, markersize=5.5, zorder=3)
            axes.annotate(
                f"{sealing:.3g} / {opening:.3g}",
                (max(sealing, opening), row),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                color=MINE if name.startswith(OURS) else TEXT,
                fontsize=9,
            )
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * 8)
    panels[0].set_yticks(list(rows), names)
    for label in panels[0].get_yticklabels():
        if label.get_text().startswith(OURS):
            label.set_color(MINE)
            label.set_fontweight("bold")
    figure.suptitle("µs per message, encrypt (circle) / decrypt (diamond); logarithmic, left is faster", color=TEXT)
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    _tidy(path)


def _panel(axes: Any, title: str) -> None:
    axes.patch.set_alpha(0)
    axes.set_xscale("log")
    axes.set_title(title, color=TEXT, fontsize=12)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.tick_params(colors=TEXT, which="both", length=0)
    axes.xaxis.set_major_formatter("{x:g}")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _tidy(path: Path) -> None:
    """Drop trailing blanks, which the writer leaves and which make every later difference noisy."""
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
