"""The plot docs/assets/benchmarks.svg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.plot_style import MINE, TEXT, THEIRS, new_figure, set_panel, write
from benchmarks.results import DECRYPT, ENCRYPT, SIZES, Results
from benchmarks.subjects import OURS


def draw(results: Results, path: Path) -> None:
    """Write the plot of ``results`` to ``path``: a row a library, a panel a size, time on a logarithmic axis."""
    names = [subject.name for subject in results.subjects]
    rows = range(len(names), 0, -1)
    figure = new_figure(11, 0.42 * len(names) + 1.5)
    panels: Any = figure.subplots(1, len(SIZES), sharey=True)
    for axes, (size, title) in zip(panels, SIZES.items(), strict=True):
        set_panel(axes, title)
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
    write(figure, path)
