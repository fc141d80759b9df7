"""The one error tree.

Programs act on the class or on ``code``; texts may change between releases. ``retryable`` says whether the same
call may succeed later without anybody changing anything, ``cure`` what to do. ``[2]`` marks a name of the Go KMS
(kratos-boilerplate).

::

    KMSError                                kms_error                    no
    ├── ConfigurationError                  configuration                no
    │   ├── MissingDependencyError          missing_dependency           no    also ImportError
    │   ├── KekMismatchError                kek_mismatch                 no
    │   ├── AlreadyInitializedError     [2] already_initialized          no
    │   ├── InvalidSeedError            [2] invalid_seed                 no
    │   ├── InvalidSaltError            [2] invalid_salt                 no
    │   ├── InvalidIterationsError      [2] invalid_iterations           no
    │   ├── InvalidKeyLengthError       [2] invalid_key_length           no
    │   └── InvalidAlgorithmError       [2] invalid_algorithm            no
    ├── InvalidInputError                   invalid_input                no    also ValueError
    │   └── InvalidKeyVersionError      [2] invalid_key_version          no
    ├── NotInitializedError             [2] not_initialized              no
    │   └── KeyringNotLoadedError           keyring_not_loaded           no
    ├── SystemShutdownError             [2] system_shutdown              no
    ├── KeyNotFoundError                [2] key_not_found                no
    ├── KeyStateError                       key_state                    no
    │   ├── NoActiveKeyError            [2] no_active_key                yes
    │   ├── KeyExpiredError             [2] key_expired                  yes
    │   ├── KeyInUseError                   key_in_use                   no
    │   ├── SubjectErasedError              subject_erased               no
    │   └── StoreRestoredError              store_restored               no
    ├── UnauthenticatedError                unauthenticated              no
    ├── ForbiddenError                      forbidden                    no
    │   └── ApprovalRequiredError           approval_required            no
    ├── IssuerUnavailableError              issuer_unavailable           yes
    ├── RateLimitedError                    rate_limited                 yes
    │   └── LockedError                     locked                       yes
    ├── ReplayedError                       replayed                     no
    ├── EncryptionError                     encryption                   no
    │   └── KeyEncryptionFailError      [2] key_encryption_fail          no
    ├── SigningError                        signing                      no
    ├── InvalidSignatureError               invalid_signature            no
    ├── InvalidProofError                   invalid_proof                no
    ├── CouldNotVerifyError                 could_not_verify             yes
    ├── KeyNotExportableError               key_not_exportable           no    also NotImplementedError
    ├── PartialBatchError                   partial_batch                no
    ├── WorkersLostError                    workers_lost                 yes
    ├── DecryptionError                     decryption                   no
    │   ├── InvalidCiphertextError      [2] invalid_ciphertext           no
    │   ├── KeyDecryptionFailError      [2] key_decryption_fail          no
    │   ├── DataKeyNotLoadedError           data_key_not_loaded          yes
    │   └── ProviderNotConfiguredError      provider_not_configured      no
    ├── ImportEndedError                    import_ended                 no
    ├── KeyRotationError                    key_rotation                 yes
    │   ├── KeyGenerationFailError      [2] key_generation_fail          yes
    │   └── RotationNotSupportedError       rotation_not_supported       no
    ├── ProviderConnectionError             provider_connection          yes
    │   └── ProviderAuthError               provider_auth                no
    └── StorageOperationError           [2] storage_operation            no
        ├── StoreUnavailableError           store_unavailable            yes
        │   └── StaleViewError              stale_view                   yes
        ├── StoreNotFoundError              store_not_found              no
        ├── StoreReadOnlyError              store_read_only              no
        ├── StoreFullError                  store_full                   yes
        ├── SchemaVersionError              schema_version               no
        ├── ForeignSchemaError              foreign_schema               no
        ├── ErasureLogError                 erasure_log                  no
        ├── ConflictError                   conflict                     yes
        └── CleanupFailedError          [2] cleanup_failed               yes

No message holds key bytes, plaintext, a context's values, a URL with credentials or the text of an SDK's response.
"""

from __future__ import annotations

from keystead.errors.configuration import (
    AlreadyInitializedError,
    ConfigurationError,
    HardcodedCredentialWarning,
    InvalidAlgorithmError,
    InvalidInputError,
    InvalidIterationsError,
    InvalidKeyLengthError,
    InvalidKeyVersionError,
    InvalidSaltError,
    InvalidSeedError,
    KekMismatchError,
    MissingDependencyError,
)
from keystead.errors.operations import (
    ApprovalRequiredError,
    CouldNotVerifyError,
    DataKeyNotLoadedError,
    DecryptionError,
    EncryptionError,
    ForbiddenError,
    ImportEndedError,
    InvalidCiphertextError,
    InvalidProofError,
    InvalidSignatureError,
    IssuerUnavailableError,
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
    LockedError,
    NoActiveKeyError,
    NotInitializedError,
    PartialBatchError,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderNotConfiguredError,
    RateLimitedError,
    ReplayedError,
    RotationNotSupportedError,
    SigningError,
    StoreRestoredError,
    SubjectErasedError,
    SystemShutdownError,
    UnauthenticatedError,
    WorkersLostError,
)
from keystead.errors.root import (
    KMSError,
)
from keystead.errors.storage import (
    CleanupFailedError,
    ConflictError,
    ErasureLogError,
    ForeignSchemaError,
    SchemaVersionError,
    StaleViewError,
    StorageOperationError,
    StoreFullError,
    StoreNotFoundError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

__all__ = [
    "AlreadyInitializedError",
    "ApprovalRequiredError",
    "CleanupFailedError",
    "ConfigurationError",
    "ConflictError",
    "CouldNotVerifyError",
    "DataKeyNotLoadedError",
    "DecryptionError",
    "EncryptionError",
    "ErasureLogError",
    "ForbiddenError",
    "ForeignSchemaError",
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
    "KekMismatchError",
    "KeyDecryptionFailError",
    "KeyEncryptionFailError",
    "KeyExpiredError",
    "KeyGenerationFailError",
    "KeyInUseError",
    "KeyNotExportableError",
    "KeyNotFoundError",
    "KeyRotationError",
    "KeyStateError",
    "KeyringNotLoadedError",
    "LockedError",
    "MissingDependencyError",
    "NoActiveKeyError",
    "NotInitializedError",
    "PartialBatchError",
    "ProviderAuthError",
    "ProviderConnectionError",
    "ProviderNotConfiguredError",
    "RateLimitedError",
    "ReplayedError",
    "RotationNotSupportedError",
    "SchemaVersionError",
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
    "WorkersLostError",
]

for _name in __all__:
    # Where they are imported from is what tracebacks and pickles are to name.
    globals()[_name].__module__ = __name__
