"""The first page: what needs attention, then charts, then how the store stands."""

from __future__ import annotations

from typing import Any, Final

from keystead.access.callers import Scope
from keystead.devices.operations import Operation
from keystead.manager import admin
from keystead.manager.attention import Attention, attention
from keystead.manager.audit_status import seen_status
from keystead.manager.key_listing import active_by_date
from keystead.server.console.charts import DUE_DAYS, due_chart, latency_chart, operations_chart
from keystead.server.console.keyrings import address
from keystead.server.console.pages import Page, Shown
from keystead.server.console.rendering import MOST_COUNTED
from keystead.server.console.visits import HOME, Visit

MOST_CHARTED: Final = 10_000
"""How many active keys are in the chart, those first that are due first."""


async def shown(visit: Visit) -> Shown:
    """Show what the visitor may know of it."""
    may_read, may_audit = (visit.may(scope, is_of_store=True) for scope in (Scope.KEYRINGS_READ, Scope.AUDIT_READ))
    trail = await seen_status(visit.manager, at_most=MOST_COUNTED + 1) if may_audit else None
    values: dict[str, Any] = {
        "may_read": may_read,
        "may_audit": may_audit,
        "found": await attention(visit.manager, trail) if may_read else [],
        "causes": await visit.service.causes(),
        "status": await _status(visit) if may_read else None,
        "trail": trail,
        "urgent": Attention.URGENT,
        "address": address,
        "may_measure": visit.may(Scope.METRICS_READ, is_of_store=True),
        "operations": None,
        "latency": None,
        "due": None,
        "is_cut": False,
    }
    if values["may_measure"]:
        summaries = visit.service.devices.summaries
        values["operations"] = operations_chart(await summaries.by_hour())
        values["latency"] = latency_chart((await summaries.operations())[Operation.DECRYPT])
    if may_read:
        counts = await active_by_date(visit.manager, DUE_DAYS, limit=MOST_CHARTED)
        values["due"] = due_chart(counts)
        values["is_cut"] = MOST_CHARTED in (sum(counts[:-1]), counts[-1])
    return Shown("overview.html", values)


async def _status(visit: Visit) -> admin.StoreStatus:
    return await admin.store_status(visit.manager, lists_leaving=False, at_most=MOST_COUNTED + 1)


PAGES: Final = (Page(HOME, None, shown, is_of_store=False, title="Overview"),)
