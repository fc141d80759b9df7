"""Keyrings of the store's own, whose names begin with ``keystead.``."""

from __future__ import annotations

from keystead.crypto.keyring import Keyring
from keystead.manager.manager import KeyManager
from keystead.model import KeyringPurpose


async def own_ring(km: KeyManager, name: str, purpose: KeyringPurpose, algorithm: str) -> Keyring:
    """Return a keyring, loaded, and made if there is none."""
    session = await km.session()
    return await session.live.load(name, create=session.surroundings.new_keyring(name, purpose, algorithm))
