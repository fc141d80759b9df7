"""With a context, and without one."""

from __future__ import annotations

from keystead import KeyManager


async def sample(key_manager: KeyManager, secret: bytes) -> None:
    encrypted = await key_manager.encrypt(
        secret, context={"purpose": "jwt_signing_key", "environment": "production", "customer": "customer-123"}
    )
    assert encrypted.context["customer"] == "customer-123"

    encrypted = await key_manager.encrypt(secret)
    assert await key_manager.decrypt(encrypted, context={}) == secret
