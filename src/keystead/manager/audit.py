"""``km.audit``: the store's audit trail as its user sees it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keystead.errors import ConflictError, InvalidInputError, StoreUnavailableError
from keystead.ledger.audit.acknowledging import Outstanding
from keystead.ledger.audit.beginning import settling, write_event
from keystead.ledger.audit.chain import END
from keystead.ledger.audit.entries import require_action, require_details, require_size, require_subject
from keystead.ledger.audit.proving import prove
from keystead.ledger.audit.verifying import AuditReport, Progress, newest_files
from keystead.ledger.format.records import Kind, MalformedRecordError, parse_line, parse_payload, text
from keystead.ledger.reading.policy import TrustPolicy
from keystead.ledger.tlog.proof import ProofBundle
from keystead.manager import audit_files
from keystead.manager.audit_files import ArchiveReport
from keystead.manager.audit_listing import PAGE, records_in
from keystead.manager.audit_reading import trail_reader
from keystead.manager.audit_record import AuditRecord
from keystead.manager.audit_status import AuditStatus, no_trail, status_of
from keystead.manager.auditing import Auditing
from keystead.model import utc_text
from keystead.ports import AuditEntryRow, AuditEvent, AuditFilter, AuditLogRow, Detail, InsertsElsewhere

if TYPE_CHECKING:
    from keystead.manager.core import ManagerCore

WAIT_S: Final = 30.0
_LOOK_S: Final = 0.05
_PATIENCE_S: Final = 1.5
"""How long the process that seals is waited for, before this one takes its place if it is gone."""


class Audit:
    """The audit trail of the manager's store."""

    def __init__(self, manager: ManagerCore) -> None:
        self._manager = manager
        self._is_verifying = False
        self._subtrees: dict[int, bytes] = {}

    async def record(
        self,
        action: str,
        /,
        *,
        within: Any = None,
        keyring: str | None = None,
        key_id: int | None = None,
        **details: Detail,
    ) -> None:
        """Write an event of the application's own into the trail.

        Args:
            action: a word, a dot and a word, such as ``order.refund``, the first none of Keystead's own.
            within: the application's own transaction, where its tables are in the store's database: a connection or
                session of SQLAlchemy, async as this manager is. What is rolled back there leaves no entry.
            keyring: printable text, at most 255 characters.
            key_id: a data key's id, from 1 to 2**63 - 1.
            details: text, whole numbers, booleans, None, lists and mappings. They are kept in clear, for good.

        Raises:
            InvalidInputError: an action, keyring, data key or details that cannot be, or a store that is in no
                database of its own.
            KMSError: it cannot be written; then it has not been.
        """
        event = event_of(action, keyring, key_id, details)
        auditing = await self._auditing()
        if within is not None:
            await within.execute(*await self.insert_of(event))
            return
        await auditing.trail.tell(event)

    async def insert_of(self, event: AuditEvent) -> tuple[Any, dict[str, Any]]:
        """Return what writes an event in a transaction of the application's; for Keystead's own rooms."""
        trail = (await self._auditing()).trail
        if not isinstance(trail.store, InsertsElsewhere):
            raise InvalidInputError("within= takes a store in SQLite or PostgreSQL, in whose database the tables are")
        entry = await trail.draw_elsewhere(event)
        return trail.store.audit_insert(), {name: getattr(entry, name) for name in AuditEntryRow.__slots__}

    async def sequenced(self, *, timeout_s: float = WAIT_S) -> None:
        """Return once everything that this manager has written is sealed.

        Raises:
            StoreUnavailableError: it was not, in that time: no process seals, or none can.
        """
        auditing = await self._auditing()
        waits = dict(auditing.trail.written)

        async def is_done() -> bool:
            async with auditing.trail.store.reading() as work:
                for session, last in waits.items():
                    first = await work.audit_entries(sessions=[session], limit=1)
                    if first and first[0].id <= last:
                        return False
            return True

        await self._until(auditing, is_done, timeout_s)

    async def checkpoint(self, *, timeout_s: float = WAIT_S) -> bytes:
        """Have everything sealed and signed, and return the checkpoint: keep it where nobody can change it.

        Raises:
            StoreUnavailableError: as ``sequenced``.
        """
        auditing = await self._auditing()
        written = await self._ask(auditing, AuditEvent("audit.checkpoint"))
        found: list[bytes] = []

        async def is_done() -> bool:
            async with auditing.trail.store.reading() as work:
                asked = await work.audit_records(where=AuditFilter(entry_id=written))
                last = await work.audit_controls(Kind.CHECKPOINT.value, newest_first=True, limit=1)
            note = _note_of(last[0]) if last else None
            if asked and note is not None and _size_of(note) > asked[0].seq:
                found.append(note)
            return bool(found)

        await self._until(auditing, is_done, timeout_s)
        return found[0]

    async def last_checkpoint(self) -> bytes | None:
        """Return the last checkpoint in the log, None where there is none yet."""
        auditing = await self._auditing()
        async with auditing.trail.store.reading() as work:
            rows = await work.audit_controls(Kind.CHECKPOINT.value, newest_first=True, limit=1)
        return _note_of(rows[0]) if rows else None

    async def entries(
        self,
        *,
        keyring: str | None = None,
        action: str | None = None,
        key_id: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: int = -1,
        before: int | None = None,
        newest_first: bool = False,
        limit: int = 1000,
    ) -> list[AuditRecord]:
        """Return entries by number, the log's own records left out. What is listed is not verified.

        Args:
            since, until: by the entries' own times, aware.
            after, before: numbers of records, both excluded.
        """
        auditing = await self._auditing()
        where = AuditFilter(keyring, action, key_id, _moment(since), _moment(until))
        page = max(1, min(limit, PAGE))
        found: list[AuditRecord] = []
        async with (
            auditing.trail.store.reading() as work,
            aclosing(
                records_in(work, where, after=after, before=before, newest_first=newest_first, page=page)
            ) as records,
        ):
            async for record in records:
                if len(found) >= limit:
                    break
                found.append(record)
        return found

    async def verify(
        self,
        *,
        policy: TrustPolicy | None = None,
        since: bytes | None = None,
        archive: str | os.PathLike[str] | None = None,
        compares_store: bool = False,
        expect_closed: bool = False,
        progress: Progress | None = None,
    ) -> AuditReport:
        """Check every record and every entry of the trail; see ``TrailReader.verify``.

        Args:
            since: a checkpoint that was kept: without one, an end that was cut off together with all trace of it is
                not found.
            archive: the folder that earlier records were moved to.

        Raises:
            CouldNotVerifyError: it could not be found out.
        """
        auditing = await self._auditing()
        files = [] if archive is None else await asyncio.to_thread(audit_files.archived, Path(archive))
        async with trail_reader(self._manager, auditing, files) as reader:
            return await reader.verify(
                policy=policy,
                since=since,
                compares_store=compares_store,
                expect_closed=expect_closed,
                progress=progress,
            )

    async def verify_newest(self) -> AuditReport:
        """Check the newest files of the trail, as many as are read within seconds; errors as ``verify``.

        The report's ``log.first`` is the record that it begins with: what is before was not looked at.

        Raises:
            ConflictError: this process is at it already.
        """
        auditing = await self._auditing()
        if self._is_verifying:
            raise ConflictError("the audit trail is being verified by this node; ask again in a moment")
        self._is_verifying = True
        try:
            first = await newest_files(auditing.trail.store)
            async with trail_reader(self._manager, auditing, ()) as reader:
                return await reader.verify(first=first)
        finally:
            self._is_verifying = False

    async def prove(self, record: int) -> ProofBundle:
        """Return the proof that a record is in the trail, with the record; errors as ``ledger.audit.proving.prove``."""
        return await prove((await self._auditing()).trail.store, record, self._subtrees)

    async def trust_policy(self) -> TrustPolicy:
        """Return what a reader of the trail has to trust: save it where whoever writes the database cannot change it.

        Raises:
            CouldNotVerifyError: nothing is sealed yet.
        """
        auditing = await self._auditing()
        async with trail_reader(self._manager, auditing, ()) as reader:
            return await reader.policy()

    async def export(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Copy the log, as far as it is sealed, into files that any reader of sealed logs verifies."""
        auditing = await self._auditing()
        return await audit_files.export(auditing.trail.store, Path(folder))

    async def acknowledge(self, record: int, *, reason: str) -> Outstanding:
        """Say in the trail that somebody has looked into what was found in it and stays there; return what that is.

        It is entries that were not authentic, states that were not as they had been left, and entries that are gone.
        From then on they are warnings. Whatever else is found stays a finding.

        Args:
            record: the number of the last record that was looked into; what only later ones tell is not meant.

        Raises:
            InvalidInputError: no reason.
            CouldNotVerifyError: what there is could not be found out.
        """
        if not reason:
            raise InvalidInputError("say what was found out: the reason stands in the audit trail")
        auditing = await self._auditing()
        async with trail_reader(self._manager, auditing, ()) as reader:
            report = await reader.verify(until=record)
        if report.outstanding:
            last = min(record, report.log.size - 1)
            await auditing.trail.tell(*report.outstanding.events(last, reason))
        return report.outstanding

    async def archive(
        self,
        folder: str | os.PathLike[str],
        *,
        before: datetime,
        compress: bool = True,
        since: bytes | None = None,
        timeout_s: float = WAIT_S,
    ) -> ArchiveReport:
        """Move the files of the log that ended before a time out of the database, verified, and leave a word of it.

        The records stay where they are unless every step before has succeeded; a call that was broken off is made
        again. Files stay until they ended more than eight days ago: an entry may come late, and none comes twice.

        Args:
            since: a checkpoint that was kept, which the log has to continue.

        Raises:
            InvalidProofError: the log is not as it was written; nothing was moved.
            StorageOperationError: a file cannot be written, or the database role must not delete records.
        """
        auditing = await self._auditing()
        report = await self.verify(since=since)
        now = auditing.surroundings.clock.now()
        taken = await audit_files.take(
            auditing.trail.store, Path(folder), before, now=now, compress=compress, report=report
        )
        if taken.files:
            await auditing.trail.ensure()
            async with settling(auditing.trail) as written, auditing.trail.store.transaction() as work:
                written.extend(await audit_files.tell(auditing.trail, work, taken))
            await self.checkpoint(timeout_s=timeout_s)
            await audit_files.drop(auditing.trail.store, taken)
        return taken

    async def status(self, *, at_most: int | None = None) -> AuditStatus:
        """Return how the trail stands; answers where there is none.

        Args:
            at_most: up to how many entries that wait, or were rejected, are counted; None for all.
        """
        auditing = (await self._manager.session()).auditing
        if auditing is None:
            return AuditStatus(is_on=False)
        found = await status_of(auditing.trail.store, at_most=at_most)
        return found if found.is_marked else replace(found, is_on=await auditing.mark.is_on(is_set=False))

    async def begin(self) -> None:
        """Begin a trail, if the store has none or its trail was ended: from now on every manager of it takes part."""
        session = await self._manager.session()
        if session.auditing is None:
            raise no_trail()
        await session.auditing.begin()

    async def end(self, reason: str) -> None:
        """Let managers that start from now on take no part, unless they are told to; those that run go on.

        Raises:
            InvalidInputError: no reason.
        """
        if not reason:
            raise InvalidInputError("say why the audit trail ends: it is the last thing that is written into it")
        trail = (await self._auditing()).trail
        await trail.ensure()
        # Whatever else may go unrecorded: without this entry the trail has not ended.
        async with settling(trail) as written, trail.store.transaction() as work:
            await work.set_audited(False)
            written.append(await write_event(trail, work, AuditEvent(END, details={"reason": reason}), work.changes))

    async def _ask(self, auditing: Auditing, event: AuditEvent) -> bytes:
        """Write an event that asks the sequencer for something, and return its entry's id."""
        await auditing.trail.ensure()
        async with settling(auditing.trail) as written, auditing.trail.store.transaction() as work:
            written.append(await write_event(auditing.trail, work, event))
        return written[0].last_id

    async def _until(self, auditing: Auditing, is_done: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        clock = auditing.surroundings.clock
        begun = clock.monotonic()
        is_alone = await auditing.is_alone()
        while True:
            waited = clock.monotonic() - begun
            while await auditing.step(is_urgent=is_alone or waited > _PATIENCE_S):
                pass
            if await is_done():
                return
            if waited > timeout_s:
                raise StoreUnavailableError(
                    f"the audit trail was not sealed within {timeout_s:g} s: no process seals it, or its KMS does not "
                    "answer; `keystead audit status` tells more"
                )
            await asyncio.sleep(_LOOK_S)

    async def _auditing(self) -> Auditing:
        auditing = (await self._manager.session()).auditing
        if auditing is None or not auditing.trail.is_on:
            raise no_trail()
        return auditing


def event_of(action: str, keyring: str | None, key_id: int | None, details: Mapping[str, Detail]) -> AuditEvent:
    """Return an event of the application's own.

    Raises:
        InvalidInputError: an action, keyring, data key or details that cannot be.
    """
    require_action(action)
    require_subject(keyring, key_id)
    require_details(details)
    event = AuditEvent(action, keyring, key_id, details)
    require_size(event)
    return event


def _note_of(row: AuditLogRow) -> bytes | None:
    try:
        return text(parse_payload(parse_line(row.line).payload), "note").encode()
    except MalformedRecordError:
        return None


def _size_of(note: bytes) -> int:
    second = note.split(b"\n", 2)[1]
    return int(second) if second.isdigit() else -1


def _moment(value: datetime | None) -> str | None:
    if value is not None and value.tzinfo is None:
        raise InvalidInputError("times of audit entries are aware: give the datetime a time zone")
    return None if value is None else utc_text(value.astimezone(UTC))
