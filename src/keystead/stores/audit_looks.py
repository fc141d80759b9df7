"""What the sequencer of the audit trail asks each second: each question is one statement.

A statement takes a server less time than the message that carries it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    true,
)

from keystead.ports import MAX_ENTRY_BYTES, AuditBatch, AuditStanding, Lease
from keystead.stores.audit_rows import STATE_COLUMNS, AuditRows, entry_columns, entry_of, in_their_order, state_of
from keystead.stores.keys import clock_or_given
from keystead.stores.prepared import Prepared
from keystead.stores.records import as_record
from keystead.stores.tables import audit_entries, audit_state, leases

_LEASE_COLUMNS: Final = tuple(column.name for column in leases.columns)


def _standing(dialect: str) -> Select[Any]:
    one = select(literal(1).label("one")).subquery("one")
    both = one.outerjoin(audit_state, true()).outerjoin(leases, leases.c.name == bindparam("of_lease"))
    return select(
        clock_or_given(dialect).label("now"),
        audit_state.c.id.label("state_id"),
        *STATE_COLUMNS,
        *(leases.c[name].label(f"lease_{name}") for name in _LEASE_COLUMNS),
    ).select_from(both)


def _batch(dialect: str, sessions: Collection[str] | None = None) -> Select[Any]:
    size: ColumnElement[Any] = func.length(audit_entries.c.entry)
    if dialect == "sqlite":
        # Of text it counts characters, up to a NUL.
        size = case((func.typeof(audit_entries.c.entry) == "blob", size), else_=MAX_ENTRY_BYTES)
    some = in_their_order(select(audit_entries.c.id, size.label("size")), sessions)
    page = some.limit(bindparam("most", type_=Integer)).subquery("page")
    sums = select(
        page.c.id,
        func.sum(page.c.size).over(order_by=page.c.id).label("total"),
        func.row_number().over(order_by=page.c.id).label("place"),
        func.count().over().label("waiting"),
    ).subquery("sums")
    fits = or_(sums.c.place == 1, sums.c.total <= bindparam("most_bytes", type_=BigInteger))
    query: Select[Any] = select(*entry_columns(dialect), sums.c.waiting)
    return query.join(sums, sums.c.id == audit_entries.c.id).where(fits).order_by(audit_entries.c.id)


_STANDING: Final = Prepared(_standing)
_BATCH: Final = Prepared(_batch)


class AuditLooks(AuditRows):
    """Looks at what is to be sealed; ``keystead.ports.AuditRows``."""

    async def audit_standing(self, lease: str) -> AuditStanding:
        """Return the state of the log, a lease as it stands, and the database's clock."""
        [row] = await self._run(_STANDING, {"of_lease": lease, "now": self._given_ms()}, writes=False)
        state = None if row["state_id"] is None else state_of(row)
        held = {name: row[f"lease_{name}"] for name in _LEASE_COLUMNS}
        return AuditStanding(state, None if held["name"] is None else as_record(Lease, leases, held), int(row["now"]))

    async def audit_batch(self, *, sessions: Collection[str] | None, most: int, most_bytes: int) -> AuditBatch:
        """Return the first entries that wait, by id; of some sessions, or of all.

        Args:
            most, most_bytes: how many there are at most, and how many bytes they have, unless a single one has more.
        """
        values = {"most": most, "most_bytes": most_bytes}
        if sessions is None:
            rows = await self._run(_BATCH, values, writes=False)
        else:
            query = _batch(self._connection.dialect.name, sessions)
            rows = [{**row} for row in await self._all(query, values)]
        waiting = rows[0]["waiting"] if rows else 0
        return AuditBatch([entry_of(row) for row in rows], has_more=waiting == most or waiting > len(rows))
