"""Following the erasure log: what it says is done in the store, and without it no key of a subject is used.

Spec: docs/spec/erasure-v1.md, 2.1; decisions: docs/adr/0039-erasure.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.erasure.lines import Codes, Erased, mark_behind
from keystead.errors import (
    ConfigurationError,
    ConflictError,
    ErasureLogError,
    KMSError,
    StaleViewError,
    SubjectErasedError,
)
from keystead.lifecycle.destruction import destroy_within
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.model import KeyRecord, utc_text
from keystead.ports import NO_ERASURES, AuditEvent, Detail, ErasureLog, ErasureMark, LogPosition, UnitOfWork

log = logging.getLogger("keystead.erasure")

FRESH_S: Final = 2.0
"""How often a process that uses keyrings of subjects looks at the log and at the store."""
STALE_S: Final = 5.0
"""How long it goes on without having looked."""


class Following:
    """What one process knows of the erasure log of its store.

    Args:
        log: None where the manager was given none; then no key of a subject is used.
        codes: returns the keyring ``keystead.erasures``, loaded, and made if there is none.
    """

    def __init__(self, live: LiveKeyrings, log: ErasureLog | None, codes: Callable[[], Awaitable[Keyring]]) -> None:
        self._live = live
        self._s = live.surroundings
        self._log = log
        self._codes = codes
        self._lock = asyncio.Lock()
        self._failure: KMSError | None = None
        self._fresh_at: float | None = None
        self._seen: ErasureMark | None = None
        self.done_again: set[int] = set()
        """Data keys that this process destroyed again, until somebody has seen to what is under them."""
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.erased: set[str] = set()
        self._position = LogPosition()
        self._mark = NO_ERASURES
        self._heads = bytearray()
        self._undone: deque[tuple[int, Erased]] = deque()

    def in_child(self) -> None:
        """Begin again in a child of a fork, which has another event loop."""
        self._lock = asyncio.Lock()

    def refusal(self, keyring: str) -> KMSError | None:
        """Return why no key of a subject's keyring may be used now, or None."""
        if self._log is None:
            return _no_log()
        if keyring in self.erased:
            return SubjectErasedError("the keys of this subject were erased: what they encrypted is gone for good")
        if self._failure is not None:
            return self._failure
        if self._fresh_at is None or self._s.clock.monotonic() - self._fresh_at > STALE_S:
            return StaleViewError(
                f"this process has not looked for over {STALE_S:g} s at which subjects were erased; "
                "`await km.run_due()` does, where no background task does"
            )
        return None

    @property
    def has_log(self) -> bool:
        """Whether the manager was given a log."""
        return self._log is not None

    @property
    def is_fresh(self) -> bool:
        """Whether this process has looked a moment ago, and found everything in order."""
        at = self._fresh_at
        return self._failure is None and at is not None and self._s.clock.monotonic() - at < FRESH_S

    async def look(self) -> None:
        """Read the log and the store's mark, and do again what the store has not followed.

        Raises:
            ErasureLogError: log and store do not fit; no key of a subject is used until they do.
            ConfigurationError: there is no log.
            KMSError: the log or the store cannot be read now.
        """
        source = self._source()
        async with self._lock:
            begun = self._s.clock.monotonic()
            try:
                # What the store has followed was in the log before.
                await self._live.refresh()
                async with self._s.store.reading(once=True) as work:
                    mark = await work.erasure_mark() or NO_ERASURES
                if mark.count < self._mark.count - len(self._undone):
                    # The store was put back to an earlier time.
                    self._begin_anew()
                await self._read(source)
                for known in (mark, await self._known()):
                    self._compare(known)
                while self._undone and self._undone[0][0] <= mark.count:
                    self._undone.popleft()
                if self._undone:
                    await self._do_again()
                await self._note()
            except KMSError as exc:
                # What passes is waited for, until this process has not looked for too long.
                if not exc.retryable:
                    self._failure = exc
                    self._begin_anew()
                raise
            self._failure = None
            self._fresh_at = begun

    async def begin(self) -> None:
        """Write the first line of the log where the store has none. Errors as ``look``."""
        await self.look()
        if self._mark == NO_ERASURES:
            codes = await self.codes()
            async with self._s.store.transaction() as work:
                await work.bump_epoch()
                if await work.erasure_mark() is None:
                    await self._append(work, codes, "", ())
                    await self._s.audit.record(work, AuditEvent("erasures.begin"))
            await self.look()

    async def all(self) -> list[tuple[Erased, ErasureMark]]:
        """Return every erasure, each with count and head of the log with it; errors as ``look``."""
        await self.look()
        lines, _ = await asyncio.to_thread(self._source().read, LogPosition())
        codes, mark, found = await self.codes(), NO_ERASURES, []
        for line in lines:
            erased = codes.read(line, store_id=self._live.store_id, before=mark)
            mark = mark_behind(line, mark)
            if erased.keyring:
                found.append((erased, mark))
        return found

    async def erase(self, work: UnitOfWork, codes: Codes, keyring: str) -> tuple[Erased, ErasureMark]:
        """Destroy every key of a keyring for good: in the log first, then in this transaction.

        The transaction has counted the epoch up: nobody else erases before it ends.

        Args:
            codes: what ``codes`` gave before the transaction began.

        Returns:
            What the log says, and count and head of the log with it.

        Raises:
            ConflictError: the log goes further than this process knows; look, and try again.
        """
        keys = await all_keys(work, keyring=keyring)
        erased, mark = await self._append(work, codes, keyring, tuple(key.id for key in keys))
        await self._destroy(work, erased, mark.count, keys)
        return erased, mark

    async def _append(
        self, work: UnitOfWork, codes: Codes, keyring: str, keys: tuple[int, ...]
    ) -> tuple[Erased, ErasureMark]:
        before = await work.erasure_mark() or NO_ERASURES
        if before != self._mark:
            raise ConflictError("another process has erased a subject meanwhile; look and try again")
        erased = Erased(keyring, keys, utc_text(self._s.clock.now()))
        line = codes.write(erased, store_id=self._live.store_id, before=before)
        await asyncio.to_thread(self._source().append, self._position, line)
        mark = mark_behind(line, before)
        await work.put_erasure_mark(mark)
        return erased, mark

    async def codes(self) -> Codes:
        """Return what makes and checks the codes of lines."""
        return Codes(dict((await self._codes()).copy_all()))

    def _source(self) -> ErasureLog:
        if self._log is None:
            raise _no_log()
        return self._log

    async def _read(self, source: ErasureLog) -> None:
        lines, position = await asyncio.to_thread(source.read, self._position)
        if not lines:
            return
        codes = await self.codes()
        for line in lines:
            erased = codes.read(line, store_id=self._live.store_id, before=self._mark)
            self._mark = mark_behind(line, self._mark)
            self._heads += self._mark.head
            if erased.keyring:
                self.erased.add(erased.keyring)
            self._undone.append((self._mark.count, erased))
        self._position = position

    def _compare(self, mark: ErasureMark) -> None:
        """See that the log has what it is known to have had."""
        if mark.count > self._mark.count:
            had = self._mark.count
            told = f"has {had} lines, and had {mark.count}" if had else "is gone"
            raise ErasureLogError(f"the erasure log {told}: put back the log that this store was used with")
        if mark.count and self._heads[32 * (mark.count - 1) : 32 * mark.count] != mark.head:
            raise ErasureLogError("the erasure log is another one than this store was used with: put that one back")

    async def _known(self) -> ErasureMark:
        """Return how far the log was when this process, or another with its state folder, last looked."""
        if self._seen is None:
            seen = await asyncio.to_thread(self._s.journal.read, self._live.store_id)
            self._seen = seen.erasures or NO_ERASURES
        return self._seen

    async def _note(self) -> None:
        """Remember it, outside the store and the log: they may be put back to one earlier time."""
        if self._seen != self._mark:
            self._seen = self._mark
            await asyncio.to_thread(self._s.journal.append, self._live.store_id, erasures=self._mark)

    async def _do_again(self) -> None:
        async with self._s.store.transaction() as work:
            await work.bump_epoch()
            # Whoever wrote the line may have been in the midst of it.
            mark = await work.erasure_mark() or NO_ERASURES
            for number, erased in self._undone:
                if number > mark.count:
                    log.warning("an erasure is done again that the store has not", extra={"keyring": erased.keyring})
                    keys = await all_keys(work, keyring=erased.keyring) if erased.keyring else []
                    await self._destroy(work, erased, number, keys, is_again=True)
                    self.done_again |= {key.id for key in keys}
            if mark.count < self._mark.count:
                await work.put_erasure_mark(self._mark)
        self._undone.clear()
        await self._live.refresh()

    async def _destroy(
        self, work: UnitOfWork, erased: Erased, number: int, keys: list[KeyRecord], *, is_again: bool = False
    ) -> None:
        if not erased.keyring:
            return
        details: dict[str, Detail] = {"line": number, "again": is_again}
        await self._s.audit.record(work, AuditEvent("subject.erase", erased.keyring, details=details))
        await destroy_within(self._s, work, keys)
        await work.drop_subject(erased.keyring)


def _no_log() -> ConfigurationError:
    return ConfigurationError(
        "keyrings of subjects need a log of erasures outside the database, or a restored backup would bring back whom "
        "it forgot: give the manager erasures=, such as file:///var/lib/keystead/erasures.log"
    )
