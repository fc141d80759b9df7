"""The one error tree.

Programs act on the class or on ``code``; texts may change between releases. ``retryable`` says whether the same
call may succeed later without anybody changing anything. ``[2]`` marks a name of the Go KMS (kratos-boilerplate).

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
    │   └── StoreRestoredError              store_restored               no
    ├── EncryptionError                     encryption                   no
    │   └── KeyEncryptionFailError      [2] key_encryption_fail          no
    ├── SigningError                        signing                      no
    ├── InvalidSignatureError               invalid_signature            no
    ├── InvalidProofError                   invalid_proof                no
    ├── CouldNotVerifyError                 could_not_verify             yes
    ├── KeyNotExportableError               key_not_exportable           no    also NotImplementedError
    ├── PartialBatchError                   partial_batch                no
    ├── DecryptionError                     decryption                   no
    │   ├── InvalidCiphertextError      [2] invalid_ciphertext           no
    │   ├── KeyDecryptionFailError      [2] key_decryption_fail          no
    │   ├── DataKeyNotLoadedError           data_key_not_loaded          yes
    │   └── ProviderNotConfiguredError      provider_not_configured      no
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
        ├── ConflictError                   conflict                     yes
        └── CleanupFailedError          [2] cleanup_failed               yes

No message holds key bytes, plaintext, a context's values, a URL with credentials or the text of an SDK's response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class KMSError(Exception):
    """Root of everything Keystead raises."""

    code: ClassVar[str] = "kms_error"
    retryable: ClassVar[bool] = False


class ConfigurationError(KMSError):
    """A setting, URL or combination of options cannot work; the message names the cure."""

    code = "configuration"


class MissingDependencyError(ConfigurationError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    code = "missing_dependency"


class KekMismatchError(ConfigurationError):
    """A log was sealed under another KEK than the one it is opened with; the message names both, and how to go on."""

    code = "kek_mismatch"


class AlreadyInitializedError(ConfigurationError):
    """``initialize()`` was called again with another configuration."""

    code = "already_initialized"


class InvalidSeedError(ConfigurationError):
    """The root key's seed is missing, or one that must never be used."""

    code = "invalid_seed"


class InvalidSaltError(ConfigurationError):
    """The root key's salt is missing, or one that must never be used."""

    code = "invalid_salt"


class InvalidIterationsError(ConfigurationError):
    """Fewer than 10 000 PBKDF2 iterations."""

    code = "invalid_iterations"


class InvalidKeyLengthError(ConfigurationError):
    """A root key length other than 16, 24 or 32 bytes."""

    code = "invalid_key_length"


class InvalidAlgorithmError(ConfigurationError):
    """An algorithm name that Keystead does not know, or that the mode in force forbids."""

    code = "invalid_algorithm"


class InvalidInputError(KMSError, ValueError):
    """An argument of the wrong type, size or form. Nothing was changed."""

    code = "invalid_input"


class InvalidKeyVersionError(InvalidInputError):
    """A version that is neither a positive integer nor a legacy version text."""

    code = "invalid_key_version"


class NotInitializedError(KMSError):
    """The call needs a data key, and ``initialize()`` has not run."""

    code = "not_initialized"


class KeyringNotLoadedError(NotInitializedError):
    """A field's keyring is not loaded in this process, and the call does no I/O; the message names one that does."""

    code = "keyring_not_loaded"


class SystemShutdownError(KMSError):
    """The manager was closed."""

    code = "system_shutdown"


class KeyNotFoundError(KMSError):
    """No key, keyring or version of that name exists."""

    code = "key_not_found"


class KeyStateError(KMSError):
    """The key exists, and its state does not allow the operation."""

    code = "key_state"


class NoActiveKeyError(KeyStateError):
    """The keyring has no active version to encrypt under."""

    code = "no_active_key"
    retryable = True


class KeyExpiredError(KeyStateError):
    """The active version is past its expiry and could not be replaced."""

    code = "key_expired"
    retryable = True


class KeyInUseError(KeyStateError):
    """A data source still holds ciphertexts of the version that was to be destroyed."""

    code = "key_in_use"


class StoreRestoredError(KeyStateError):
    """The store is older than a state already seen: it decrypts, and encrypts again after ``recover``."""

    code = "store_restored"


class EncryptionError(KMSError):
    """Encryption failed; no ciphertext was made."""

    code = "encryption"


class KeyEncryptionFailError(EncryptionError):
    """A data key could not be wrapped."""

    code = "key_encryption_fail"


class SigningError(KMSError):
    """A signature or MAC could not be made."""

    code = "signing"


