"""Keystead: application-level encryption and key management for Python.

Envelope encryption over any KMS at microsecond speed, with data keys that live versioned in your own database and
rotate without losing a byte::

    async with KeyManager.open("local:", store="sqlite:///keys.db") as km:
        ciphertext = km.local_encrypt(b"ada@example.org", context={"row": "42"})
        await km.rotate_data_key()
        assert km.local_decrypt(ciphertext, context={"row": "42"}) == b"ada@example.org"

Every name is loaded at first use: importing the package loads neither SQLAlchemy nor any SDK.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

__version__ = "0.1.0"

_ERRORS: Final = (
    "AlreadyInitializedError",
    "CleanupFailedError",
    "ConfigurationError",
    "ConflictError",
    "DataKeyNotLoadedError",
    "DecryptionError",
    "EncryptionError",
    "ForeignSchemaError",
    "InvalidAlgorithmError",
    "InvalidCiphertextError",
    "InvalidInputError",
    "InvalidIterationsError",
    "InvalidKeyLengthError",
    "InvalidKeyVersionError",
    "InvalidSaltError",
    "InvalidSeedError",
    "KMSError",
    "KeyDecryptionFailError",
    "KeyEncryptionFailError",
    "KeyExpiredError",
    "KeyGenerationFailError",
    "KeyInUseError",
    "KeyNotFoundError",
    "KeyRotationError",
    "KeyStateError",
    "MissingDependencyError",
    "NoActiveKeyError",
    "NotInitializedError",
    "ProviderAuthError",
    "ProviderConnectionError",
    "ProviderNotConfiguredError",
    "SchemaVersionError",
    "StorageOperationError",
    "StoreFullError",
    "StoreReadOnlyError",
    "StoreRestoredError",
    "StoreUnavailableError",
    "SystemShutdownError",
)
_MODELS: Final = (
    "DataKeyInfo",
    "DataKeyPair",
    "DataKeyState",
    "EncryptedData",
    "EncryptedField",
    "KMSStatus",
    "KeyDescription",
    "KeyPurpose",
    "KeyReference",
    "KeyState",
    "KeyStatistics",
    "RotationPolicy",
    "SecretBytes",
)
_HOMES: Final = {
    **dict.fromkeys(_ERRORS, "keystead.errors"),
    **dict.fromkeys(_MODELS, "keystead.model"),
    "KeyManager": "keystead.manager.manager",
    "KeyringHandle": "keystead.manager.handle",
    "CryptoService": "keystead.manager.crypto_service",
    "LocalKMSConfig": "keystead.providers.local",
    "LocalKMSProvider": "keystead.providers.local",
    "RootKeyGenerator": "keystead.crypto.root_key",
    "inspect": "keystead.crypto.envelope",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'keystead' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
