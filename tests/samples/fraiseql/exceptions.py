"""The six documented errors, caught in the document's order."""

from __future__ import annotations

import logging

from keystead import (
    DecryptionError,
    EncryptionError,
    KeyManager,
    KeyNotFoundError,
    KeyRotationError,
    KMSError,
    ProviderConnectionError,
)

logger = logging.getLogger(__name__)


async def sample(key_manager: KeyManager, data: bytes) -> None:
    try:
        encrypted = await key_manager.encrypt(data)
    except KeyNotFoundError:
        logger.exception("no such key")
        raise
    except ProviderConnectionError:
        logger.exception("the KMS cannot be reached")
        raise
    except EncryptionError:
        logger.exception("encryption failed")
        raise
    assert await key_manager.decrypt(encrypted) == data
    for kind in (EncryptionError, DecryptionError, KeyNotFoundError, KeyRotationError, ProviderConnectionError):
        assert issubclass(kind, KMSError)
