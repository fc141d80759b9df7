"""Write ``deploy/grafana/keystead.json``, the dashboard of the key service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TARGET = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "keystead.json"

WARN_PERCENT: Final = 5
CRITICAL_PERCENT: Final = 10
WIDTH: Final = 24
HEIGHT: Final = 8

_HERE: Final = 'instance=~"$instance"'
_WINDOW: Final = "[$__rate_interval]"
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: ``queries`` are the names of lines and what they show.

    Attributes:
        limits: where it turns from green to orange, and from orange to red.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    about: str = ""
    unit: str = "short"
    limits: tuple[float, float] | None = None
    width: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


def rate(series: str, *by: str, where: str = "") -> str:
    """Return how much of a counter there is in a second, over all processes."""
    labels = ", ".join(filter(None, (_HERE, where)))
    grouped = f" by ({', '.join(by)}) " if by else ""
    return f"sum{grouped}(rate({series}{{{labels}}}{_WINDOW}))"


def quantile(share: float, series: str, *by: str, where: str = "") -> str:
    """Return what so large a share of a histogram's observations is below of."""
    return f"histogram_quantile({share}, {rate(f'{series}_bucket', 'le', *by, where=where)})"


def percent_of(part: str, series: str, *, where: str) -> str:
    """Return how many percent of a counter is a part of it, which may not be there."""
    return f"100 * ({rate(series, where=f'{where}, {part}')} or vector(0)) / {rate(series, where=where)}"


_OPERATIONS: Final = "keystead_client_key_operations_total"
_DURATIONS: Final = "keystead_client_key_operation_duration_seconds"
_DECRYPT: Final = 'operation="decrypt"'

ROWS: Final = (
    Row(
        "Requests",
        (
            Panel("By operation", (("{{operation}}", rate("keystead_requests_total", "operation")),), unit="reqps"),
            Panel("By result", (("{{code}}", rate("keystead_requests_total", "code")),), unit="reqps"),
            Panel(
                "95 % answered within",
                (("{{operation}}", quantile(0.95, "keystead_request_duration_seconds", "operation")),),
                unit="s",
            ),
        ),
    ),
    Row(
        "Decryption",
        (
            Panel(
                "Duration of a decryption",
                tuple(
                    (f"p{round(share * 100)}", quantile(share, _DURATIONS, where=_DECRYPT))
                    for share in (0.5, 0.95, 0.99)
                ),
                unit="s",
            ),
            Panel(
                "Decryptions that failed",
                (("failed", percent_of('result!="ok"', _OPERATIONS, where=_DECRYPT)),),
                about=f"Orange above {WARN_PERCENT} %, red above {CRITICAL_PERCENT} %. "
                "A wrong secret that was decrypted is no failure.",
                unit="percent",
                limits=(WARN_PERCENT, CRITICAL_PERCENT),
            ),
            Panel(
                "Why they failed",
                (("{{result}}", rate(_OPERATIONS, "result", where=f'{_DECRYPT}, result!="ok"')),),
                unit="ops",
            ),
        ),
    ),
    Row(
        "Secrets",
        (
            Panel("Guesses compared", (("{{result}}", rate("keystead_secret_checks_total", "result")),), unit="ops"),
            Panel(
                "Secrets locked",
                (("{{kind}}", f"sum by (kind) (increase(keystead_secret_lockouts_total{{{_HERE}}}[1h]))"),),
                about="In the hour before. Many at once: somebody tries PINs of many users.",
            ),
            Panel("Junk refused", (("refused", rate("keystead_junk_refused_total")),), unit="ops"),
        ),
    ),
    Row(
        "Keys of devices",
        (
            Panel("Keys given", (("{{origin}}", rate("keystead_client_keys_given_total", "origin")),), unit="ops"),
            Panel(
                "Pairs that are ready",
                (("{{kind}}", f"max by (kind) (keystead_ready_pairs{{{_HERE}}})"),),
                about="None for long: devices wait for their keys to be made. Set client_keys.ready higher.",
            ),
            Panel("Pairs made", (("{{kind}}", rate("keystead_ready_pairs_made_total", "kind")),), unit="ops"),
        ),
    ),
    Row(
        "Beneath",
        (
            Panel(
                "Calls to the KMS",
                (("{{operation}} {{result}}", rate("keystead_kms_calls_total", "operation", "result")),),
                about="Denied: somebody changed a permission. Unreachable: the grace is running.",
                unit="ops",
            ),
            Panel(
                "Age of the active data keys",
                (("{{keyring}}", f"max by (keyring) (keystead_data_key_age_seconds{{{_HERE}}})"),),
                unit="s",
            ),
            Panel(
                "Audit entries not in the log yet",
                (("waiting", f"max(keystead_audit_waiting{{{_HERE}}})"),),
                about="Growing: no process seals. Nothing is shown for a store that keeps no trail.",
            ),
        ),
    ),
)
DEVICES: Final = """\
**Uses of each device** are no series of Prometheus: there would be one for each device. `getEncryptionMetricsSummary`
has the busiest, hashed, and the keys that fail too often; the scope is `metrics:read`."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    return {
        "uid": "keystead",
        "title": "Keystead",
        "tags": ["keystead"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "instance",
                    "label": "Node",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": "label_values(keystead_requests_total, instance)",
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": [{"id": number, **panel} for number, panel in enumerate(_panels(), start=1)],
    }


def _panels() -> Iterator[dict[str, Any]]:
    top = 0
    for row in ROWS:
        yield {"type": "row", "title": row.title, "gridPos": _place(0, top, WIDTH, 1), "panels": []}
        left = 0
        for panel in row.panels:
            yield _picture(panel) | {"gridPos": _place(left, top + 1, panel.width, HEIGHT)}
            left += panel.width
        top += 1 + HEIGHT
    content = {"mode": "markdown", "content": DEVICES}
    yield {"type": "text", "title": "Devices", "options": content, "gridPos": _place(0, top, WIDTH, 4)}


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _picture(panel: Panel) -> dict[str, Any]:
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": custom}
    if panel.limits is not None:
        custom["thresholdsStyle"] = {"mode": "line+area"}
        steps = zip(("green", "orange", "red"), (None, *panel.limits), strict=True)
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": c, "value": at} for c, at in steps]}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for number, (legend, expression) in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """Return the file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text(), encoding="utf-8")
