"""The local provider for development, from 32 bytes."""

from __future__ import annotations

from keystead import KeyManager, LocalKMSConfig, LocalKMSProvider


async def sample() -> None:
    config = LocalKMSConfig(
        master_key=b"development-master-key-32-bytes!",
    )
    provider = LocalKMSProvider(config)

    key_manager = KeyManager(providers={"local": provider}, default_provider="local")
    assert await key_manager.decrypt(await key_manager.encrypt(b"x")) == b"x"
    await key_manager.close()
