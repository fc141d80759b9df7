"""Charts show each number at its height, and nothing is drawn of nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from keystead.ports import HourCount
from keystead.server.console.charts import due_chart, latency_chart, operations_chart

BEGUN = datetime(2030, 1, 1, 1, tzinfo=UTC)


def hours(*counts: tuple[int, int]) -> list[HourCount]:
    return [HourCount(BEGUN + timedelta(hours=at), *each) for at, each in enumerate(counts)]


def test_what_failed_stands_on_what_did_not() -> None:
    chart = operations_chart(hours((10, 4), (0, 0), (5, 0)))
    assert chart is not None
    good, bad, other = chart.boxes
    assert [each.kind for each in chart.boxes] == ["good", "bad", "good"]
    assert good.x == bad.x < other.x
    assert bad.y + bad.height == pytest.approx(good.y)
    assert good.height == pytest.approx(bad.height * 6 / 4, abs=0.2)
    assert good.height + bad.height == pytest.approx(2 * other.height, abs=0.2)
    assert [each.text for each in chart.beside] == ["0", "5", "10"]
    assert [row[1:] for row in chart.rows] == [("10", "4"), ("0", "0"), ("5", "0")]


def test_a_number_that_is_small_beside_the_others_is_seen() -> None:
    chart = operations_chart(hours((1_000_000, 1)))
    assert chart is not None
    assert [each.height >= 1.5 for each in chart.boxes] == [True, True]
    assert [each.text for each in chart.beside] == ["0", "500 k", "1 M"]


def test_the_hour_of_the_last_column_is_written_inside_the_picture() -> None:
    chart = operations_chart(hours(*[(1, 0)] * 24))
    assert chart is not None
    assert [each.text for each in chart.below] == ["06:00", "12:00", "18:00", "00:00"]
    assert chart.below[-1].x + 3.5 * len("00:00") <= chart.width


@pytest.mark.parametrize(("most", "top"), [(1, "1"), (3, "5"), (11, "20"), (99, "100"), (0.3, "0.5"), (2001, "5 k")])
def test_the_highest_line_is_the_next_round_number(most: float, top: str) -> None:
    chart = latency_chart({"total": 1, "p50": most, "p95": most, "p99": most})
    assert chart is not None
    assert chart.beside[-1].text == top
    assert all(each.y >= 0 and each.y + each.height <= chart.height for each in chart.boxes)


def test_durations_are_told_as_the_summary_tells_them() -> None:
    chart = latency_chart({"total": 9, "p50": 1.5, "p95": 2.25, "p99": 30.0})
    assert chart is not None
    assert [row[1] for row in chart.rows] == ["1.5 ms", "2.25 ms", "30.0 ms"]
    assert [each.text for each in chart.below] == ["p50", "p95", "p99"]


def test_keys_that_are_overdue_are_told_apart() -> None:
    chart = due_chart([1, 0, 2, 0, 0, 3, 4])
    assert chart is not None
    assert [each.kind for each in chart.boxes] == ["bad", "good", "good", "rest"]
    assert [row[1] for row in chart.rows] == ["1", "0", "2", "0", "0", "3", "4"]


def test_nothing_is_drawn_of_nothing() -> None:
    assert operations_chart(hours((0, 0))) is None
    assert latency_chart({"total": 0, "p50": None}) is None
    assert due_chart([0] * 7) is None
