"""The log of the audit trail as it is searched: no page of what is found reads more of it than another."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select

from keystead.ports import AuditFilter, AuditLogRow
from keystead.stores.audit_rows import equalities, line_of, log_row, times
from keystead.stores.tables import audit_log
from keystead.stores.transaction import Statements

_seq = audit_log.c.seq
_at = audit_log.c.at


class AuditSearches(Statements):
    """Searches the log; ``keystead.ports.AuditRows``."""

    async def audit_lines(self, *, after: int, before: int, limit: int) -> list[bytes]:
        """Return the lines alone of records between two numbers, both excluded."""
        query = select(audit_log.c.line).where(_seq > after, _seq < before).order_by(_seq).limit(limit)
        return [line_of(line) for (line,) in await self._tuples(query)]

    async def find_audit_records(
        self, where: AuditFilter, *, before: int | None, among: int, limit: int
    ) -> tuple[list[AuditLogRow], int | None]:
        """Return the newest records before one, and the number before which there are others.

        They are in the order of their numbers, or of their times where nothing but a time is asked for. Where more than
        one thing is asked for, no more than ``among`` records that fit one of them are looked at: there may be fewer
        than ``limit``, although there are others before. None says that there is no other.
        """
        equal, within = equalities(where), times(where)
        is_by_several = bool(equal) and len(equal) + len(within) > 1
        if is_by_several:
            # No index has all of it.
            some = _newest(select(audit_log), equal[0], before=before).limit(among).subquery()
            rest = [*equalities(where, some.c)[1:], *times(where, some.c)]
            query = select(some).where(*rest).order_by(some.c.seq.desc())
        elif within:
            query = select(audit_log).where(*within, *_earlier(before)).order_by(_at.desc(), _seq.desc())
        else:
            query = _newest(select(audit_log), *equal, before=before)
        rows = [log_row(row) for row in await self._tuples(query.limit(limit))]
        if len(rows) == limit:
            return rows, rows[-1].seq
        if not is_by_several:
            return rows, None
        looked = _newest(select(_seq), equal[0], before=before).limit(among).subquery()
        [(number, last)] = await self._tuples(select(func.count(), func.min(looked.c.seq)))
        return rows, last if number == among else None


def _newest(query: Select[Any], *conditions: ColumnElement[bool], before: int | None) -> Select[Any]:
    query = query.where(*conditions).order_by(_seq.desc())
    return query if before is None else query.where(_seq < before)


def _earlier(before: int | None) -> list[ColumnElement[bool]]:
    """Return what is true of entries that come before a record by their time, and of one time by their number."""
    if before is None:
        return []
    of_entry = select(_at).where(_seq <= before, _at.is_not(None)).order_by(_seq.desc()).limit(1).scalar_subquery()
    # The first of both is what an index is entered by.
    return [_at <= of_entry, or_(_at < of_entry, _seq < before)]
