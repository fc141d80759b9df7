"""Keyrings of subjects in a session: followed closely as soon as one is used, and erased."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.crypto.ring_signer import RingSigner
from keystead.erasure.following import FRESH_S, STALE_S, Following
from keystead.erasure.lines import Erased
from keystead.erasure.receipts import Erasure, ErasureReceipt, Kek
from keystead.erasure.subjects import Subjects
from keystead.errors import KeyNotFoundError, KMSError
from keystead.lifecycle.key_pages import all_keys
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.manager.forgotten_rows import empty_indexes
from keystead.manager.own_keyrings import own_ring
from keystead.model import ERASURES_KEYRING, KeyringPurpose
from keystead.ports import ErasureLog, ErasureMark

log = logging.getLogger("keystead.manager")

SUBJECTS_KEYRING: Final = "keystead.subjects"
RECEIPTS_KEYRING: Final = "keystead.receipts"
_LOOK_S: Final = 0.1


class SubjectKeys:
    """Finds, follows and erases the keyrings of subjects.

    Args:
        erasures: the erasure log; None where the manager was given none.
    """

    def __init__(self, live: LiveKeyrings, erasures: ErasureLog | None) -> None:
        self._live = live
        self._s = live.surroundings
        self.following = Following(live, erasures, self._codes)
        self.subjects = Subjects(live, self.following, self._hashing)
        self._is_used = False
        self._wake: Callable[[], object] | None = None

    async def open(self) -> None:
        """Follow the log once, so that what was erased stays so; what cannot be followed is told, and refused later."""
        if self.following.has_log:
            await self._look()

    async def ring(self, subject: str, *, create: bool, wrap_keyring: str) -> Keyring:
        """Return the keyring of a subject; see ``Subjects.ring``."""
        await self.freshen()
        return await self.subjects.ring(subject, create=create, wrap_keyring=wrap_keyring)

    async def rings(self, subjects: Collection[str], *, create: bool = True) -> dict[str, Keyring]:
        """Return the keyrings of subjects by their names; see ``Subjects.rings``."""
        await self.freshen()
        return await self.subjects.rings(subjects, create=create)

    async def freshen(self) -> None:
        """Look at the log unless that was a moment ago; errors as ``Following.look``."""
        self._use()
        if not self.following.is_fresh:
            await self._follow()

    def refusal(self, ring: Keyring) -> KMSError | None:
        """Return why a keyring must not be used now, if it is a subject's; None otherwise."""
        if not ring.is_strict:
            return None
        self._use()
        return self.following.refusal(ring.name)

    async def follow(self) -> None:
        """Read the log, where a keyring of a subject is in use; what fails is told, and refuses those keyrings."""
        if self._is_used and self.following.has_log:
            await self._look()

    async def rest(self, pause_s: float) -> None:
        """Wait until the store is to be polled again: soon, where a keyring of a subject is in use."""
        if self._is_used:
            await self._s.clock.sleep(min(pause_s, FRESH_S))
            return
        loop = asyncio.get_running_loop()
        used = loop.create_future()
        sleeping = asyncio.ensure_future(self._s.clock.sleep(pause_s))
        # Whoever uses one first may be in another thread.
        self._wake = partial(loop.call_soon_threadsafe, _end, used)
        try:
            await asyncio.wait({sleeping, used}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._wake = None
            sleeping.cancel()
            _end(used)

    async def erase(self, subject: str) -> ErasureReceipt:
        """Destroy the keys of a subject; see ``KeyManager.forget``."""
        # Whatever can fail is done before anything is destroyed.
        signer = await self.signer()
        committed = await self.subjects.erase(subject)
        return await self._receipt(committed.erased, committed.mark, committed.epoch, signer)

    async def erasures(self) -> list[Erasure]:
        """Return what the log has; see ``KeyManager.erasures``."""
        found = await self.following.all()
        return [Erasure(mark.count, each.keyring, tuple(sorted(each.keys)), each.time) for each, mark in found]

    async def receipt(self, keyring: str) -> ErasureReceipt:
        """Return a receipt of an erasure; see ``KeyManager.erasure_receipt``."""
        for erased, mark in await self.following.all():
            if erased.keyring == keyring:
                async with self._s.store.reading() as work:
                    keys = await all_keys(work, keyring=keyring)
                epoch = max((key.published_epoch for key in keys), default=0)
                return await self._receipt(erased, mark, epoch, await self.signer())
        raise KeyNotFoundError(
            f"the log of erasures has none of keyring {keyring!r}; `keystead subject erasures` shows what it has"
        )

    async def _receipt(self, erased: Erased, mark: ErasureMark, epoch: int, signer: RingSigner) -> ErasureReceipt:
        seen, unseen = await self._wait(epoch)
        return ErasureReceipt(
            store=self._live.store_id,
            keyring=erased.keyring,
            keys=tuple(sorted(erased.keys)),
            time=erased.time,
            log_count=mark.count,
            log_head=mark.head.hex(),
            keks=await self._keks(erased.keyring),
            nodes_seen=seen,
            nodes_unseen=unseen,
            # Once nobody writes one any more.
            remaining=await empty_indexes(self._s.store, erased.keys),
        ).signed_by(signer)

    async def signer(self) -> RingSigner:
        """Return what signs receipts."""
        return RingSigner(await own_ring(self._live, RECEIPTS_KEYRING, KeyringPurpose.SIGN, "Ed25519"))

    def in_child(self) -> None:
        """Begin again in a child of a fork."""
        self._wake = None
        self.following.in_child()

    def _use(self) -> None:
        if not self._is_used:
            self._is_used = True
            if (wake := self._wake) is not None:
                with contextlib.suppress(RuntimeError):  # its loop is over
                    wake()

    async def _follow(self) -> None:
        await self.following.look()
        if done_again := self.following.done_again:
            # Whoever put the store back may have put back the tables with it.
            self.following.done_again = set()
            await empty_indexes(self._s.store, done_again)

    async def _look(self) -> None:
        try:
            await self._follow()
        except KMSError as exc:
            log.error("keyrings of subjects are not used, since the log of erasures cannot be followed: %s", exc)  # noqa: TRY400 -- its text is for people

    async def _wait(self, epoch: int) -> tuple[int, int]:
        """Return how many other processes have acknowledged an epoch, and how many not before they refuse."""
        began = self._s.clock.monotonic()
        while True:
            async with self._s.store.reading() as work:
                others = await self._s.other_nodes(work)
            unseen = sum(node.seen_epoch < epoch for node in others)
            if not unseen or self._s.clock.monotonic() - began >= STALE_S:
                return len(others) - unseen, unseen
            await self._s.clock.sleep(_LOOK_S)

    async def _keks(self, keyring: str) -> tuple[Kek, ...]:
        """Return what the destroyed keys of a keyring were wrapped under: their rows stay, without the key."""
        found: dict[Kek, None] = {}
        async with self._s.store.reading() as work:
            keys = await all_keys(work, keyring=keyring)
            for wrapped_by in sorted({key.wrapped_by for key in keys if key.wrapped_by is not None}):
                row = await work.find_key(wrapped_by)
                if row is not None:
                    found[Kek(row.kek_provider or "", row.kek_key_id or "", row.kek_version)] = None
        return tuple(found)

    async def _codes(self) -> Keyring:
        return await own_ring(self._live, ERASURES_KEYRING, KeyringPurpose.MAC, "HMAC-SHA256")

    async def _hashing(self) -> Keyring:
        return await own_ring(self._live, SUBJECTS_KEYRING, KeyringPurpose.INDEX, "HMAC-SHA256")


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
