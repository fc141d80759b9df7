"""An error that is logged says nothing of the secret."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from keystead import DecryptionError, KeyManager

logger = logging.getLogger(__name__)


async def sample(key_manager: KeyManager, secret: bytes, caplog: pytest.LogCaptureFixture) -> None:
    sound = await key_manager.encrypt(secret)
    encrypted_data = dataclasses.replace(sound, ciphertext=sound.ciphertext[:-1] + b"\x00")
    try:
        await key_manager.decrypt(encrypted_data)
    except DecryptionError as e:
        logger.error("decryption failed: %s", e)  # noqa: TRY400 -- as the sample logs
    assert "decryption failed" in caplog.text
    assert secret.decode() not in caplog.text
