"""The plot of the evidence says what stands on its page."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from benchmarks.evidence import Scenario, scenarios
from soak import report
from soak.figures import Figures
from soak.scenarios import SCENARIOS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_plot_is_of_the_page_that_is_there() -> None:
    drawn = html.unescape((DOCS / "assets" / "evidence.svg").read_text(encoding="utf-8"))
    found = scenarios((DOCS / "evidence.md").read_text(encoding="utf-8"))
    assert {each.name for each in found} == set(SCENARIOS)
    for each in found:
        assert f">{each.name}<" in drawn
        assert f">{each.label[:40]}" in drawn, "the page is newer than its plot: python -m benchmarks evidence"


def test_each_figure_with_a_bar_is_read_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "facts", lambda _command, _server: {"date": "today", "commit": "none"})
    figures = Figures()
    figures.tell("here", "nothing to reach", 12)
    figures.equal("here", "as it was", "well", "well")
    figures.equal("here", "not as it was", 2, 3)
    figures.at_most("here", "milliseconds", 1500, 2000)
    figures.at_least("here", "runs", 4000, 1000)
    figures.at_most("here", "too many", 3, 2)
    scenario = next(iter(SCENARIOS.values()))
    text = report.page([report.Outcome(scenario, figures.rows, 1.0)], "soak", server="")
    (found,) = scenarios(text)
    assert found == Scenario(scenario.name, 1, 2, (0.75, 0.25, 1.5), "too many")
    assert found.label == "150 %: too many; 1 exact; 2 MISSED"
