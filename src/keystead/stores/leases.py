"""Leases with fencing tokens, and heartbeats of nodes, as rows."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Insert, and_, bindparam, case, delete, or_, select, update

from keystead.errors import ConflictError, InvalidInputError
from keystead.ports import Lease, NodeRecord
from keystead.stores.keys import KeyReadRows, clock_or_given
from keystead.stores.prepared import Prepared
from keystead.stores.records import as_record
from keystead.stores.tables import leases, nodes
from keystead.stores.transaction import insert_into

MAX_TOKEN: Final = 2**53
"""No lease changes its owner so often: a token above it was written by somebody else, and counts for none."""
_NOBODY = ""


def _claim(dialect: str) -> Insert:
    first, floor, now = (
        bindparam("first", type_=BigInteger),
        bindparam("floor", type_=BigInteger),
        clock_or_given(dialect),
    )
    insert = insert_into(leases, dialect).values(
        name=bindparam("of_name"), owner=bindparam("by"), token=first, until_ms=now + bindparam("ttl", type_=BigInteger)
    )
    is_free = (
        leases.c.owner == bindparam("by"),
        leases.c.until_ms <= now,
        # Of no value nothing is greater.
        leases.c.until_ms > now + bindparam("longest", type_=BigInteger),
    )
    claim = insert.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "owner": insert.excluded.owner,
            "until_ms": insert.excluded.until_ms,
            "token": case(
                (leases.c.token > MAX_TOKEN, first),
                (and_(leases.c.owner == insert.excluded.owner, leases.c.token >= floor), leases.c.token),
                (leases.c.token < floor, first),
                else_=leases.c.token + 1,
            ),
        },
        where=or_(*is_free),
    )
    return claim.returning(leases)


_CLAIM: Final = Prepared(_claim)
_FIND: Final = Prepared(select(leases).where(leases.c.name == bindparam("of_name")))


class LeaseRows(KeyReadRows):
    """Claims and drops leases; ``keystead.ports.LeaseRows``. A lease's row stays, so that its token only grows."""

    async def find_lease(self, name: str) -> Lease | None:
        """Return a lease as it stands, expired or not; its owner is empty where it was given back."""
        rows = await self._run(_FIND, {"of_name": name}, writes=False)
        return as_record(Lease, leases, rows[0]) if rows else None

    async def claim_lease(
        self, name: str, owner: str, ttl_ms: int, *, floor: int = 0, longest_ms: int | None = None
    ) -> Lease | None:
        """Take the lease if it is free, expired or already ours; the token grows with every change of owner.

        It is no lower than ``floor``, a token that was given before, and above it with a change of owner. A lease that
        is held for longer than ``longest_ms`` from now on is held by nobody.
        """
        if not owner or ttl_ms <= 0:
            raise InvalidInputError("a lease needs an owner and a positive ttl_ms")
        floor = floor if 0 <= floor <= MAX_TOKEN else 0
        values: dict[str, Any] = {"of_name": name, "by": owner, "now": self._given_ms(), "ttl": ttl_ms}
        values |= {"floor": floor, "first": floor + 1, "longest": longest_ms}
        rows = await self._run(_CLAIM, values)
        return as_record(Lease, leases, rows[0]) if rows else None

    async def check_lease(self, lease: Lease) -> None:
        """Raise ``ConflictError`` when the lease's token is no longer the newest.

        In a writing transaction nobody else can claim the lease before the transaction ends.
        """
        query = select(leases.c.token).where(leases.c.name == lease.name, leases.c.owner == lease.owner)
        row = await self._first(query.with_for_update() if self._is_writing else query)
        if row is None or row["token"] != lease.token:
            raise ConflictError(f"the lease {lease.name!r} was lost to another owner; leave the work to it")

    async def drop_lease(self, lease: Lease) -> None:
        """Give the lease back if it is still ours."""
        ours = and_(leases.c.name == lease.name, leases.c.owner == lease.owner, leases.c.token == lease.token)
        await self._write(update(leases).where(ours).values(owner=_NOBODY, until_ms=0))

    async def beat(self, node_id: str, seen_epoch: int, ttl_ms: int) -> None:
        """Write a node's heartbeat and the epoch it has loaded.

        Waits for a transaction that is changing keys: it may have looked at the nodes without seeing this one, and
        what it changes is read by whoever reads after this heartbeat.
        """
        await self.hold_keys()
        until = await self.now_ms() + ttl_ms
        insert = self._insert(nodes).values(node_id=node_id, seen_epoch=seen_epoch, until_ms=until)
        beat = insert.on_conflict_do_update(
            index_elements=["node_id"],
            set_={"seen_epoch": insert.excluded.seen_epoch, "until_ms": insert.excluded.until_ms},
        )
        await self._write(beat)

    async def drop_node(self, node_id: str) -> None:
        """Remove a node's heartbeat."""
        await self._write(delete(nodes).where(nodes.c.node_id == node_id))

    async def live_nodes(self) -> list[NodeRecord]:
        """Return the nodes whose heartbeat has not expired."""
        query = select(nodes).where(nodes.c.until_ms > await self.now_ms()).order_by(nodes.c.node_id)
        return [as_record(NodeRecord, nodes, row) for row in await self._all(query)]

    async def drop_expired(self) -> int:
        """Remove expired leases' owners and expired nodes; return how many."""
        now = await self.now_ms()
        expired = and_(leases.c.owner != _NOBODY, leases.c.until_ms <= now)
        freed = await self._count(update(leases).where(expired).values(owner=_NOBODY))
        return freed + await self._count(delete(nodes).where(nodes.c.until_ms <= now))
