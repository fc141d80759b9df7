"""What encrypted data tells about itself when it does not decrypt."""

from __future__ import annotations

import pytest

from keystead import DecryptionError, KeyManager


async def sample(key_manager: KeyManager, secret: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    encrypted_data = await key_manager.encrypt(secret, context={"purpose": "one"})
    try:
        await key_manager.decrypt(encrypted_data, context={"purpose": "another"})
    except DecryptionError:
        print(f"provider: {encrypted_data.key_reference.provider}")
        print(f"algorithm: {encrypted_data.algorithm}")
        print(f"context: {encrypted_data.context['purpose']}")
    assert capsys.readouterr().out == "provider: vault\nalgorithm: aes256-gcm96\ncontext: one\n"
