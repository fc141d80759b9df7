"""Initialise, and ask whether that was done."""

from __future__ import annotations

from keystead import KeyManager


async def sample(key_manager: KeyManager) -> None:
    assert not key_manager.is_initialized
    await key_manager.initialize()

    if key_manager.is_initialized:
        print("ready")
    assert key_manager.is_initialized
