"""The API tokens of a manager's store, for the command line and the service."""

from __future__ import annotations

from keystead.access.tokens import KEYRING, Tokens
from keystead.manager.manager import KeyManager
from keystead.model import KeyringPurpose


async def tokens(km: KeyManager) -> Tokens:
    """Return the tokens, their keyring loaded, and made if there is none."""
    session = await km.session()
    s = session.surroundings
    wanted = s.new_keyring(KEYRING, KeyringPurpose.MAC, "HMAC-SHA256")
    ring = await session.live.load(KEYRING, create=wanted)
    return Tokens(s.store, ring, session.live, audit=s.audit, clock=s.clock, random=s.random)
