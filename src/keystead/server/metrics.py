"""``/metrics``: what the instruments have counted in this process, in Prometheus's text format."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from keystead.access.callers import Scope

if TYPE_CHECKING:
    from keystead.server.service import Service

NONE_HERE = (
    "the metrics of this process go where its OpenTelemetry set-up sends them; leave metrics out of that "
    "(OTEL_METRICS_EXPORTER unset) to have them here"
)


@cache
def registry(worker: str | None = None) -> CollectorRegistry | None:
    """Return what collects the process's instruments from now on.

    None where somebody else has set OpenTelemetry up before: its instruments have one destination.

    Args:
        worker: which of several processes on one port this is, as a label of every series.
    """
    if type(metrics.get_meter_provider()).__name__ != "_ProxyMeterProvider":
        return None
    collected = CollectorRegistry()
    reader = PrometheusMetricReader(
        disable_target_info=True,
        scope_info_enabled=False,
        registry=collected,
        resource_attribute_filter=lambda name: name == "worker",
    )
    resource = Resource({} if worker is None else {"worker": worker})
    metrics.set_meter_provider(MeterProvider([reader], resource, exemplar_filter=AlwaysOffExemplarFilter()))
    if worker is None:
        ProcessCollector(registry=collected)
    return collected


async def metrics_text(service: Service, authorization: str | None, collected: CollectorRegistry) -> tuple[bytes, str]:
    """Return the series and their content type.

    Raises:
        UnauthenticatedError, ForbiddenError: the caller shows no token with the scope ``metrics:read``, or a tenant's.
    """
    caller = await service.caller(authorization, None)
    caller.require(Scope.METRICS_READ)
    caller.require_all_tenants()
    return generate_latest(collected), CONTENT_TYPE_LATEST
