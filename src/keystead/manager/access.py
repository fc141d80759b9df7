"""The API tokens of a manager's store, for the command line and the service."""

from __future__ import annotations

from keystead.access.tokens import KEYRING, Tokens
from keystead.manager.manager import KeyManager
from keystead.manager.own_keyrings import own_ring
from keystead.model import KeyringPurpose


async def tokens(km: KeyManager) -> Tokens:
    """Return the tokens, their keyring loaded, and made if there is none."""
    session = await km.session()
    s = session.surroundings
    ring = await own_ring(km, KEYRING, KeyringPurpose.MAC, "HMAC-SHA256")
    return Tokens(s.store, ring, session.live, audit=s.audit, clock=s.clock, random=s.random)
