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
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from keystead.crypto.envelope import inspect
    from keystead.crypto.root_key import RootKeyGenerator
    from keystead.erasure.receipts import ErasureReceipt
    from keystead.errors import (
        AlreadyInitializedError,
        ApprovalRequiredError,
        CleanupFailedError,
        ConfigurationError,
        ConflictError,
        CouldNotVerifyError,
        DataKeyNotLoadedError,
        DecryptionError,
        EncryptionError,
        ErasureLogError,
        ForbiddenError,
        ForeignSchemaError,
        HardcodedCredentialWarning,
        ImportEndedError,
        InvalidAlgorithmError,
        InvalidCiphertextError,
        InvalidInputError,
        InvalidIterationsError,
        InvalidKeyLengthError,
        InvalidKeyVersionError,
        InvalidProofError,
        InvalidSaltError,
        InvalidSeedError,
        InvalidSignatureError,
        IssuerUnavailableError,
        KekMismatchError,
        KeyDecryptionFailError,
        KeyEncryptionFailError,
        KeyExpiredError,
        KeyGenerationFailError,
        KeyInUseError,
        KeyNotExportableError,
        KeyNotFoundError,
        KeyringNotLoadedError,
        KeyRotationError,
        KeyStateError,
        KMSError,
        LockedError,
        MissingDependencyError,
        NoActiveKeyError,
        NotInitializedError,
        PartialBatchError,
        ProviderAuthError,
        ProviderConnectionError,
        ProviderNotConfiguredError,
        RateLimitedError,
        ReplayedError,
        RotationNotSupportedError,
        SchemaVersionError,
        SigningError,
        StaleViewError,
        StorageOperationError,
        StoreFullError,
        StoreNotFoundError,
        StoreReadOnlyError,
        StoreRestoredError,
        StoreUnavailableError,
        SubjectErasedError,
        SystemShutdownError,
        UnauthenticatedError,
        WorkersLostError,
    )
    from keystead.fields.field import Field
    from keystead.ledger.audit.actor import audit_actor
    from keystead.ledger.audit.options import AuditOptions
    from keystead.manager.crypto_service import CryptoService
    from keystead.manager.findings import DoctorReport, Finding
    from keystead.manager.handle import KeyringHandle
    from keystead.manager.manager import KeyManager
    from keystead.model import (
        DataKeyInfo,
        DataKeyPair,
        DataKeyState,
        EncryptedData,
        EncryptedField,
        KeyDescription,
        KeyPurpose,
        KeyReference,
        KeyState,
        KeyStatistics,
        KMSStatus,
        PublicKey,
        RotationPolicy,
        SecretBytes,
        Signature,
        SignatureAlgorithm,
    )
    from keystead.providers.aws.provider import AWSKMSConfig, AWSKMSProvider
    from keystead.providers.azure.provider import AzureKMSConfig, AzureKMSProvider
    from keystead.providers.gcp.config import GCPKMSConfig
    from keystead.providers.gcp.provider import GCPKMSProvider
    from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
    from keystead.providers.multi.provider import MultiKMSProvider
    from keystead.providers.pkcs11.provider import Pkcs11KMSConfig, Pkcs11KMSProvider
    from keystead.providers.vault.config import VaultConfig
    from keystead.providers.vault.provider import VaultKMSProvider

__version__ = "0.1.0.dev0"

