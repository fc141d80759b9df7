"""Codes of rows under the keyring ``keystead.tokens``: who writes the database makes no row more than it is."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from keystead.crypto.keyring import Keyring
from keystead.errors import DataKeyNotLoadedError, DecryptionError, KeyStateError

log = logging.getLogger("keystead.access")


class LoadsKeys(Protocol):
    """What loads data keys that other processes made."""

    async def load_keys(self, key_ids: Collection[int]) -> Mapping[int, Keyring]:
        """Return the keyrings that data keys are of, loaded; ids that no row has are left out."""


class HasCode(Protocol):
    """A row with a code."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def key_id(self) -> int:
        """The data key that its code is under."""

    @property
    def code(self) -> bytes:
        """The code."""


class Codes:
    """Checks the codes of rows.

    Args:
        ring: the keyring ``keystead.tokens``.
    """

    def __init__(self, ring: Keyring, keys: LoadsKeys) -> None:
        self._ring = ring
        self._keys = keys

    def active(self) -> tuple[int, bytes]:
        """Return the id and the bytes of the key that new codes are under.

        Raises:
            StoreRestoredError: the store must be recovered first.
        """
        key = self._ring.get_active()
        return key.id, bytes(key.key)

    async def key(self, row: HasCode) -> bytes | None:
        """Return the key that a row's code is under; None if it is not to be had, which the log is told."""
        if row.key_id not in self._ring.snapshot.keys:
            await self._keys.load_keys([row.key_id])
        try:
            return bytes(self._ring.get(row.key_id).key)
        except (DataKeyNotLoadedError, DecryptionError, KeyStateError):
            log.warning("the key of a row's code is not to be had, and so the row is refused", extra={"row": row.id})
            return None

    async def fit(self, row: HasCode, code_of: Callable[[bytes], bytes]) -> bool:
        """Whether a row has the code that it should have, by its key."""
        key = await self.key(row)
        return key is not None and hmac.compare_digest(code_of(key), row.code)
