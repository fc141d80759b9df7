"""What is done to key pairs of devices from time to time: made ready, taken out of use, erased, and wrapped anew."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from keystead import telemetry
from keystead.crypto.envelope import parse_header
from keystead.crypto.keyring import Keyring
from keystead.devices.halves import give_half, seal_half
from keystead.devices.names import new_key_id
from keystead.devices.pairs import public_pem
from keystead.devices.surroundings import Surroundings
from keystead.errors import ConflictError, DecryptionError, KeyStateError
from keystead.model import WRAP_KEYRING, DataKeyState, utc_text
from keystead.ports import AuditEvent, PairKind, ReadyPairRecord
from keystead.runtime.off_loop import in_thread

log = logging.getLogger("keystead.devices")

BATCH: Final = 500
_WRAPPING: Final = frozenset(set(DataKeyState) - {DataKeyState.DESTROYED})


@dataclass(frozen=True, slots=True)
class UpkeepReport:
    """What an upkeep has done.

    Attributes:
        deprecated: pairs that are handed out no more.
        erased: private halves that are gone.
        dropped: ids that are forgotten.
        unspent: ciphertexts that need not be remembered any more.
        moved: private halves that are under the active WRAP key now.
    """

    deprecated: int = 0
    erased: int = 0
    dropped: int = 0
    unspent: int = 0
    moved: int = 0


class Upkeep:
    """Keeps the key pairs of a store as the policy has them."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._s = surroundings

    async def fill(self, kind: PairKind, wanted: int) -> int:
        """Make pairs until so many of a kind are ready; return how many were made."""
        made = 0
        while True:
            async with self._s.store.reading() as work:
                ready_now = await work.count_ready_pairs(kind)
            telemetry.ready_pairs(kind.value, ready_now)
            if ready_now >= wanted:
                return made
            pair = await in_thread(self._s.make_pair, kind)
            now = self._s.clock.now()
            ready_id, public = new_key_id(now, self._s.random), public_pem(pair.public)
            ready = ReadyPairRecord(ready_id, kind, public, b"", 0, utc_text(now))
            ring = await self._s.rings.sealing_ring(WRAP_KEYRING)
            sealed = seal_half(ring, self._s.half(ready), pair)
            wrapped_by = parse_header(sealed).key_id
            ready = replace(ready, wrapped_private_key=sealed, wrapped_by=wrapped_by)
            async with self._s.store.transaction() as work:
                await self._s.rings.hold_wrap_key(work, wrapped_by)
                await work.add_ready_pair(ready)
            telemetry.ready_pair_made(kind.value)
            made += 1

    async def run(self) -> UpkeepReport:
        """Hand out no more what has expired, erase private halves whose grace is over, forget old ids; move the rest.

        What it does twice it does once: it may be cut short, and run on several nodes.
        """
        done = await self._expire()
        done["moved"] = await self._move()
        return UpkeepReport(**done)

    async def _expire(self) -> Counter[str]:
        policy, now = self._s.policy, self._s.clock.now()
        done: Counter[str] = Counter()
        while True:
            async with self._s.store.transaction() as work:
                step = {
                    "deprecated": await work.deprecate_expired_client_keys(now, limit=BATCH),
                    "erased": await work.erase_client_keys(now - policy.decrypt_grace, limit=BATCH),
                    "dropped": await work.drop_client_keys(now - policy.retention, limit=BATCH),
                    "unspent": await work.drop_spent(now, limit=BATCH),
                }
                if not any(step.values()):
                    return done
                await self._s.audit.record(work, AuditEvent("client_key.upkeep", details=step))
            done.update(step)

    async def _move(self) -> int:
        """Wrap every private half by the active WRAP key; return how many were wrapped by another.

        Pairs that no device has yet are not moved: others are made.
        """
        ring = await self._s.rings.sealing_ring(WRAP_KEYRING)
        async with self._s.store.reading() as work:
            versions = await work.keys(keyring=WRAP_KEYRING, states=_WRAPPING)
        moved = 0
        for version in versions:
            if version.id != ring.snapshot.active:
                moved += await self._move_from(ring, version.id)
        return moved

    async def _move_from(self, ring: Keyring, version: int) -> int:
        moved, after = 0, ""
        while True:
            async with self._s.store.reading() as work:
                page = await work.client_keys_under(version, after=after, limit=BATCH)
            if not page:
                break
            after = page[-1].id
            try:
                await self._s.rings.load_wrap_key(WRAP_KEYRING, version)
            except KeyStateError:
                log.warning("a WRAP key out of use wraps private halves of devices", extra={"data_key_id": version})
                return moved
            sealed = []
            for key in page:
                half = self._s.half(key)
                before = key.wrapped_private_key or b""
                try:
                    sealed.append((key.id, before, give_half(ring, half, before, half)))
                except DecryptionError:
                    log.warning("a private half does not open, and stays as it is", extra={"client_key": key.id})
            try:
                moved += await self._write(sealed)
            except ConflictError:
                return moved  # the WRAP key was replaced meanwhile: the next upkeep moves them under that one
        async with self._s.store.transaction() as work:
            await work.drop_ready_pairs(version)
        return moved

    async def _write(self, sealed: list[tuple[str, bytes, bytes]]) -> int:
        moved = 0
        if not sealed:
            return moved
        wrapped_by = parse_header(sealed[0][2]).key_id
        async with self._s.store.transaction() as work:
            await self._s.rings.hold_wrap_key(work, wrapped_by)
            for key_id, before, after in sealed:
                moved += await work.rewrap_client_key(key_id, before, after, wrapped_by)
            details = {"moved": moved, "wrap_key": wrapped_by}
            await self._s.audit.record(work, AuditEvent("client_key.rewrap", details=details))
        return moved
