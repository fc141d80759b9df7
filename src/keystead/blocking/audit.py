"""``keystead.blocking.Audit``."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from keystead.ledger.audit.acknowledging import Outstanding
from keystead.ledger.audit.verifying import AuditReport, Progress
from keystead.ledger.reading.policy import TrustPolicy
from keystead.ledger.tlog.proof import ProofBundle
from keystead.manager import audit
from keystead.manager.audit import WAIT_S, event_of
from keystead.manager.audit_files import ArchiveReport
from keystead.manager.audit_record import AuditRecord
from keystead.manager.audit_status import AuditStatus
from keystead.ports import Detail
from keystead.runtime.loop import background_loop


class Audit:
    """The audit trail of the manager's store, for code that is not async."""

    def __init__(self, behind: audit.Audit) -> None:
        self._audit = behind

    def record(
        self,
        action: str,
        /,
        *,
        within: Any = None,
        keyring: str | None = None,
        key_id: int | None = None,
        **details: Detail,
    ) -> None:
        """Write an event of the application's own into the trail; ``within`` a transaction that is not async."""
        if within is None:
            background_loop.run(self._audit.record(action, keyring=keyring, key_id=key_id, **details))
            return
        event = event_of(action, keyring, key_id, details)
        within.execute(*background_loop.run(self._audit.insert_of(event)))

    def sequenced(self, *, timeout_s: float = WAIT_S) -> None:
        """Return once everything that this manager has written is sealed."""
        background_loop.run(self._audit.sequenced(timeout_s=timeout_s))

    def checkpoint(self, *, timeout_s: float = WAIT_S) -> bytes:
        """Have everything sealed and signed, and return the checkpoint: keep it where nobody can change it."""
        return background_loop.run(self._audit.checkpoint(timeout_s=timeout_s))

    def last_checkpoint(self) -> bytes | None:
        """Return the last checkpoint in the log, None where there is none yet."""
        return background_loop.run(self._audit.last_checkpoint())

    def entries(
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
        """Return entries by number, the log's own records left out. What is listed is not verified."""
        asked = self._audit.entries(
            keyring=keyring,
            action=action,
            key_id=key_id,
            since=since,
            until=until,
            after=after,
            before=before,
            newest_first=newest_first,
            limit=limit,
        )
        return background_loop.run(asked)

    def verify(
        self,
        *,
        policy: TrustPolicy | None = None,
        since: bytes | None = None,
        archive: str | os.PathLike[str] | None = None,
        compares_store: bool = False,
        expect_closed: bool = False,
        progress: Progress | None = None,
    ) -> AuditReport:
        """Check every record and every entry of the trail."""
        asked = self._audit.verify(
            policy=policy,
            since=since,
            archive=archive,
            compares_store=compares_store,
            expect_closed=expect_closed,
            progress=progress,
        )
        return background_loop.run(asked)

    def verify_newest(self) -> AuditReport:
        """Check the newest files of the trail, as many as are read within seconds."""
        return background_loop.run(self._audit.verify_newest())

    def prove(self, record: int) -> ProofBundle:
        """Return the proof that a record is in the trail, with the record."""
        return background_loop.run(self._audit.prove(record))

    def trust_policy(self) -> TrustPolicy:
        """Return what a reader of the trail has to trust: save it where the database's writers cannot change it."""
        return background_loop.run(self._audit.trust_policy())

    def export(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Copy the log, as far as it is sealed, into files that any reader of sealed logs verifies."""
        return background_loop.run(self._audit.export(folder))

    def acknowledge(self, record: int, *, reason: str) -> Outstanding:
        """Say in the trail that somebody has looked into what was found in it and stays there; return what that is."""
        return background_loop.run(self._audit.acknowledge(record, reason=reason))

    def archive(
        self,
        folder: str | os.PathLike[str],
        *,
        before: datetime,
        compress: bool = True,
        since: bytes | None = None,
        timeout_s: float = WAIT_S,
    ) -> ArchiveReport:
        """Move the files of the log that ended before a time out of the database, verified, and leave a word of it."""
        asked = self._audit.archive(folder, before=before, compress=compress, since=since, timeout_s=timeout_s)
        return background_loop.run(asked)

    def status(self, *, at_most: int | None = None) -> AuditStatus:
        """Return how the trail stands; answers where there is none.

        Args:
            at_most: up to how many entries that wait, or were rejected, are counted; None for all.
        """
        return background_loop.run(self._audit.status(at_most=at_most))

    def begin(self) -> None:
        """Begin a trail, if the store has none: from now on every manager of it takes part."""
        background_loop.run(self._audit.begin())

    def end(self, reason: str) -> None:
        """Let managers that start from now on take no part, unless they are told to; those that run go on."""
        background_loop.run(self._audit.end(reason))
