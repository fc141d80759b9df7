"""Managers over a store in memory whose clock stands still, and the entries that wait there."""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.world import World


async def waiting(world: World) -> list[dict[str, Any]]:
    """Return what the entries say that wait to be sealed, in the order in which they were written."""
    async with world.store.reading() as work:
        return [json.loads(row.entry) for row in await work.audit_entries(limit=10_000)]


async def actions(world: World) -> list[str]:
    """Return the actions of the entries that wait."""
    return [entry["action"] for entry in await waiting(world)]


async def entry_of(world: World, action: str) -> dict[str, Any]:
    """Return the last entry of an action."""
    return [entry for entry in await waiting(world) if entry["action"] == action][-1]
