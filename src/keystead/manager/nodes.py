"""The processes that work on a store."""

from __future__ import annotations

from dataclasses import dataclass

from keystead.manager.manager import KeyManager


@dataclass(frozen=True, slots=True)
class NodeStanding:
    """A process that has been heard of lately.

    Attributes:
        behind: how many changes of keys it has not loaded yet.
        is_this: whether it is this process.
    """

    name: str
    behind: int
    is_this: bool


async def nodes(km: KeyManager) -> list[NodeStanding]:
    """Return the processes by name."""
    s = (await km.session()).surroundings
    async with s.store.reading() as work:
        state, live = await work.state(), await work.live_nodes()
    found = [
        NodeStanding(each.node_id, max(0, state.epoch - each.seen_epoch), each.node_id == s.node.value) for each in live
    ]
    return sorted(found, key=lambda each: each.name)
