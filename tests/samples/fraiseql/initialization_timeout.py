"""More time for the store and the KMS; one provider needs no default."""

from __future__ import annotations

from keystead import KeyManager
from keystead.ports import KmsProvider


async def sample(providers: dict[str, KmsProvider]) -> None:
    key_manager = KeyManager(providers=providers, initialization_timeout=10)
    assert not key_manager.is_initialized
    await key_manager.close()
