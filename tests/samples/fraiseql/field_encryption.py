"""A text field, there and back."""

from __future__ import annotations

from keystead import KeyManager


async def sample(key_manager: KeyManager) -> None:
    encrypted = await key_manager.encrypt_field(value="my-password", key_id="default-key", field_type="text")
    assert await key_manager.decrypt_field(encrypted, field_type="text") == "my-password"

    for value, kind in ((b"\x00", "bytes"), ({"a": 1}, "json")):
        sealed = await key_manager.encrypt_field(value=value, key_id="default-key", field_type=kind)
        assert await key_manager.decrypt_field(sealed, field_type=kind) == value
