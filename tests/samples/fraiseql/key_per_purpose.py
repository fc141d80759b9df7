"""A key for each purpose: the local provider has one for every key id."""

from __future__ import annotations

from keystead import KeyManager


async def sample(key_manager: KeyManager, api_key: bytes, password: bytes) -> None:
    first = await key_manager.encrypt(api_key, key_id="api-key-encryption-key")
    second = await key_manager.encrypt(password, key_id="password-hashing-key")
    third = await key_manager.encrypt(password, key_id="universal-key")

    assert {one.key_reference.key_id for one in (first, second, third)} == {
        "api-key-encryption-key",
        "password-hashing-key",
        "universal-key",
    }
    assert await key_manager.decrypt(first) == api_key
    assert await key_manager.decrypt(second) == await key_manager.decrypt(third) == password
