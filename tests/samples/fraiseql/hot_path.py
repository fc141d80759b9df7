"""The hot path on its own."""

from __future__ import annotations

from keystead import KeyManager


async def sample(key_manager: KeyManager, plaintext_bytes: bytes) -> None:
    await key_manager.initialize()
    encrypted_bytes = key_manager.local_encrypt(plaintext_bytes)
    assert key_manager.local_decrypt(encrypted_bytes) == plaintext_bytes
