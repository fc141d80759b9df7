"""The first page: what needs attention, then how the store stands."""

from __future__ import annotations

from typing import Final

from keystead.access.callers import Scope
from keystead.manager import admin
from keystead.manager.attention import Attention, attention
from keystead.manager.audit_status import seen_status
from keystead.server.console.pages import Page, Shown
from keystead.server.console.visits import HOME, Visit


async def shown(visit: Visit) -> Shown:
    """Show what the visitor may know of it."""
    may_read = visit.may(Scope.KEYRINGS_READ, is_of_store=True)
    values = {
        "may_read": may_read,
        "may_audit": visit.may(Scope.AUDIT_READ, is_of_store=True),
        "found": await attention(visit.manager) if may_read else [],
        "causes": await visit.service.causes(),
        "status": await admin.store_status(visit.manager) if may_read else None,
        "trail": await seen_status(visit.manager) if visit.may(Scope.AUDIT_READ, is_of_store=True) else None,
        "urgent": Attention.URGENT,
    }
    return Shown("overview.html", values)


PAGES: Final = (Page(HOME, None, shown, is_of_store=False, title="Overview"),)
