"""What the three calls do, over an open manager."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from keystead.config.sources import LoadedSettings
from keystead.crypto.envelope import OVERHEAD, parse_header
from keystead.crypto.keyring import Keyring
from keystead.errors import DecryptionError, InvalidInputError, KMSError
from keystead.manager.announced import AnnouncedKeyring
from keystead.manager.transit import transit
from keystead.model import TransitType
from keystead.ports import Clock
from keystead.server.causes import Cause, cause_of
from keystead.server.kubernetes.allowed import Allowed
from keystead.server.kubernetes.names import (
    CONTEXT,
    annotations_of,
    key_id_of,
    keyring_of,
    require_annotations,
    require_key_id,
)
from keystead.server.opening import opened_manager
from keystead.transit.administration import NewTransitKey
from keystead.transit.opened import OpenKey

log = logging.getLogger("keystead.server.kubernetes")

MAX_CIPHERTEXT: Final = 1024
"""Bytes that an API server takes and keeps."""
MAX_PLAINTEXT: Final = MAX_CIPHERTEXT - OVERHEAD


@dataclass(frozen=True, slots=True)
class Encrypted:
    """What Encrypt answers."""

    ciphertext: bytes
    key_id: str
    annotations: Mapping[str, bytes]


class KeyService:
    """Encrypts and decrypts under one key, and tells which version it writes under."""

    def __init__(self, ring: AnnouncedKeyring, allowed: Allowed, store_id: str) -> None:
        self._ring = ring
        self._allowed = allowed
        self._store_id = store_id
        self._cause: Cause | None = None

    async def causes(self) -> list[Cause]:
        """Return what stands in the way of serving."""
        return [] if (cause := self.status()[0]) is None else [cause]

    def status(self) -> tuple[Cause | None, str]:
        """Return what is wrong, None for nothing, and the key id that ``encrypt`` answers with; no I/O.

        With something wrong the key id stays that of the last time when nothing was.
        """
        cause: Cause | None = None
        try:
            self._allowed.require_readable(self._ring.tell().number)
        except KMSError as exc:
            cause = cause_of(exc)
        if cause != self._cause:
            if cause is None:
                log.info("healthy again")
            else:
                log.warning("not healthy: %s", cause.code)
            self._cause = cause
        told = self._ring.told
        return cause, "" if told is None else key_id_of(told)

    def encrypt(self, plaintext: bytes) -> Encrypted:
        """Encrypt at most 970 bytes.

        Raises:
            InvalidInputError: more than that.
            KMSError: as ``AnnouncedKeyring.seal``; ``KeyStateError`` for what ``decrypt`` would refuse.
        """
        if len(plaintext) > MAX_PLAINTEXT:
            raise InvalidInputError(f"a plaintext has at most {MAX_PLAINTEXT} bytes: it is a key, not the data itself")
        version, ciphertext = self._ring.seal(plaintext, CONTEXT)
        self._allowed.require_readable(version.number)  # what is encrypted now must be read again
        return Encrypted(ciphertext, key_id_of(version), annotations_of(self._store_id))

    async def decrypt(self, ciphertext: bytes, key_id: str, annotations: Mapping[str, bytes]) -> bytes:
        """Return the plaintext of what ``encrypt`` answered, of any version that the key still decrypts.

        Raises:
            DecryptionError: key id, annotations or ciphertext are not what was answered then.
            KeyStateError: the key is soft-deleted, or the version older than those that it decrypts.
            KMSError: as ``AnnouncedKeyring.open``.
        """
        if len(ciphertext) > MAX_CIPHERTEXT:
            raise DecryptionError(f"a ciphertext has at most {MAX_CIPHERTEXT} bytes")
        require_key_id(key_id, parse_header(ciphertext).key_id)
        require_annotations(annotations, self._store_id)
        version, plaintext = await self._ring.open(ciphertext, CONTEXT)
        if key_id != key_id_of(version):
            raise DecryptionError("the key id is not that of the ciphertext: they were not encrypted together")
        self._allowed.require_readable(version.number)
        return plaintext


@asynccontextmanager
async def opened_service(settings: LoadedSettings, name: str, clock: Clock) -> AsyncIterator[KeyService]:
    """Open the manager and the key, which is made if there is none; a store in a file is never made here.

    Raises:
        KMSError: as ``opened_manager``; the key cannot be loaded.
    """
    keyring_of(name)
    async with opened_manager(settings, clock, creates=False) as km:
        session = await km.session()
        engine = await transit(km)
        key = await engine.administration.create("", name, NewTransitKey())
        ring = AnnouncedKeyring(session, _ring_of(key))
        allowed = Allowed(engine.keys, key, clock)
        following = {
            asyncio.create_task(ring.follow(), name="keystead-announced"),
            asyncio.create_task(allowed.follow(), name="keystead-allowed"),
        }
        try:
            yield KeyService(ring, allowed, session.live.store_id)
        finally:
            for task in following:
                task.cancel()
            await asyncio.wait(following)


def _ring_of(key: OpenKey) -> Keyring:
    """Return the keyring of a Transit key that a cluster can be under.

    Raises:
        InvalidInputError: it is another kind of key.
    """
    if key.record.type is not TransitType.AES_256 or key.record.derived or key.record.imported:
        raise InvalidInputError(
            f"the Transit key {key.record.name!r} is no plain aes256-gcm96 key made here, as a cluster needs one"
        )
    return key.ring
