"""Is a trail as it was written, and is the store as the trail says? Spec: docs/spec/audit-v1.md, 6."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from keystead.crypto.keyring import Keyring
from keystead.errors import (
    CouldNotVerifyError,
    DecryptionError,
    InvalidCiphertextError,
    InvalidSignatureError,
    KMSError,
    StorageOperationError,
)
from keystead.ledger.audit.acknowledging import Outstanding
from keystead.ledger.audit.inspecting import TABLE, WAITING, Inspector
from keystead.ledger.audit.key_rows import KeyDifference
from keystead.ledger.audit.keys import StateKeys
from keystead.ledger.audit.looking import all_waiting
from keystead.ledger.audit.sessions import SESSION, open_session, wrapped_by
from keystead.ledger.audit.standing import size_beside, vouched_state
from keystead.ledger.audit.table_files import InspectedFile, table_files
from keystead.ledger.audit.told_sessions import session_told_in, told_in
from keystead.ledger.audit.trusting import lines_in_files, lines_in_table, policy_from
from keystead.ledger.format.records import FileHeader, Kind, MalformedRecordError
from keystead.ledger.format.tags import Tagger
from keystead.ledger.reading.checking import StreamChecker
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.policy import PolicyTrust, TrustedKey, TrustedSigner, TrustPolicy
from keystead.ledger.reading.report import ErrorType, VerifyError, VerifyReport
from keystead.ledger.reading.verifier import Verifier, header_of
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import Note
from keystead.model import KeyRecord
from keystead.model.counts import counted
from keystead.ports import (
    AuditEntryRow,
    AuditFilter,
    AuditLogRow,
    AuditSessionRow,
    AuditStateRow,
    KeyStore,
    KmsProvider,
    UnitOfWork,
)

PAGE: Final = 2000
MOST_AT_ONCE: Final = 100_000
"""Records that are verified while somebody waits."""

Progress = Callable[[int], object]


@dataclass(slots=True)
class AuditReport:
    """Whether a trail is as it was written.

    Attributes:
        log: what was found in the log, and in the entries in it.
        entries, rejected: in the log; ``unchecked`` are those whose session's key is not at hand.
        waiting: entries that are not in the log yet.
        differences: data keys that are not as the trail says; None where that was not asked.
        outstanding: what was found, stays so for good, and nobody has acknowledged.
        waits_from: when the first session began of which entries wait, milliseconds since 1970.
    """

    log: VerifyReport
    entries: int = 0
    rejected: int = 0
    unchecked: int = 0
    waiting: int = 0
    differences: list[KeyDifference] | None = None
    outstanding: Outstanding = field(default_factory=Outstanding)
    waits_from: float = math.inf

    @property
    def valid(self) -> bool:
        """Whether nothing was found."""
        return self.log.valid and not self.differences

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        told: dict[str, Any] = {**self.log.as_dict(), "valid": self.valid}
        told |= {name: getattr(self, name) for name in ("entries", "rejected", "unchecked", "waiting")}
        told["differences"] = None if self.differences is None else [_plain(each) for each in self.differences]
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailReader:
    """Reads a trail in one transaction of its store.

    Attributes:
        ring: the WRAP keyring, with every version loaded that sessions may be wrapped by; ``wrap_ids`` are those of all
            of its versions, destroyed ones included.
        state_keys: what vouches for the state that stands beside the log.
        providers: KMSs by the names that the log knows them by.
        uris: what opens them, for a policy that is to be saved.
        keys, signers: what the reader trusts by itself: keys that sessions are sealed under, and what signs a stream.
        archive: files that were moved away, in their order.
    """

    work: UnitOfWork
    ring: Keyring
    wrap_ids: Collection[int]
    state_keys: StateKeys
    store_id: str
    providers: Mapping[str, KmsProvider]
    uris: Mapping[str, str] = field(default_factory=dict)
    keys: Sequence[TrustedKey] = ()
    signers: Callable[[str], tuple[TrustedSigner, ...]] = lambda stream: ()
    archive: Sequence[Path] = ()

    async def policy(self) -> TrustPolicy:
        """Return what a reader of the trail has to trust, as its entries say it.

        Raises:
            CouldNotVerifyError: they do not say it.
        """
        bridge = _Bridge(self.work, asyncio.get_running_loop())
        return await asyncio.to_thread(self._policy, bridge, await self._sessions())

    async def verify(
        self,
        *,
        policy: TrustPolicy | None = None,
        since: bytes | None = None,
        expect_closed: bool = False,
        compares_store: bool = False,
        progress: Progress | None = None,
        until: int | None = None,
        first: int = 0,
    ) -> AuditReport:
        """Check every record and every entry.

        Args:
            policy: what to trust; what the trail's own entries say, if none is given.
            until: the last record that the report's ``outstanding`` is about; None for all.
            first: where a file begins: records before it are not looked at.
            since: a checkpoint that was kept: the log has to continue it.
            compares_store: compare the store's data keys with what the trail says of them.

        Raises:
            CouldNotVerifyError: a KMS or a file could not be reached, or the trail's beginning is missing for that.
            InvalidInputError: ``since`` is no checkpoint of this trail.
        """
        bridge = _Bridge(self.work, asyncio.get_running_loop(), progress)
        sessions = await self._sessions()
        unnamed = await self.work.count_unnamed_entries()

        def run() -> tuple[AuditReport, Inspector, bytes | None]:
            trusted = policy or self._policy(bridge, sessions)
            other = None if since is None else _other_origin(since, trusted.stream)
            with Verifier(trusted, self.providers) as opened:
                trust = PolicyTrust(trusted, trusted.stream, opened.providers())
                kept = None if since is None or other is not None else trust.kept_checkpoint(since)
                before = self._begun_before(bridge, first) if first else ()
                inspector = Inspector(self._opens, [*sessions, *before], until=until)
                checker = StreamChecker(trust, since=kept)
                log = self._check(bridge, checker, inspector, first=first, expect_closed=expect_closed)
            for row in bridge.waiting():
                inspector.take_waiting(row)
            inspector.finish(log)
            if unnamed:
                log.add(
                    VerifyError(
                        ErrorType.INSERTED,
                        f"{counted(unnamed, 'entry waits', 'entries wait')} without an id",
                        WAITING,
                        0,
                        0,
                        -1,
                    )
                )
            if other is not None:
                message = f"the checkpoint that was kept is of {other}: another trail stands in its place"
                log.add(VerifyError(ErrorType.REPLACED, message, TABLE, 0, 0, 0))
            counts = (inspector.entries, inspector.rejected, inspector.unchecked, inspector.waiting)
            told = AuditReport(log, *counts, outstanding=inspector.outstanding, waits_from=inspector.waits_from)
            return told, inspector, checker.root()

        report, inspector, root = await asyncio.to_thread(run)
        await self._compare_state(report, root)
        if compares_store:
            if not inspector.states.is_whole:
                raise CouldNotVerifyError(
                    "what the trail began with was moved away: name the folder that it was moved to (--archive)"
                )
            report.differences = inspector.states.differences(await _all_keys(self.work))
        return report

    async def _compare_state(self, report: AuditReport, root: bytes | None) -> None:
        """See that the state beside the log is authentic, and of just these records."""
        row = await self.work.audit_state()
        state = vouched_state(row, self.state_keys, self.store_id)
        size = await size_beside(self.work, state)
        found: tuple[ErrorType, str] | None = None
        if row is not None and state is None and self.state_keys.find(row.key_id) is None:
            report.log.warnings.append("the state beside the log could not be checked: its key is not usable any more")
        elif state is None:
            found = ErrorType.MODIFIED, "the state beside the log is gone, or not authentic"
        elif state.stream != report.log.stream:
            found = ErrorType.REPLACED, f"the state is of {state.stream}, and the records are of another log"
        elif state.size > size:
            found = ErrorType.TRUNCATED, f"the log had {state.size} records, and the last one here is {size - 1}"
        elif state.size < size:
            found = ErrorType.ROLLED_BACK, f"the state is of {state.size} records, and there are {size}"
        elif root is not None and state.checkpoint().root != root:
            # A torn end is what a crash leaves of a file, and never of a table.
            found = ErrorType.MODIFIED, f"what stands here are not the {size} records that the state is of"
        if found is not None:
            report.log.add(VerifyError(*found, "audit_state", 0, 0, size))

    async def _sessions(self) -> list[AuditSessionRow]:
        """Return what is known of sessions otherwise than by the log. Entries that wait may be many: none is kept."""
        rows = await self.work.audit_sessions(await self.work.waiting_sessions())
        return [*rows, *[told async for row in all_waiting(self.work) for told in told_in((row,))]]

    def _policy(self, bridge: _Bridge, sessions: list[AuditSessionRow]) -> TrustPolicy:
        try:
            lines = [*lines_in_files(self.archive), *lines_in_table(bridge.search)]
        except StorageOperationError as exc:
            raise CouldNotVerifyError(str(exc)) from None
        waits = ((row.entry, row.code) for row in bridge.waiting())
        stream = self._stream(bridge)
        own = None if not self.keys else TrustPolicy(stream, tuple(self.keys), self.signers(stream))
        return policy_from(lines, self._opens, stream, own=own, sessions=sessions, waiting=waits, uris=self.uris)

    def _stream(self, bridge: _Bridge) -> str:
        """Return the stream's name: as the state says it, which only a node can have written; else as the log does."""
        row = bridge.state()
        state = vouched_state(row, self.state_keys, self.store_id)
        if state is not None:
            return state.stream
        first = [] if self.archive else [row.line for row in bridge.first()]
        header = header_of(self.archive[0]) if self.archive else _header(first)
        if header is None:
            raise CouldNotVerifyError("the audit trail has no state, and no records or none that begin as a log does")
        return header.stream

    def _begun_before(self, bridge: _Bridge, first: int) -> Iterator[AuditSessionRow]:
        """Yield the sessions that records before a number tell of."""
        for row in bridge.search(AuditFilter(action=SESSION), before=first):
            if (told := session_told_in(row)) is not None:
                yield told

    def _check(
        self, bridge: _Bridge, checker: StreamChecker, inspector: Inspector, *, first: int, expect_closed: bool
    ) -> VerifyReport:
        pages = _PagesAhead(bridge)

        def files() -> Iterator[LogFile]:
            for path in self.archive:
                yield InspectedFile(path, inspector)
            yield from table_files(pages, inspector, after=first - 1)

        try:
            with contextlib.closing(pages):
                return checker.check(files(), is_whole=first == 0, expect_closed=expect_closed)
        except (StorageOperationError, InvalidCiphertextError) as exc:
            raise CouldNotVerifyError(str(exc)) from None

    def _opens(self, row: AuditSessionRow) -> Tagger | None:
        if wrapped_by(row) not in self.wrap_ids:
            # A key that the store ever had has a row, if only as a tombstone.
            raise InvalidSignatureError("a session of another store")
        try:
            return open_session(self.ring, self.store_id, row)
        except KMSError as exc:
            if isinstance(exc, DecryptionError) and not exc.retryable:
                raise InvalidSignatureError("a session of another store") from None
            return None


