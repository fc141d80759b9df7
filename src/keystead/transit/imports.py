"""The key pair that key material is wrapped by on its way in: one of the store, made when it is first asked for."""

from __future__ import annotations

from keystead.crypto.keyring import Keyring
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.model import TRANSIT_WRAPPING_KEYRING, KeyringPurpose
from keystead.transit.importing import WRAPPING_ALGORITHM, wrapping_key_text


class Imports:
    """See the module."""

    def __init__(self, live: LiveKeyrings) -> None:
        self._live = live
        self._ring: Keyring | None = None

    async def wrapping_ring(self) -> Keyring:
        """Return the keyring of the pair; making it takes seconds, once for a store."""
        if self._ring is None:
            wanted = self._live.surroundings.new_keyring(
                TRANSIT_WRAPPING_KEYRING, KeyringPurpose.SIGN, WRAPPING_ALGORITHM
            )
            self._ring = await self._live.load(TRANSIT_WRAPPING_KEYRING, create=wanted)
        return self._ring

    async def wrapping_key(self) -> str:
        """Return the public half, in PEM."""
        return wrapping_key_text(await self.wrapping_ring())