class InvalidSignatureError(KMSError):
    """The signature or MAC is not of these bytes under this key. That it could not be checked is another error."""

    code = "invalid_signature"


class InvalidProofError(KMSError):
    """The proof does not show that a record is in a log, or that a log only grew."""

    code = "invalid_proof"


class CouldNotVerifyError(KMSError):
    """Whether a log is as it was written could not be found out: a KMS or a file could not be reached."""

    code = "could_not_verify"
    retryable = True


class KeyNotExportableError(KMSError, NotImplementedError):
    """The key never leaves its KMS, which signs and verifies itself; ask for a signature instead of the key."""

    code = "key_not_exportable"


class PartialBatchError(KMSError):
    """Some items of a batch failed.

    ``results`` has for each item, in order, what it became: a result, or the error that is its own.
    """

    code = "partial_batch"

    def __init__(self, message: str, results: Sequence[object] = ()) -> None:
        self.results = tuple(results)
        super().__init__(message)


class DecryptionError(KMSError):
    """Wrong key, wrong context or altered bytes: the three are not told apart."""

    code = "decryption"


class InvalidCiphertextError(DecryptionError):
    """The bytes are not a ciphertext of a format Keystead reads."""

    code = "invalid_ciphertext"


class KeyDecryptionFailError(DecryptionError):
    """A wrapped key could not be unwrapped: another KEK, or an altered row."""

    code = "key_decryption_fail"


class DataKeyNotLoadedError(DecryptionError):
    """The ciphertext names a data key this process has not loaded; ``await km.decrypt_local(blob)`` fetches it.

    ``data_key_id`` is the id the ciphertext names.
    """

    code = "data_key_not_loaded"
    retryable = True

    def __init__(self, data_key_id: int, message: str | None = None) -> None:
        self.data_key_id = data_key_id
        told = f"data key {data_key_id} is not loaded in this process: `await km.decrypt_local(blob)` fetches it"
        super().__init__(message or told)

    def __reduce__(self) -> tuple[type[DataKeyNotLoadedError], tuple[int, str]]:
        return type(self), (self.data_key_id, str(self))


class ProviderNotConfiguredError(DecryptionError):
    """The record names a provider instance this manager does not have."""

    code = "provider_not_configured"


class KeyRotationError(KMSError):
    """Rotation failed; the version that was active still is."""

    code = "key_rotation"
    retryable = True


class KeyGenerationFailError(KeyRotationError):
    """A new data key could not be made."""

    code = "key_generation_fail"


class RotationNotSupportedError(KeyRotationError):
    """The KEK has no further version to give, whatever is tried again; the message names the other way."""

    code = "rotation_not_supported"
    retryable = False


class ProviderConnectionError(KMSError):
    """The KMS could not be reached, throttled the call, or did not answer in time.

    ``retry_after_s`` is how long the service asked to be left alone, where it said so.
    """

    code = "provider_connection"
    retryable = True

    def __init__(self, *given: object, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(*given)


class ProviderAuthError(ProviderConnectionError):
    """The KMS answered, and denied: credentials or permissions are wrong."""

    code = "provider_auth"
    retryable = False


class StorageOperationError(KMSError):
    """The store refused or failed an operation."""

    code = "storage_operation"


class StoreUnavailableError(StorageOperationError):
    """The store cannot be reached, or is locked for too long."""

    code = "store_unavailable"
    retryable = True


class StaleViewError(StoreUnavailableError):
    """This process has not polled the store for too long to know which index keys must be written."""

    code = "stale_view"


class StoreNotFoundError(StorageOperationError):
    """No store is in the SQLite file that was named, and none was to be made there; the message names the file."""

    code = "store_not_found"


class StoreReadOnlyError(StorageOperationError):
    """The store can be read and not written."""

    code = "store_read_only"


class StoreFullError(StorageOperationError):
    """The disk under the store is full; nothing of the transaction was kept."""

    code = "store_full"
    retryable = True


class SchemaVersionError(StorageOperationError):
    """The store's schema is older or newer than this release reads; the message says which and the cure."""

    code = "schema_version"


class ForeignSchemaError(StorageOperationError):
    """Tables of our names exist at the store's URL, and they are not ours."""

    code = "foreign_schema"


class ConflictError(StorageOperationError):
    """Another process changed the same row first; reread and decide again."""

    code = "conflict"
    retryable = True


class CleanupFailedError(StorageOperationError):
    """A maintenance step failed; the others ran."""

    code = "cleanup_failed"
    retryable = True


class HardcodedCredentialWarning(UserWarning):
    """A credential is written into the configuration; the message says where it would be safe."""