async def newest_files(store: KeyStore) -> int:
    """Return where the newest files begin that have ``MOST_AT_ONCE`` records, or the last one alone; 0 for all."""
    async with store.reading() as work:
        size = await work.audit_size()
        begins = [row.seq for row in await work.audit_controls(Kind.FILE.value, newest_first=True)]
        first = min((each for each in begins if size - each <= MOST_AT_ONCE), default=max(begins, default=0))
        return first if await work.audit_records(before=first, newest_first=True, limit=1) else 0


class _Bridge:
    """Reads the store from a thread, on the loop that its transaction belongs to."""

    def __init__(self, work: UnitOfWork, loop: asyncio.AbstractEventLoop, progress: Progress | None = None) -> None:
        self._work = work
        self._loop = loop
        self._progress = progress

    def state(self) -> AuditStateRow | None:
        """Return the state beside the log."""
        return asyncio.run_coroutine_threadsafe(self._work.audit_state(), self._loop).result()

    def first(self) -> list[AuditLogRow]:
        """Return the first record, if there is one."""
        return self.read(-1, 1).result()

    def read(self, after: int, limit: int) -> Future[list[AuditLogRow]]:
        """Begin to read the records that follow a number; until that is over nothing else must be asked for."""
        return asyncio.run_coroutine_threadsafe(self._work.audit_records(after=after, limit=limit), self._loop)

    def note(self, records: int) -> None:
        """Tell that so many records more were read."""
        if self._progress is not None:
            self._progress(records)

    def waiting(self) -> Iterator[AuditEntryRow]:
        """Yield the entries that wait, by id."""
        after: bytes | None = None
        while page := asyncio.run_coroutine_threadsafe(self._work.audit_entries(after=after), self._loop).result():
            yield from page
            after = page[-1].id

    def search(self, where: AuditFilter, *, before: int | None = None) -> Iterator[AuditLogRow]:
        """Yield the records that are listed so."""
        after = -1
        while True:
            read = self._work.audit_records(after=after, before=before, where=where, limit=PAGE)
            page = asyncio.run_coroutine_threadsafe(read, self._loop).result()
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].seq


