"""The dashboard and the alerts ask for series that the service has, by labels that these have."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import promql_parser
import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from keystead.telemetry import Instruments, _Durations
from scripts.gen_dashboard import CRITICAL_PERCENT, TARGET, WARN_PERCENT, text
from tests.docs.blocks import ROOT

OPERATING = ROOT / "docs" / "guides" / "operate-the-service.md"
OF_SERIES = re.compile(r"^\| `(keystead_\w+)` \|([^|]*)\|", re.MULTILINE)
ADDED = {"le", "instance"}
"""Labels that the form of a histogram and Prometheus itself add."""


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def queries() -> dict[str, str]:
    """Return every query of both files, by what it is for."""
    panels = json.loads(TARGET.read_text(encoding="utf-8"))["panels"]
    drawn = {f"{panel['title']} {each['refId']}": each["expr"] for panel in panels for each in panel.get("targets", ())}
    return {**drawn, **{rule["alert"]: rule["expr"] for rule in rules()}}


def asked(query: str) -> tuple[set[str], set[str]]:
    """Return the series and the labels that a query names, by a parser of PromQL."""
    series: set[str] = set()
    labels: set[str] = set()

    def note(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            note(node.vector_selector)
        if isinstance(node, promql_parser.VectorSelector):
            series.add(re.sub("_(bucket|sum|count)$", "", node.name or ""))
            labels.update(each.name for each in node.matchers.matchers)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            labels.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "5m")), note)
    return series, labels - ADDED


def exported() -> set[str]:
    """Return the series that an exporter makes of the instruments."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    instruments = Instruments.of(provider.get_meter("test"))
    for each in fields(instruments):
        instrument: Any = getattr(instruments, each.name)
        if isinstance(instrument, _Durations):
            instrument.record(1.0, "test")
            continue
        measure = next(getattr(instrument, name) for name in ("add", "record", "set") if hasattr(instrument, name))
        measure(1)
    names = {sample.name for metric in registry.collect() for sample in metric.samples}
    provider.shutdown()
    return {re.sub("_(bucket|sum|count)$", "", name) for name in names}


def test_the_dashboard_is_what_its_script_writes() -> None:
    assert TARGET.read_text(encoding="utf-8") == text(), "run python -m scripts.gen_dashboard"


@pytest.mark.parametrize("name", queries())
def test_a_query_names_series_and_labels_that_there_are(name: str) -> None:
    labels_of = dict(OF_SERIES.findall(OPERATING.read_text(encoding="utf-8")))
    series, labels = asked(queries()[name])
    assert series <= exported()
    assert labels <= {label for each in series for label in re.findall(r"`(\w+)`", labels_of[each])}


def test_failures_turn_orange_and_red_where_the_alerts_call() -> None:
    panels = json.loads(TARGET.read_text(encoding="utf-8"))["panels"]
    (failures,) = [panel for panel in panels if panel["title"] == "Decryptions that failed"]
    steps = [step["value"] for step in failures["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert steps == [None, WARN_PERCENT, CRITICAL_PERCENT]
    called = {rule["labels"]["severity"]: rule["expr"].split()[-1] for rule in rules() if "Fail" in rule["alert"]}
    assert called == {"warning": str(WARN_PERCENT), "critical": str(CRITICAL_PERCENT)}


def test_panels_lie_beside_each_other_and_not_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(TARGET.read_text(encoding="utf-8"))["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
