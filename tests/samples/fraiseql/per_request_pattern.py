"""Pattern 2: the KMS at every call, with a context."""

from __future__ import annotations

from keystead import KeyManager


async def sample(key_manager: KeyManager, plaintext: bytes) -> None:
    encrypted = await key_manager.encrypt(
        plaintext, key_id="high-security-key", context={"purpose": "api_key_encryption"}
    )

    assert await key_manager.decrypt(encrypted, context={"purpose": "api_key_encryption"}) == plaintext
    assert encrypted.key_reference.key_id == "high-security-key"
