"""Keyrings of the store's own, whose names begin with ``keystead.``."""

from __future__ import annotations

from keystead.crypto.keyring import Keyring
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.model import KeyringPurpose


async def own_ring(live: LiveKeyrings, name: str, purpose: KeyringPurpose, algorithm: str) -> Keyring:
    """Return a keyring, loaded, and made if there is none."""
    return await live.load(name, create=live.surroundings.new_keyring(name, purpose, algorithm))
