"""What comes out of requests that are made up, sent in several ways at once to a node for each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from soak.figures import Figures
from soak.growth import Moment, compare, look
from soak.harness import fork
from soak.serving import Node

MOMENTS: Final = 60
HANG_S: Final = 30.0
TIMEOUT_S: Final = 12 * 3600.0


@dataclass
class Found:
    """What came out of the requests to one node.

    Attributes:
        problems: what was wrong, by its kind; the first of each.
        slowest_s: of the requests; None where each is cut off after ``HANG_S``, which is a problem then.
    """

    answers: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    slowest_s: float | None = None

    def look(self, node: Node, wanted: int) -> None:
        """See how large a node is, so many times while it is sent ``wanted`` requests."""
        number = self.answers.total()
        if number % max(1, wanted // MOMENTS) == 0:
            self.moments.append(look(node, number))


Fuzz = Callable[[str, Node, int, str, int], Found]
"""Sends so many requests in a way, made up from a seed, with a token."""


def measure(
    figures: Figures,
    fuzz: Fuzz,
    asked: Sequence[tuple[str, Node]],
    token: str,
    *,
    wanted: int,
    most_mib: float,
    problems: str,
) -> None:
    """Send ``wanted`` requests in each way; ``problems`` is what is told of those that went wrong."""
    seeded = [(where, node, int.from_bytes(os.urandom(4), "big")) for where, node in asked]
    children = [fork(fuzz, *each, token, wanted) for each in seeded]
    for (where, _, seed), child in zip(seeded, children, strict=True):
        found = child.result(TIMEOUT_S)
        figures.equal(where, "requests", found.answers.total(), wanted)
        told = ", ".join(f"{number} {code}" for code, number in sorted(found.answers.items()))
        figures.tell(where, "answers", told)
        if found.slowest_s is not None:
            figures.at_most(where, "seconds of the slowest", found.slowest_s, HANG_S)
        shown = [f"seed {seed}: {each}" for each in list(found.problems.values())[:5]]
        figures.equal(where, problems, "; ".join(shown) or "none", "none")
        compare(figures, where, found.moments, most_mib)
