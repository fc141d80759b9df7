"""What counts as growing, for whoever watches a node."""

from __future__ import annotations

import random

from soak.figures import Figures
from soak.growth import Moment, compare


def figures_of(kib_a_step: float, tasks_a_step: float = 0.0) -> Figures:
    """Return the figures of a node that takes 20 MiB and gives them back, and grows besides."""
    chance, figures = random.Random(7), Figures()
    moments = [
        Moment(step, round(200_000 + chance.random() * 20_480 + kib_a_step * step), 20, round(10 + tasks_a_step * step))
        for step in range(2_000)
    ]
    compare(figures, "here", moments, most_mib=8.0)
    return figures


def test_what_is_taken_and_given_back_is_no_growth() -> None:
    assert all(figure.is_met is not False for figure in figures_of(0.0).rows)


def test_ten_kib_a_step_are() -> None:
    missed = [figure.what for figure in figures_of(10.0).rows if figure.is_met is False]
    assert missed == ["MiB more than when it was warm, by the slope of the least of each moment"]


def test_a_task_in_twenty_steps_is() -> None:
    missed = [figure.what for figure in figures_of(0.0, 0.05).rows if figure.is_met is False]
    assert missed == ["tasks more than when it was warm"]
