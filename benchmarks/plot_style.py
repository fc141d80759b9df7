"""What all plots of the documentation have in common: they are readable on a light and on a dark page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

# Tones in the middle: enough contrast against white and against black, with nothing painted behind them.
TEXT: Final = "#7b828c"
GRID: Final = "#7b828c40"
THEIRS: Final = "#8a93a0"
MINE: Final = "#2f8fd0"


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of so many inches, whose text stays text."""
    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "keystead", "font.family": "sans-serif", "font.size": 11}
    )
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure


def set_panel(axes: Any, title: str) -> None:
    """Have a panel with a logarithmic axis, and nothing painted around it."""
    axes.patch.set_alpha(0)
    axes.set_xscale("log")
    axes.set_title(title, color=TEXT, fontsize=12)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.tick_params(colors=TEXT, which="both", length=0)
    axes.xaxis.set_major_formatter("{x:g}")
    for spine in axes.spines.values():
        spine.set_visible(False)


def write(figure: Figure, path: Path) -> None:
    """Write a figure without trailing blanks, which the writer leaves and which make every later difference noisy."""
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