class _PagesAhead:
    """Gives pages of the log one after the other, and reads the next while the one before is looked at."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        self._ahead: tuple[int, Future[list[AuditLogRow]]] | None = None

    def __call__(self, after: int) -> list[AuditLogRow]:
        """Return the records that follow a number."""
        if self._ahead is None or self._ahead[0] != after:
            self.close()
            self._ahead = after, self._bridge.read(after, PAGE)
        page = self._ahead[1].result()
        self._bridge.note(len(page))
        self._ahead = (page[-1].seq, self._bridge.read(page[-1].seq, PAGE)) if len(page) == PAGE else None
        return page

    def close(self) -> None:
        """Wait for what is being read, which nobody looks at any more."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            wait((ahead[1],))


def _other_origin(note: bytes, stream: str) -> str | None:
    """Return the log that a kept checkpoint is of, where that is another one; None for what is no checkpoint."""
    try:
        origin = Checkpoint.parse(Note.parse(note).text).origin
    except InvalidSignatureError:
        return None
    return None if origin == stream else origin


def _header(lines: Sequence[bytes]) -> FileHeader | None:
    try:
        return FileHeader.of_line(lines[0])[1] if lines else None
    except MalformedRecordError:
        return None


async def _all_keys(work: UnitOfWork) -> list[KeyRecord]:
    rows: list[KeyRecord] = []
    while page := await work.keys(after_id=rows[-1].id if rows else 0, limit=PAGE):
        rows += page
    return rows


def _plain(each: KeyDifference) -> dict[str, Any]:
    return {**{name: getattr(each, name) for name in KeyDifference.__slots__}, "id": str(each.id)}
