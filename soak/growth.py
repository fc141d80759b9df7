"""What a node has in use, looked at again and again, and by how much it has grown since it was warm.

Hashing takes and gives back memory in large pieces, so that what counts of a moment is the least that is in use in it.
Whatever grows for every request grows the least as well.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from soak.figures import Figures
from soak.serving import Node

WINDOWS: Final = 12
WARM_UP: Final = 1 / 3
"""Of everything, before which growing is no growth."""
MOST_MORE: Final = 8
"""Tasks and descriptors by which moments differ: requests under way, and connections of a pool."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a process has in use at one moment; ``at`` counts seconds or requests."""

    at: float
    memory_kib: int
    descriptors: int
    tasks: int


def look(node: Node, at: float) -> Moment:
    """Return what a node has in use."""
    process = Path(f"/proc/{node.pid}")
    (memory,) = [line.split()[1] for line in (process / "status").read_text().splitlines() if "VmRSS" in line]
    return Moment(at, int(memory), len(os.listdir(process / "fd")), (node.inside() or {}).get("tasks", 0))


def compare(figures: Figures, where: str, moments: Sequence[Moment], most_mib: float) -> None:
    """Say by how much it has grown, and see that it has not."""
    warm = moments[round(len(moments) * WARM_UP) :]
    points = least(warm, "memory_kib")
    line = statistics.linear_regression([at for at, _ in points], [value for _, value in points])
    more_mib = line.slope * (points[-1][0] - points[0][0]) / 1024
    figures.tell(where, "MiB in use at last", warm[-1].memory_kib / 1024)
    figures.at_most(
        where, "MiB more than when it was warm, by the slope of the least of each moment", more_mib, most_mib
    )
    for what in ("tasks", "descriptors"):
        level = [value for _, value in least(warm, what)]
        figures.at_most(where, f"{what} more than when it was warm", level[-1] - level[0], MOST_MORE)


def least(moments: Sequence[Moment], what: str) -> list[tuple[float, int]]:
    """Return the least of a value in each of some windows of equal length, with the time of its middle."""
    size = max(1, len(moments) // WINDOWS)
    windows = [moments[at : at + size] for at in range(0, len(moments) - size + 1, size)]
    return [(each[len(each) // 2].at, min(int(getattr(one, what)) for one in each)) for each in windows]