__all__ = [
    "AWSKMSConfig",
    "AWSKMSProvider",
    "AlreadyInitializedError",
    "ApprovalRequiredError",
    "AuditOptions",
    "AzureKMSConfig",
    "AzureKMSProvider",
    "CleanupFailedError",
    "ConfigurationError",
    "ConflictError",
    "CouldNotVerifyError",
    "CryptoService",
    "DataKeyInfo",
    "DataKeyNotLoadedError",
    "DataKeyPair",
    "DataKeyState",
    "DecryptionError",
    "DoctorReport",
    "EncryptedData",
    "EncryptedField",
    "EncryptionError",
    "ErasureLogError",
    "ErasureReceipt",
    "Field",
    "Finding",
    "ForbiddenError",
    "ForeignSchemaError",
    "GCPKMSConfig",
    "GCPKMSProvider",
    "HardcodedCredentialWarning",
    "ImportEndedError",
    "InvalidAlgorithmError",
    "InvalidCiphertextError",
    "InvalidInputError",
    "InvalidIterationsError",
    "InvalidKeyLengthError",
    "InvalidKeyVersionError",
    "InvalidProofError",
    "InvalidSaltError",
    "InvalidSeedError",
    "InvalidSignatureError",
    "IssuerUnavailableError",
    "KMSError",
    "KMSStatus",
    "KekMismatchError",
    "KeyDecryptionFailError",
    "KeyDescription",
    "KeyEncryptionFailError",
    "KeyExpiredError",
    "KeyGenerationFailError",
    "KeyInUseError",
    "KeyManager",
    "KeyNotExportableError",
    "KeyNotFoundError",
    "KeyPurpose",
    "KeyReference",
    "KeyRotationError",
    "KeyState",
    "KeyStateError",
    "KeyStatistics",
    "KeyringHandle",
    "KeyringNotLoadedError",
    "LocalKMSConfig",
    "LocalKMSProvider",
    "LockedError",
    "MissingDependencyError",
    "MultiKMSProvider",
    "NoActiveKeyError",
    "NotInitializedError",
    "PartialBatchError",
    "Pkcs11KMSConfig",
    "Pkcs11KMSProvider",
    "ProviderAuthError",
    "ProviderConnectionError",
    "ProviderNotConfiguredError",
    "PublicKey",
    "RateLimitedError",
    "ReplayedError",
    "RootKeyGenerator",
    "RotationNotSupportedError",
    "RotationPolicy",
    "SchemaVersionError",
    "SecretBytes",
    "Signature",
    "SignatureAlgorithm",
    "SigningError",
    "StaleViewError",
    "StorageOperationError",
    "StoreFullError",
    "StoreNotFoundError",
    "StoreReadOnlyError",
    "StoreRestoredError",
    "StoreUnavailableError",
    "SubjectErasedError",
    "SystemShutdownError",
    "UnauthenticatedError",
    "VaultConfig",
    "VaultKMSProvider",
    "WorkersLostError",
    "__version__",
    "audit_actor",
    "inspect",
]

_HOMES: Final = {
    "AWSKMSConfig": "keystead.providers.aws.provider",
    "AWSKMSProvider": "keystead.providers.aws.provider",
    "AuditOptions": "keystead.ledger.audit.options",
    "AzureKMSConfig": "keystead.providers.azure.provider",
    "AzureKMSProvider": "keystead.providers.azure.provider",
    "KeyManager": "keystead.manager.manager",
    "KeyringHandle": "keystead.manager.handle",
    "CryptoService": "keystead.manager.crypto_service",
    "GCPKMSConfig": "keystead.providers.gcp.config",
    "GCPKMSProvider": "keystead.providers.gcp.provider",
    "ErasureReceipt": "keystead.erasure.receipts",
    "DoctorReport": "keystead.manager.findings",
    "Finding": "keystead.manager.findings",
    "LocalKMSConfig": "keystead.providers.local.provider",
    "MultiKMSProvider": "keystead.providers.multi.provider",
    "LocalKMSProvider": "keystead.providers.local.provider",
    "Pkcs11KMSConfig": "keystead.providers.pkcs11.provider",
    "Pkcs11KMSProvider": "keystead.providers.pkcs11.provider",
    "RootKeyGenerator": "keystead.crypto.root_key",
    "VaultConfig": "keystead.providers.vault.config",
    "VaultKMSProvider": "keystead.providers.vault.provider",
    "Field": "keystead.fields.field",
    "HardcodedCredentialWarning": "keystead.errors",
    "audit_actor": "keystead.ledger.audit.actor",
    "inspect": "keystead.crypto.envelope",
}
"""Where a name lives that is neither an error nor a model."""


if not TYPE_CHECKING:  # a type checker reads the imports above, and sees a misspelt name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'keystead' has no attribute {name!r}")
        home = _HOMES.get(name, "keystead.errors" if name.endswith("Error") else "keystead.model")
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
