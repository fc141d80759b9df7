"""What the sequencer looks at: entries that wait, no more at once than is sealed in a moment, and who seals.

Whoever writes the database may have put anything there: it is passed over, or taken for what it is, never waited for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from keystead.ports import AuditEntryRow, AuditSessionRow, AuditStateRow, Clock, KeyStore, Lease, UnitOfWork

LEASE: Final = "keystead.audit"
LEASE_MS: Final = 5000
LONGEST_LEASE_MS: Final = 60_000
"""For how long from now on somebody else may hold the lease; of one that says more nobody knows."""
BATCH: Final = 512
BATCH_BYTES: Final = 1 << 20
"""How many bytes of entries are sealed at once, unless a single one has more: nothing else runs meanwhile."""
SHUT_S: Final = 30.0
"""How long the entries of a session that could not be opened are passed over."""


async def all_waiting(work: UnitOfWork) -> AsyncIterator[AuditEntryRow]:
    """Yield every entry that waits, by id."""
    after: bytes | None = None
    while page := await work.audit_entries(after=after):
        for row in page:
            yield row
        after = page[-1].id


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look into the store shows: entries that wait, their sessions unless they are open, state, lease and time.

    ``has_more``: more wait than were taken.
    """

    entries: Sequence[AuditEntryRow]
    sessions: Sequence[AuditSessionRow]
    state: AuditStateRow | None
    lease: Lease | None
    now_ms: int
    has_more: bool

    def is_led(self, node: str) -> bool:
        """Whether another node than this one leads."""
        lease, now_ms = self.lease, self.now_ms
        if lease is None or lease.owner in ("", node):
            return False
        return now_ms < lease.until_ms <= now_ms + LONGEST_LEASE_MS


class Lookout:
    """Looks, and remembers which sessions could not be opened lately."""

    def __init__(self, store: KeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._shut: dict[str, float] = {}
        self._found_some = False

    def pass_over(self, sessions: Collection[str]) -> None:
        """Take no entries of sessions for a while."""
        self._shut |= dict.fromkeys(sessions, self._clock.monotonic() + SHUT_S)

    async def has_entries(self) -> bool:
        """Return whether any entry waits, or the last look found some, for then more are likely; errors as the store's.

        It takes one statement, where a look takes several.
        """
        if self._found_some:
            return True
        async with self._store.reading(once=True) as work:
            return await work.has_audit_entries()

    async def look(self, *, opened: Collection[str] = ()) -> Looked:
        """Return what there is; errors as the store's.

        Args:
            opened: sessions whose rows need not be looked at.
        """
        async with self._store.reading() as work:
            state, lease, now_ms = await work.audit_standing(LEASE)
            wanted = await self._open_ones(work)
            entries, has_more = await work.audit_batch(sessions=wanted, most=BATCH, most_bytes=BATCH_BYTES)
            shut = {row.session for row in entries}.difference(opened)
            sessions = await work.audit_sessions(shut) if shut else []
            unnamed = await work.count_unnamed_entries()
        if unnamed:
            # The next look finds them.
            async with self._store.transaction() as work:
                await work.name_audit_entries()
        self._found_some = bool(entries)
        return Looked(entries, sessions, state, lease, now_ms, has_more or bool(unnamed))

    async def _open_ones(self, work: UnitOfWork) -> list[str] | None:
        """Return sessions to take entries of, without those that did not open lately; None for all."""
        now = self._clock.monotonic()
        self._shut = {session: again for session, again in self._shut.items() if again > now}
        if not self._shut:
            return None
        return [each for each in await work.waiting_sessions() if each not in self._shut][:BATCH]
