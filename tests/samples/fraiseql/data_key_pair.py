"""A data key of the caller's own: use it, keep its wrapped half, get it back."""

from __future__ import annotations

from keystead import DataKeyPair, KeyManager
from tests.samples.surroundings import Database


async def sample(key_manager: KeyManager, db: Database, data: bytes) -> None:
    key_pair = await key_manager.generate_data_key(key_id="master-key", key_spec="AES_256")

    encrypted = key_pair.encrypt(data)
    db.save(encrypted_key=key_pair.encrypted_key)

    decrypted_key = await key_manager.decrypt(key_pair.encrypted_key)
    assert decrypted_key == key_pair.plaintext_key
    again = DataKeyPair(
        plaintext_key=decrypted_key,  # type: ignore[arg-type]
        encrypted_key=key_pair.encrypted_key,
        key_reference=key_pair.key_reference,
    )
    assert again.decrypt(encrypted) == data
