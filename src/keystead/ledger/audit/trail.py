"""The trail as one process writes it: entries in the transactions that they tell of. Spec: docs/spec/audit-v1.md, 1, 2.

Until the store's WRAP key is unwrapped nothing can be authenticated, and nothing is written: what a store begins with
is told when its trail begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from keystead import telemetry
from keystead.crypto.keyring import Keyring
from keystead.errors import ConfigurationError, ConflictError, KMSError, NotInitializedError, SystemShutdownError
from keystead.ledger.audit.actor import Told, current_actor
from keystead.ledger.audit.batches import Batches
from keystead.ledger.audit.entries import EntryIds, entry_bytes
from keystead.ledger.audit.key_rows import shared_out, told_of
from keystead.ledger.audit.opening import Opening
from keystead.ledger.audit.sessions import SESSION, NodeSession, begin_session
from keystead.ports import (
    AuditEntryRow,
    AuditEvent,
    Clock,
    KeyChanges,
    KeyStore,
    Random,
    UnitOfWork,
)

log = logging.getLogger("keystead.audit")

RETRY_S: Final = 60.0
"""How long after a session that could not be begun the next one is tried, while the one before still serves."""


@dataclass(frozen=True, slots=True)
class Written:
    """Entries that were written in a transaction which has not ended yet."""

    session: NodeSession
    numbers: list[int]
    ok: int
    last_id: bytes


class Trail:
    """Writes entries. Made closed; ``begin`` opens it.

    Args:
        node: names this process; another one after a fork.
        is_strict: what cannot be recorded fails; otherwise it is logged, and counted.
        notes_uses: whether keys that are unwrapped are recorded.
    """

    def __init__(
        self, store: KeyStore, clock: Clock, random: Random, *, is_strict: bool = True, notes_uses: bool = True
    ) -> None:
        self.store = store
        self.node = ""
        self.store_id = ""
        self.is_on = False
        self.is_refusing = self.is_wanted_elsewhere = False
        self.is_begun = self.is_over = False
        self.is_kept_elsewhere = False
        self.joins: Callable[[], Awaitable[None]] | None = None
        self.opening = Opening()
        self.written: dict[str, bytes] = {}
        self._clock = clock
        self._random = random
        self._is_strict = is_strict
        self._notes_uses = notes_uses
        self._ids = EntryIds(random)
        self._ring: Keyring | None = None
        self._session: NodeSession | None = None
        self._retry_at = 0.0
        self._told: WeakKeyDictionary[UnitOfWork, list[Told]] = WeakKeyDictionary()
        self._batches = Batches(self._write_batch)
        self._held: dict[asyncio.Task[Any] | None, list[Told]] = {}
        self._wiped = 0
        self._beginning = asyncio.Lock()

    @property
    def wrap_ring(self) -> Keyring:
        """The WRAP keyring that sessions are wrapped by.

        Raises:
            NotInitializedError: the trail is not open.
        """
        if self._ring is None:
            raise NotInitializedError("the audit trail is not open yet")
        return self._ring

    @property
    def needs_entries(self) -> bool:
        """Whether it is open, and a change without its entry is none."""
        return self.is_on and self._is_strict and self._session is not None

    def begin(self, ring: Keyring, store_id: str, node: str) -> None:
        """Begin to write entries, under keys that the WRAP keyring wraps."""
        self._ring, self.store_id, self.node = ring, store_id, node
        self.is_on, self.is_refusing, self.is_wanted_elsewhere = True, False, False
        self.opening.end()

    async def record(self, work: UnitOfWork, event: AuditEvent) -> None:
        """Take an event, which is written before the transaction ends, with the keys that it has changed by then."""
        self._told.setdefault(work, []).append(Told(event, current_actor()))

    async def note(self, *events: AuditEvent) -> None:
        """Write events in a transaction of their own; those of several callers at a time in one.

        Raises:
            ConflictError: as ``write``.
            KMSError: they cannot be written.
        """
        if not self._notes_uses:
            return
        told = [Told(event, current_actor()) for event in events]
        held = self._held.get(asyncio.current_task())
        if held is None:
            await self._write_used(told)
        else:
            held += told

    async def tell(self, *events: AuditEvent) -> None:
        """Write events as ``note`` does, of whatever kind they are; errors as there."""
        await self._write_together([Told(event, current_actor()) for event in events])

    @asynccontextmanager
    async def gathering(self) -> AsyncIterator[None]:
        """Write what this task notes in the block in one transaction, at its end, if the trail is open by then.

        Raises:
            KMSError: it cannot be written.
        """
        task = asyncio.current_task()
        if task in self._held:
            yield
            return
        held: list[Told] = []
        self._held[task] = held
        try:
            yield
        except BaseException:
            self._held.pop(task, None)
            # What was unwrapped was, although nobody gets it.
            with contextlib.suppress(KMSError):
                await self._write_used(held)
            raise
        self._held.pop(task, None)
        await self._write_used(held)

    async def _write_used(self, told: list[Told]) -> None:
        if not told:
            return
        if self.is_on:
            await self._write_together(told)
        elif self.is_refusing:
            # The transaction that a key was read in has just told; a use without one has to ask.
            if any(each.event.action != "key.load" for each in told):
                async with self.store.reading() as work:
                    self.is_begun = (await work.state()).audited
            self._refuse_if(is_audited=self.is_begun)

    async def ensure(self) -> None:
        """See that there is a session to write in: the first, or one after a day, a fork, or another WRAP key.

        Raises:
            KMSError: there is none, and what is to be recorded must not happen.
        """
        await self.opening.wait()
        if not self.is_on:
            if self.is_wanted_elsewhere and self.joins is not None:
                await self.joins()
            return
        if not self._needs_session():
            return
        async with self._beginning:
            # Once more where the one that was begun has to be forgotten at once.
            while self._needs_session():
                session = self._session
                try:
                    await self._begin_session(session)
                except KMSError as exc:
                    if self._is_strict and (session is None or not session.serves(self._clock)):
                        raise
                    self._retry_at = self._clock.monotonic() + RETRY_S
                    log.warning("no audit session could be begun: %s", exc.code)
                    return

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Begin a writing transaction, at the end of which its entries are written. Errors as ``write``."""
        await self.ensure()
        written: Written | None = None
        try:
            async with self.store.transaction() as work:
                yield work
                written = await self.write(work)
        except BaseException:
            self.settle(written, is_committed=False)
            raise
        self.settle(written, is_committed=True)

    async def write(self, work: UnitOfWork) -> Written | None:
        """Write the events of a transaction that is about to end, and the keys that it has changed.

        Raises:
            ConflictError: the store's trail was begun by another process, and this one has not joined it.
            ConfigurationError: it was begun, and this process keeps a trail of its own.
            KMSError: they cannot be written.
        """
        told, changes = self._told.pop(work, []), work.changes
        if not told and not changes.keys:
            return None
        if not self.is_on:
            is_opener = self.opening.is_under_way and not self.opening.is_anothers
            if self.is_refusing and not is_opener:
                known = changes.is_audited
                self._refuse_if(is_audited=(await work.state()).audited if known is None else known)
            return None
        if self._session is None and self.opening.is_anothers:
            raise ConflictError("this process joins the store's audit trail at this moment: try again")
        return await self._write(work, told or [Told(AuditEvent("key.change"), current_actor())], changes)

    def settle(self, written: Written | None, *, is_committed: bool) -> None:
        """Note how a transaction ended."""
        if written is None:
            return
        written.session.settle(written.numbers, written.ok, is_committed=is_committed)
        if is_committed:
            self.written[written.session.id] = written.last_id
            telemetry.audit_entry("written", len(written.numbers))

    async def draw_elsewhere(self, event: AuditEvent) -> AuditEntryRow:
        """Return an entry for a transaction of somebody else's, of which nobody tells us how it ends."""
        await self.ensure()
        [row], written = self.draw_rows([Told(event, current_actor())])
        self.settle(written, is_committed=False)
        return row

    async def end(self) -> None:
        """Say that this process's session ends, and forget its key. Never fails: what cannot be said is not said."""
        async with self._beginning:
            if self._session is not None and self.is_on:
                with contextlib.suppress(KMSError):
                    await self._write_end(self._session)
            self.wipe()

    def draw_rows(self, told: Iterable[Told], changes: KeyChanges | None = None) -> tuple[list[AuditEntryRow], Written]:
        """Return entries, and what is to be settled when it is known how their transaction ended.

        Raises:
            NotInitializedError: there is no session, or by this machine's clock none that an entry of now would be
                taken in.
            InvalidInputError: details that no entry can hold.
        """
        session = self._session
        if session is None or not session.serves(self._clock):
            raise NotInitializedError("the audit trail has no session; what is to be recorded has not happened")
        return self._draw_in(session, told, changes)

    def _draw_in(
        self, session: NodeSession, told: Iterable[Told], changes: KeyChanges | None = None
    ) -> tuple[list[AuditEntryRow], Written]:
        given, now = list(told), self._clock.now()
        numbers = [session.draw() for _ in given]
        ok, undone = session.settled()
        rows: list[AuditEntryRow] = []
        keys = shared_out([each.event for each in given], changes.keys.values() if changes is not None else ())
        try:
            for number, each, rows_of in zip(numbers, given, keys, strict=True):
                entry_id = self._ids.draw(now)
                entry = entry_bytes(
                    each.event,
                    entry_id=entry_id,
                    session=session.id,
                    number=number,
                    ok=ok,
                    undone=undone,
                    node=self.node,
                    at=now,
                    actor=each.actor,
                    epoch=None if changes is None else changes.epoch,
                    keys=[told_of(row) for row in rows_of],
                )
                rows.append(AuditEntryRow(entry_id, session.id, entry, session.make_code(entry)))
        except BaseException:
            session.settle(numbers, ok, is_committed=False)
            raise
        return rows, Written(session, numbers, ok, rows[-1].id)

    def wipe(self) -> None:
        """Forget the session: after a fork, at the end, or when the machine's memory was put back."""
        self._session = None
        self._wiped += 1

    def in_child(self) -> None:
        """Begin again in a child of a fork."""
        self.wipe()
        self.written.clear()
        self._held.clear()
        self._told.clear()
        self._batches.forget()
        self._beginning, self.opening = asyncio.Lock(), Opening()

    async def _write(self, work: UnitOfWork, told: Sequence[Told], changes: KeyChanges) -> Written | None:
        written: Written | None = None
        # Undone alone where the change is to be made all the same; else nothing is undone alone.
        part: AbstractAsyncContextManager[None] = contextlib.nullcontext() if self._is_strict else work.savepoint()
        try:
            async with part:
                rows, written = self.draw_rows(told, changes)
                await work.add_audit_entries(rows)
        except BaseException as exc:
            self.settle(written, is_committed=False)
            telemetry.audit_entry("failed")
            if self._is_strict or not isinstance(exc, KMSError):
                raise
            log.error("a change is NOT in the audit trail: %s (%s)", told[0].event.action, exc.code)  # noqa: TRY400
            return None
        return written

    async def _write_together(self, told: list[Told]) -> None:
        """Write events with those that others want written at the same time."""
        failure = await self._batches.write(told)
        if failure is None:
            return
        if self._is_strict or not isinstance(failure, KMSError):
            raise failure
        log.error("an event is NOT in the audit trail: %s (%s)", told[0].event.action, failure.code)

    async def _write_batch(self, told: list[Told]) -> None:
        async with self.transaction() as work:
            self._told[work] = told

    async def _begin_session(self, before: NodeSession | None) -> None:
        wiped = self._wiped
        session, details = begin_session(self.wrap_ring, self.store_id, self.node, self._clock, self._random)
        if before is not None:
            ok, undone = before.settled()
            details["after"] = {"session": before.id, "begun": before.row.begun_ms, "ok": ok, "undone": undone}
        rows, written = self._draw_in(session, [Told(AuditEvent(SESSION, details=details), None)])
        async with self.store.transaction() as work:
            await work.add_audit_session(session.row)
            await work.add_audit_entries(rows)
        self.settle(written, is_committed=True)
        if self._wiped != wiped:
            return  # its key may be in the memory of another machine as well
        # Nobody writes in it before its row is there.
        self._session = session
        if before is not None:
            # Nobody draws in it any more. Where its end cannot be written, it has none.
            with contextlib.suppress(KMSError):
                await self._write_end(before)

    async def _write_end(self, session: NodeSession) -> None:
        """Write a session's last entry, if it would be taken: whoever draws from there on draws in another one."""
        if not session.serves(self._clock):
            return
        written: Written | None = None
        try:
            async with self.store.transaction() as work:
                rows, written = self._draw_in(session, [Told(AuditEvent("audit.session_end"), current_actor())])
                if self._session is session:
                    self._session = None
                await work.add_audit_entries(rows)
        except BaseException:
            self.settle(written, is_committed=False)
            raise
        self.settle(written, is_committed=True)

    def _needs_session(self) -> bool:
        if (session := self._session) is None:
            return True
        active = None if self._ring is None else self._ring.snapshot.active
        is_over = (active is not None and active != session.wrapped_by) or session.is_over(self._clock)
        # One that is not over serves.
        return is_over and (not session.serves(self._clock) or self._clock.monotonic() >= self._retry_at)

    def _refuse_if(self, *, is_audited: bool) -> None:
        if self.is_over:
            raise SystemShutdownError("the key manager is closed, and records nothing in the audit trail; open another")
        if (is_audited or self.is_kept_elsewhere) and self.joins is None:
            raise ConfigurationError(
                "this store's audit trail was begun meanwhile, and this manager has one of its own"
            )
        if is_audited:
            # Who opens the trail must not be sent to wait for itself.
            self.is_wanted_elsewhere = not self.opening.is_under_way
            raise ConflictError("this store's audit trail was begun meanwhile: join it, and try again")


__all__ = ["Told", "Trail", "Written"]
