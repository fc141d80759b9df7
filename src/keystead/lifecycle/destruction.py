"""Disable, enable and destroy. What cannot be undone waits, and is refused while anything still needs the key."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from keystead.errors import (
    CleanupFailedError,
    InvalidInputError,
    KeyInUseError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
)
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.states import require_transition
from keystead.lifecycle.surroundings import Surroundings
from keystead.model import ERASURES_KEYRING, DataKeyState, KeyRecord, KeyringPurpose, utc_text
from keystead.ports import AuditEvent, Detail, KeyUse, SourceScanner, UnitOfWork

log = logging.getLogger("keystead.lifecycle")

SHORTEST_WAIT: Final = timedelta(days=7)
LONGEST_WAIT: Final = timedelta(days=30)
DEFAULT_WAIT: Final = timedelta(days=30)


class Destruction:
    """Takes data keys out of use, for a time or for good."""

    def __init__(self, live: LiveKeyrings, scan: SourceScanner) -> None:
        self._live = live
        self._s = live.surroundings
        self._scan = scan

    async def disable(self, key_id: int) -> KeyRecord:
        """Stop a decrypt-only version from decrypting; ``enable`` undoes it."""
        return await self._change(key_id, DataKeyState.DISABLED, "key.disable", (DataKeyState.DECRYPT_ONLY,))

    async def enable(self, key_id: int) -> KeyRecord:
        """Let a disabled version decrypt again.

        Raises:
            KeyStateError: the state does not allow it, or it is an index key, which rows no longer have.
        """
        return await self._change(key_id, DataKeyState.DECRYPT_ONLY, "key.enable", (DataKeyState.DISABLED,))

    async def cancel(self, key_id: int) -> KeyRecord:
        """Call a scheduled destruction off; the version is disabled afterwards."""
        return await self._change(
            key_id, DataKeyState.DISABLED, "key.cancel_destroy", (DataKeyState.PENDING_DESTROY,), destroy_after=None
        )

    async def schedule(
        self, key_id: int, *, wait: timedelta = DEFAULT_WAIT, without_sources: bool = False
    ) -> KeyRecord:
        """Schedule the destruction of a version that no declared data source needs any more.

        Args:
            wait: 7 to 30 days until the key is destroyed; ``cancel`` works until then.
            without_sources: the caller vouches that nothing is encrypted under the key although no source of its
                keyring is declared, so that nothing could be looked through.

        Raises:
            KeyInUseError: a source holds ciphertexts of the key, or keys are wrapped by it.
            KeyStateError: the state does not allow it, a node still uses an older view, or no source is declared.
        """
        if not SHORTEST_WAIT <= wait <= LONGEST_WAIT:
            raise InvalidInputError("a destruction waits 7 to 30 days")
        await self._live.refresh()
        async with self._s.store.reading() as work:
            key = await _get(work, key_id)
            require_transition(key, DataKeyState.PENDING_DESTROY)
            await self._require_seen_by_all(work, key)
            uses = await work.key_uses(key.keyring)
        if key.legacy_version is not None and not without_sources:
            raise KeyStateError(
                f"data key {key.id} was imported, and what it encrypted names {key.legacy_version!r} instead of its "
                "id, so nothing can be looked through; search your data for that text, then say --no-sources"
            )
        if not uses and not without_sources and key.purpose is not KeyringPurpose.WRAP:
            raise KeyStateError(
                f"no data source of keyring {key.keyring!r} is declared, so nothing can be looked through; declare "
                "where its ciphertexts lie (`keystead key uses add`), or say --no-sources if there are none"
            )
        await self._require_unused(key, uses)
        return await self._change(
            key_id,
            DataKeyState.PENDING_DESTROY,
            "key.schedule_destroy",
            (DataKeyState.DECRYPT_ONLY, DataKeyState.DISABLED),
            wait=wait,
        )

    async def run_due(self) -> list[KeyRecord]:
        """Destroy every version whose wait is over and that is still unused; return their tombstones.

        A restored store destroys nothing: that a destruction was called off may be among what it lost.

        Raises:
            KMSError: why one of them could not be destroyed, such as ``KeyInUseError`` where a source holds
                ciphertexts of it again; it is left pending, and the others were destroyed.
        """
        destroyed, failure = [], None
        for key in await self._due():
            try:
                async with self._s.store.reading() as work:
                    uses = await work.key_uses(key.keyring)
                await self._require_unused(key, uses)
                destroyed.append(await self.destroy_now(key, scanned=uses))
            except KMSError as exc:
                log.warning("a data key was not destroyed: %s", exc.code, extra={"data_key_id": key.id})
                failure = exc
        if failure is not None:
            raise failure
        return destroyed

    async def _due(self) -> list[KeyRecord]:
        async with self._s.store.reading() as work:
            if (await work.state()).restored:
                return []
            now = await store_time(work)
            return await all_keys(work, states={DataKeyState.PENDING_DESTROY}, only=lambda key: _is_due(key, now))

    async def destroy_now(self, key: KeyRecord, *, scanned: Sequence[KeyUse] | None = None) -> KeyRecord:
        """Erase the wrapped key of a row and leave its tombstone, remembered outside the database as well.

        Args:
            scanned: the sources that were looked through. Then it is destroyed only if its wait is over by the store's
                clock, no other source of it is declared, and the store is not restored.

        Raises:
            KeyStateError: the row changed since ``key`` was read, or must not be destroyed any more.
            KeyInUseError: it is a WRAP key that still wraps others.
        """
        allowed = (key.state,)
        return await self._change(
            key.id, DataKeyState.DESTROYED, "key.destroy", allowed, read=key, scanned=scanned, wrapped_key=None
        )

    async def _change(
        self,
        key_id: int,
        target: DataKeyState,
        action: str,
        allowed: tuple[DataKeyState, ...],
        *,
        read: KeyRecord | None = None,
        scanned: Sequence[KeyUse] | None = None,
        wait: timedelta | None = None,
        **columns: object,
    ) -> KeyRecord:
        async with self._s.store.transaction() as work:
            # Looked at first and locked later, a key could be called off, or wrap another one, in between.
            epoch = await work.bump_epoch()
            key = await _get(work, key_id)
            if read is None:
                require_transition(key, target)
            elif key.published_epoch != read.published_epoch:
                raise KeyStateError(f"data key {key_id} was changed meanwhile; look again and decide anew")
            if scanned is not None:
                await _require_still_due(work, key, scanned)
            if key.purpose is KeyringPurpose.INDEX and target is DataKeyState.DECRYPT_ONLY:
                raise KeyStateError(
                    f"data key {key_id} is an index key that was replaced: rows are no longer hashed under it; "
                    f"`keystead key rotate-index {shlex.quote(key.keyring)}` makes a new one"
                )
            if key.state not in allowed:
                raise KeyStateError(f"data key {key_id} is {key.state}; this takes one that is {' or '.join(allowed)}")
            if target in (DataKeyState.PENDING_DESTROY, DataKeyState.DESTROYED):
                await self._require_keys_nothing(work, key)
            if key.purpose is KeyringPurpose.WRAP and target is not DataKeyState.DECRYPT_ONLY:
                await self._require_wraps_nothing(work, key)
            details: dict[str, Detail] = {"version": key.version}
            if wait is not None:
                # From now, and not from when its sources began to be looked through.
                due = columns["destroy_after"] = await store_time(work) + wait
                details["destroy_after"] = utc_text(due)
            await self._s.audit.record(work, AuditEvent(action, key.keyring, key.id, details))
            changed = await work.change_key(key_id, key.state, state=target, published_epoch=epoch, **columns)
        if target is DataKeyState.DESTROYED:
            # Before anything else that may fail: a backup that brings the key back is known by it.
            await asyncio.to_thread(self._s.journal.append, self._live.store_id, destroyed=(key_id,))
        await self._live.refresh()
        return changed

    async def look(self, use: KeyUse, key_ids: Sequence[int]) -> Mapping[int, int]:
        """Return how many ciphertexts of each data key a source holds.

        Raises:
            CleanupFailedError: the application's own way to its source failed.
            ConfigurationError, StorageOperationError: the source cannot be looked through.
        """
        try:
            return await self._scan(use, key_ids)
        except KMSError:
            raise
        except Exception as exc:
            raise CleanupFailedError(
                f"the data source {use.name!r} could not be looked through ({type(exc).__name__}), so that nothing can "
                "be destroyed that it may hold"
            ) from exc

    async def _require_unused(self, key: KeyRecord, uses: list[KeyUse]) -> None:
        found: dict[str, Mapping[int, int]] = {}
        for use in uses:
            hits = await self.look(use, (key.id,))
            if hits.get(key.id):
                found[use.name] = hits
        if found:
            told = ", ".join(f"{name} ({hits[key.id]})" for name, hits in found.items())
            raise KeyInUseError(
                f"data key {key.id} (keyring {key.keyring!r} version {key.version}) still protects data in: {told}; "
                "re-encrypt it first"
            )

    async def _require_wraps_nothing(self, work: UnitOfWork, key: KeyRecord) -> None:
        if await work.keys(wrapped_by=key.id, states=_WRAPPED, limit=1):
            raise KeyInUseError(f"WRAP key {key.id} still wraps data keys; `keystead key rewrap` moves them first")
        if halves := await work.count_private_halves(key.id):
            raise KeyInUseError(
                f"WRAP key {key.id} still wraps the private halves of {halves} key pair(s) of devices; the upkeep of "
                "the key service moves them"
            )

    async def _require_keys_nothing(self, work: UnitOfWork, key: KeyRecord) -> None:
        if hashes := await work.count_credentials(key.id):
            raise KeyInUseError(
                f"data key {key.id} is the pepper of {hashes} passcode(s) and PIN(s), which cannot be verified without "
                "it; each moves to the newest pepper when it is next verified"
            )
        if tokens := await work.count_tokens(key.id):
            raise KeyInUseError(
                f"data key {key.id} is that of {tokens} API token(s), which are refused without it; revoke them first"
            )
        if roles := await work.count_roles(key.id):
            raise KeyInUseError(
                f"data key {key.id} is that of {roles} role(s) and secret id(s), by which nobody logs in without it; "
                "delete them first"
            )
        if key.keyring == ERASURES_KEYRING and await work.erasure_mark() is not None:
            raise KeyInUseError(
                f"data key {key.id} vouches for lines of the log of erasures, without which no key of a subject is used"
            )

    async def _require_seen_by_all(self, work: UnitOfWork, key: KeyRecord) -> None:
        behind = [node for node in await self._s.other_nodes(work) if node.seen_epoch < key.published_epoch]
        if behind:
            raise KeyStateError(
                f"{len(behind)} running process(es) may still encrypt under data key {key.id}: they have not seen "
                "its demotion yet; try again after one poll interval"
            )


async def destroy_within(s: Surroundings, work: UnitOfWork, keys: Sequence[KeyRecord]) -> None:
    """Destroy data keys in a transaction that has begun, of whose keyring nobody else has declared a use.

    The caller journals them once the transaction is committed, by refreshing its keyrings.
    """
    epoch = await work.bump_epoch()
    for key in keys:
        if key.state is DataKeyState.DESTROYED:
            continue
        await s.audit.record(work, AuditEvent("key.destroy", key.keyring, key.id, {"version": key.version}))
        await work.change_key(key.id, key.state, state=DataKeyState.DESTROYED, wrapped_key=None, published_epoch=epoch)


_WRAPPED: Final = frozenset(set(DataKeyState) - {DataKeyState.DESTROYED})


async def store_time(work: UnitOfWork) -> datetime:
    """Return the time by the clock that every process of the store shares, aware UTC."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=await work.now_ms())


async def _require_still_due(work: UnitOfWork, key: KeyRecord, scanned: Sequence[KeyUse]) -> None:
    if (await work.state()).restored or not _is_due(key, await store_time(work)):
        raise KeyStateError(
            f"data key {key.id} is not destroyed now: meanwhile the store was restored, or its clock set back"
        )
    if any(use not in scanned for use in await work.key_uses(key.keyring)):
        raise KeyStateError(
            f"data key {key.id} is not destroyed now: a data source of keyring {key.keyring!r} was declared meanwhile"
        )


def _is_due(key: KeyRecord, now: datetime) -> bool:
    return key.destroy_after is not None and key.destroy_after <= now


async def _get(work: UnitOfWork, key_id: int) -> KeyRecord:
    key = await work.find_key(key_id)
    if key is None:
        raise KeyNotFoundError(f"no data key {key_id} in this store; `keystead key list` shows them")
    return key
