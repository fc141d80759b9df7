"""Passwords as an application keeps them: hashed with Argon2id, in the PHC text form."""

from __future__ import annotations

import asyncio
import secrets

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id


async def hash_password(password: str) -> str:
    """Return the PHC text of a password; costs 19 MiB, and some hundredths of a second in a thread."""
    kdf = Argon2id(salt=secrets.token_bytes(16), length=32, iterations=2, lanes=1, memory_cost=19 * 1024)
    return await asyncio.to_thread(kdf.derive_phc_encoded, password.encode())


async def is_password(password: str, phc: str) -> bool:
    """Return whether a PHC text is of that password."""
    try:
        await asyncio.to_thread(Argon2id.verify_phc_encoded, password.encode(), phc)
    except InvalidKey:
        return False
    return True
