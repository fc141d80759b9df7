"""The sequencer: of all processes one takes the entries that wait and seals them into the log.

It leads by a lease, and by the state that only one of two can move on: who wakes up after its lease was taken finds
another state, and keeps nothing. What it has sealed counts once it is committed; a batch that is not is sealed anew
from where the log stands. Spec: docs/spec/audit-v1.md, 3; decisions: docs/adr/0030-audit-trail.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from keystead import telemetry
from keystead.errors import ConflictError, KMSError
from keystead.ledger.audit.chain import FOUND, Chain
from keystead.ledger.audit.checkpoints import Checkpoints, Made
from keystead.ledger.audit.entries import Entry
from keystead.ledger.audit.examining import Examined, KnownSession, Listing, SessionKeys, examine, tell
from keystead.ledger.audit.exporting import Exporter
from keystead.ledger.audit.keys import StateKeys, StreamSessions, told_keys
from keystead.ledger.audit.looking import LEASE, LEASE_MS, LONGEST_LEASE_MS, Looked, Lookout
from keystead.ledger.audit.retiring import RETIRE, SETTLED_MS, horizon_from, retired
from keystead.ledger.audit.sessions import wall_ms
from keystead.ledger.audit.standing import standing
from keystead.ledger.audit.trail import Trail
from keystead.ledger.format.records import MalformedRecordError, parse_line
from keystead.ports import (
    AuditEntryRow,
    AuditEvent,
    AuditLogRow,
    AuditStateRow,
    Clock,
    Detail,
    KeyStore,
    Lease,
    UnitOfWork,
)

log = logging.getLogger("keystead.audit")

PATIENCE_S: Final = 2.0
"""How long entries wait for a sequencer that has let its lease run out, before another process takes its place."""
LOOKS: Final = 8
"""How often one step looks for entries of sessions that can be opened."""
LONGEST_REST_S: Final = 60.0
_PRUNE_S: Final = 3600.0


@dataclass(slots=True)
class _Lead:
    """The chain that this process seals, and the state in the store that it goes on from."""

    chain: Chain
    row: AuditStateRow | None
    candidate: Chain | None = None
    conflicts: int = 0


class Sequencer:
    """Takes the lead where nobody has it, and seals. One object a process; ``step`` does what is to be done now.

    Args:
        store: the store itself, not the one that records its own changes.
        exports: is given each checkpoint that has been committed, and says whether the log continues the one it kept.
    """

    def __init__(
        self,
        store: KeyStore,
        trail: Trail,
        *,
        sessions: SessionKeys,
        stream_sessions: StreamSessions,
        state_keys: StateKeys,
        checkpoints: Checkpoints,
        clock: Clock,
        exports: Exporter,
    ) -> None:
        self._store = store
        self._trail = trail
        self._sessions = sessions
        self._stream_sessions = stream_sessions
        self._state_keys = state_keys
        self._checkpoints = checkpoints
        self._clock = clock
        self._exports = exports
        self._lead: _Lead | None = None
        self._waits_since: float | None = None
        self._prune_at = 0.0
        self._stepping = asyncio.Lock()
        self._lookout = Lookout(store, clock)
        self._conflicts = 0
        self._rests_until = 0.0
        self.has_more = False
        self._forgotten = 0

    @property
    def leads(self) -> bool:
        """Whether this process sealed last, as far as it knows."""
        return self._lead is not None

    async def step(self, *, is_urgent: bool = False) -> int:
        """Seal what waits, at most a batch of it, and make a checkpoint if it is time; return how many entries it took.

        Args:
            is_urgent: take the lead at once if nobody holds it, however short a time entries have waited.

        Raises:
            KMSError: the KMS gives no session, or the store fails; everything stays as it was.
        """
        async with self._stepping:
            if self._clock.monotonic() < self._rests_until:
                return 0
            for _ in range(2):
                try:
                    taken = await self._step(is_urgent=is_urgent)
                except ConflictError as exc:
                    found = exc
                    if self._lead is None:
                        break
                else:
                    self._conflicts = 0
                    return taken
            self._rest(found)
            return 0

    async def close(self) -> None:
        """Say that the log is closed, sign that, and give the lead back, if this process leads.

        Raises:
            KMSError: as ``step``.
        """
        async with self._stepping:
            try:
                looked = await self._lookout.look()
                if (lead := self._ours(looked.state)) is not None:
                    with contextlib.suppress(ConflictError):
                        await self._close_log(lead, looked)
            finally:
                self._drop()

    def forget(self) -> None:
        """Forget the session of the log, as in a child of a fork."""
        self._stepping = asyncio.Lock()
        self._forgotten += 1
        self._drop()

    def _rest(self, found: ConflictError) -> None:
        """Leave the log to whoever moved it on; if that goes on, for longer each time, and aloud."""
        self._conflicts += 1
        if self._conflicts == 1:
            log.info("the audit trail was moved on by another process")
            return
        pause_s = min(2.0 ** (self._conflicts - 2), LONGEST_REST_S)
        self._rests_until = self._clock.monotonic() + pause_s
        log.error(
            "the audit trail could not be sealed %d times in a row, and rests for %g s: %s",
            self._conflicts,
            pause_s,
            found,
        )

    async def _step(self, *, is_urgent: bool) -> int:
        lead, prunes = self._lead, self._prune_at <= self._clock.monotonic()
        is_idle = lead is None or not (prunes or self._checkpoints.has_work(lead.chain))
        if is_idle and not await self._lookout.has_entries():
            self._waits_since, self.has_more = None, False
            return 0
        for _ in range(LOOKS):
            looked = await self._lookout.look(opened=self._sessions.opened)
            lead = self._ours(looked.state)
            if lead is None and not self._may_lead(looked, is_urgent=is_urgent):
                return 0
            self.has_more = looked.has_more
            if not looked.entries and not (lead is not None and self._checkpoints.has_work(lead.chain)):
                await self._prune(looked.now_ms)
                return 0
            wanted = {row.session for row in looked.entries}
            known = await self._sessions.known(wanted, looked.sessions)
            self._lookout.pass_over(wanted - known.keys())
            if wanted <= known.keys():
                break
        entries = [row for row in looked.entries if row.session in known]
        if lead is None:
            if not entries:
                return 0
            lead = await self._take_over()
        await self._seal(lead, looked, entries, known)
        return len(entries)

    def _ours(self, row: AuditStateRow | None) -> _Lead | None:
        """Return what this process leads by, if the store stands where it left it."""
        lead = self._lead
        if lead is None:
            return None
        candidate, lead.candidate = lead.candidate, None
        if row is None or lead.row is None:
            is_here = row is lead.row
        else:
            is_here = (row.size, row.state) == (lead.row.size, lead.row.state)
        if is_here:
            return lead
        if candidate is not None and row is not None and candidate.state.content() == row.state:
            # The commit whose answer was lost was one.
            lead.chain.wipe()
            lead.chain, lead.row = candidate, row
            return lead
        log.warning("the audit trail no longer stands where this process left it; it begins a session anew")
        self._drop()
        return None

    def _may_lead(self, looked: Looked, *, is_urgent: bool) -> bool:
        """Whether to take the lead: nobody holds it, and what waits has waited for whoever had it last."""
        lease, node = looked.lease, self._trail.node
        if looked.is_led(node) or not looked.entries:
            self._waits_since = None
            return False
        now = self._clock.monotonic()
        self._waits_since = now if self._waits_since is None else self._waits_since
        is_free = lease is None or lease.owner == node
        return is_urgent or is_free or now - self._waits_since >= PATIENCE_S

    async def _take_over(self) -> _Lead:
        """Take the lead, and begin a session of the log where it stands; nothing of it is written yet."""
        trail, forgotten = self._trail, self._forgotten
        async with self._store.transaction() as work:
            row = await work.audit_state()
            if await _claim(work, trail.node, row) is None:
                raise ConflictError("another process took the lead of the audit trail first")
            state, fault = await standing(work, row, self._state_keys, trail.store_id)
            if fault is not None:
                state = replace(state, horizon=max(state.horizon, await self._told_horizon(work)))
        faults = [] if fault is None else [(fault, state.size)]
        if (lost := await self._exports.examine(state.checkpoint())) is not None:
            faults.append((lost.found, lost.size))
        session, key, reference = await self._stream_sessions.draw(state.stream)
        keys = await self._checkpoints.keys(state.stream)
        async with trail.transaction() as work:
            details = told_keys(reference, session, state.stream, keys)
            await trail.record(work, AuditEvent("audit.sequencer", details=details))
            for found, size in faults:
                told: dict[str, Detail] = {"found": found, "size": size}
                await trail.record(work, AuditEvent(FOUND, details=told))
        if self._forgotten != forgotten:
            raise ConflictError("the machine's memory was put back while this process took the lead; it begins anew")
        lead = self._lead = _Lead(Chain(state, session, key, self._clock), row)
        self._checkpoints.begin(0 if row is None else min(row.checkpoint_size, state.size))
        log.info("this process seals the audit trail", extra={"stream": state.stream, "size": state.size})
        return lead

    async def _told_horizon(self, work: UnitOfWork) -> int:
        """Return the horizon that the records tell of, where no state vouches for one."""
        rows = await work.audit_records(limit=1)
        if not rows or rows[0].seq == 0:
            return 0
        try:
            told = horizon_from(parse_line(rows[0].line).time_ms)
        except MalformedRecordError:
            return 0
        return min(told, int(wall_ms(self._clock)) - SETTLED_MS)

    async def _seal(
        self,
        lead: _Lead,
        looked: Looked,
        entries: Sequence[AuditEntryRow],
        known: Mapping[str, KnownSession],
    ) -> None:
        listing = Listing()
        if lead.conflicts:
            async with self._store.reading() as work:
                listed = await work.listed_entries([row.id for row in entries])
            listing = Listing(entries, listed, size=lead.chain.size)
        examined = examine(entries, known, listing, horizon=lead.chain.horizon)
        chain = lead.chain.copy()
        made: Made | None = None
        if chain.needs_new_file and entries:
            made = await self._next_file(chain)
        if entries:
            chain.seal([each.payload for each in examined])
        asked = [each.entry for each in examined if each.entry is not None]
        actions = {entry.members["action"] for entry in asked}
        for entry in asked:
            chain.turn(entry.members)
            if entry.members["action"] == RETIRE:
                _retain(chain, entry)
        is_asked = bool(actions & {"audit.checkpoint", RETIRE})
        made = self._checkpoints.put(chain, is_asked=is_asked) or made
        await self._commit(lead, looked, chain, examined, made)

    async def _next_file(self, chain: Chain) -> Made | None:
        chain.end_file(is_last=False)
        made = await self._checkpoints.put_behind_end(chain)
        try:
            session, key, _ = await self._stream_sessions.draw(chain.stream)
        except KMSError as exc:
            log.warning("the audit trail's file begins in the session of the one before: %s", exc.code)
            chain.next_file(None, None)
        else:
            chain.next_file(session, key)
        return made

    async def _close_log(self, lead: _Lead, looked: Looked) -> None:
        chain = lead.chain.copy()
        chain.end_file(is_last=True)
        made = await self._checkpoints.put_behind_end(chain)
        await self._commit(lead, looked, chain, (), made)
        async with self._store.transaction() as work:
            lease = await work.find_lease(LEASE)
            if lease is not None and lease.owner == self._trail.node:
                await work.drop_lease(lease)

    async def _commit(
        self, lead: _Lead, looked: Looked, chain: Chain, examined: Sequence[Examined], made: Made | None
    ) -> None:
        """Write what was sealed, delete what waited, and move the state on; all of it, or nothing."""
        rows = _rows_of(chain, examined)
        if not rows:
            return
        rejected = sum(each.reason is not None for each in examined)
        key_id, key = self._state_keys.active()
        state = chain.state
        row = AuditStateRow(state.size, state.content(), state.code(key, self._trail.store_id), key_id)
        before = lead.row
        row = replace(row, rejected=rejected + (0 if before is None else before.rejected))
        if before is not None:
            row = replace(row, checkpoint_size=before.checkpoint_size, checkpoint_ms=before.checkpoint_ms)
        if made is not None and made.note is not None:
            row = replace(row, checkpoint_size=made.checkpoint.size, checkpoint_ms=looked.now_ms)
        lead.candidate = chain
        try:
            async with self._store.transaction() as work:
                lease = await _claim(work, self._trail.node, before)
                if lease is None:
                    raise ConflictError("the lead of the audit trail was lost to another process")
                row = replace(row, token=lease.token)
                await work.put_audit_state(row, expected=None if before is None else before.size)
                await work.add_audit_records(rows)
                ids = [each.row.id for each in examined]
                if await work.drop_audit_entries(ids) != len(ids):
                    raise ConflictError("entries of the audit trail were taken by another process")
        except ConflictError:
            lead.candidate = None
            lead.conflicts += 1
            if lead.conflicts > 1 and self._lead is lead:
                self._drop()
            raise
        lead.chain.wipe()
        lead.chain, lead.row, lead.candidate, lead.conflicts = chain, row, None, 0
        self._checkpoints.kept(made, chain)
        tell(examined)
        telemetry.audit_entry("sealed", len(examined) - rejected)
        if rejected:
            telemetry.audit_entry("rejected", rejected)
        if made is not None and made.note is not None:
            self._exports(made.note)

    async def _prune(self, now_ms: int) -> None:
        """Forget sessions that are long over, now and then."""
        now = self._clock.monotonic()
        if self._lead is not None and now >= self._prune_at:
            self._prune_at = now + _PRUNE_S
            async with self._store.transaction() as work:
                await work.drop_audit_sessions(now_ms - SETTLED_MS)

    def _drop(self) -> None:
        lead, self._lead = self._lead, None
        self._checkpoints.forget()
        if lead is not None:
            lead.chain.wipe()


async def _claim(work: UnitOfWork, node: str, row: AuditStateRow | None) -> Lease | None:
    floor = 0 if row is None else row.token
    return await work.claim_lease(LEASE, node, LEASE_MS, floor=floor, longest_ms=LONGEST_LEASE_MS)


def _rows_of(chain: Chain, examined: Sequence[Examined]) -> list[AuditLogRow]:
    entries = iter(examined)
    rows: list[AuditLogRow] = []
    for sealed in chain.taken():
        if sealed.kind is None:
            rows.append(next(entries).columns(sealed.number, sealed.line))
        else:
            rows.append(AuditLogRow(sealed.number, sealed.line, sealed.kind))
    return rows


def _retain(chain: Chain, entry: Entry) -> None:
    """Say in the log itself which of its files were moved away, as an entry asks."""
    told = retired(entry.details)
    if told is None:
        log.error("an entry asks for a word of files that cannot be", extra={"row": entry.id.hex()})
        return
    chain.retain(told.files, told.reason, told.horizon)
