"""One transaction of the store: every family of rows together."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, literal
from sqlalchemy.ext.asyncio import AsyncConnection

from keystead.ports import Clock
from keystead.stores.approval_rows import ApprovalRows
from keystead.stores.audit_searches import AuditSearches
from keystead.stores.device_rows import ClientKeyRows, DeviceRows
from keystead.stores.field_rows import FieldRows, ReencryptionRows
from keystead.stores.job_runs import JobRunRows
from keystead.stores.key_numbers import KeyNumberRows
from keystead.stores.key_uses import KeyUseRows
from keystead.stores.leases import LeaseRows
from keystead.stores.metric_rows import MetricRows
from keystead.stores.role_rows import RoleRows
from keystead.stores.secret_writes import SecretWrites
from keystead.stores.session_rows import SessionRows
from keystead.stores.subject_rows import SubjectRows
from keystead.stores.token_rows import TokenRows
from keystead.stores.transit_rows import TransitRows
from keystead.stores.wish_rows import WishRows


class SqlUnitOfWork(
    LeaseRows,
    JobRunRows,
    KeyNumberRows,
    KeyUseRows,
    FieldRows,
    ReencryptionRows,
    WishRows,
    DeviceRows,
    ClientKeyRows,
    SecretWrites,
    AuditSearches,
    TokenRows,
    RoleRows,
    SessionRows,
    ApprovalRows,
    SubjectRows,
    TransitRows,
    MetricRows,
):
    """``keystead.ports.UnitOfWork`` over SQL. ``clock`` replaces the database's, for a store in memory only."""

    def __init__(self, connection: AsyncConnection, *, is_writing: bool, clock: Clock | None = None) -> None:
        super().__init__(connection, is_writing=is_writing)
        self._clock = clock

    async def now_ms(self) -> int:
        """Return the clock, milliseconds since 1970."""
        given = self._given_ms()
        return await super().now_ms() if given is None else given

    def _given_ms(self) -> int | None:
        return None if self._clock is None else int(self._clock.now().timestamp() * 1000)

    def _now(self) -> ColumnElement[int]:
        given = self._given_ms()
        return super()._now() if given is None else literal(given, BigInteger)
