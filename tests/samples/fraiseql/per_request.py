"""Every argument of a per-request encryption, and a decryption that knows its key by itself."""

from __future__ import annotations

from keystead import KeyManager
from tests.samples.surroundings import Database


async def sample(key_manager: KeyManager, db: Database, secret_string: str) -> None:
    encrypted_data = await key_manager.encrypt(
        plaintext=secret_string.encode(),
        key_id="api-key-encryption-key",
        provider="vault",
        context={"purpose": "api_key_storage", "environment": "production"},
    )
    db.save(encrypted_data.to_dict())

    plaintext = await key_manager.decrypt(encrypted_data)
    assert plaintext == secret_string.encode()
    assert await key_manager.decrypt(db.saved[-1]) == plaintext
