"""Whether the store of a manager keeps an audit trail, whatever its own mark says: nobody authenticates that."""

from __future__ import annotations

import asyncio
import logging

from keystead.errors import KeyNotFoundError, StorageOperationError
from keystead.ledger.audit.examining import SessionKeys
from keystead.ledger.audit.keys import StateKeys
from keystead.ledger.audit.mark import MarkReader
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.model import AUDIT_KEYRING, WRAP_KEYRING

log = logging.getLogger("keystead.audit")


class AuditMark:
    """What a manager goes by. A store without a trace of a trail costs one query, and a look into the state journal."""

    def __init__(self, live: LiveKeyrings) -> None:
        self._live = live

    async def is_on(self, *, is_set: bool | None = None, asks_journal: bool = True) -> bool:
        """Whether a trail is kept: the store is marked, or there was one and nobody who holds a key has ended it.

        Args:
            is_set: whether the store is marked; as this manager read it last, unless given.
            asks_journal: whether the state journal is asked where the store has no trace of a trail.

        Raises:
            KMSError: that cannot be found out.
        """
        live = self._live
        if is_set if is_set is not None else live.state is not None and live.state.audited:
            return True
        async with live.surroundings.store.reading() as work:
            has_trace = await work.has_audit_trace()
        known = await self.known() if has_trace or asks_journal else 0
        if not has_trace and not known:
            return False
        try:
            reader = await self.reader()
        except KeyNotFoundError:
            return True
        mark = await reader.read()
        return mark.is_set or not mark.is_over(known)

    async def known(self) -> int:
        """Return the highest store epoch at which a trail is known to have been kept, from outside the database."""
        live = self._live
        return (await asyncio.to_thread(live.surroundings.journal.read, live.store_id)).audited

    async def note(self, epoch: int) -> None:
        """Note outside the database that a trail is kept; what cannot be noted is logged."""
        live = self._live
        try:
            await asyncio.to_thread(live.surroundings.journal.append, live.store_id, epoch=epoch, audited=True)
        except StorageOperationError as exc:
            log.warning("the state journal could not be written: %s", exc.code)

    async def reader(self) -> MarkReader:
        """Return what reads the authenticated part.

        Raises:
            KeyNotFoundError: the store has no keyring for trails.
            KMSError: its keys cannot be used now.
        """
        live = self._live
        ring = await live.load(AUDIT_KEYRING)
        wrap, store = await live.wrap_ring(WRAP_KEYRING), live.surroundings.store
        sessions = SessionKeys(wrap, live.store_id, self.load_wrap_key, store)
        return MarkReader(store, live.store_id, StateKeys(ring), sessions)

    async def load_wrap_key(self, key_id: int) -> bool:
        """Load a WRAP key that a session is wrapped by; False where the store has no such key. Errors as the KMS's."""
        is_there = await self._live.load_wrap_key(WRAP_KEYRING, key_id)
        await self._live.uses.loaded(WRAP_KEYRING)
        return is_there
