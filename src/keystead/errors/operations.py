"""What an operation on keys, ciphertexts and services fails at; drawn in ``keystead.errors``."""

from __future__ import annotations

from collections.abc import Sequence

from keystead.errors.root import KMSError


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


class SubjectErasedError(KeyStateError):
    """Whom the value was about was forgotten, with the keys: it is gone for good."""

    code = "subject_erased"


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

    def __init__(self, message: str | None = None) -> None:
        told = (
            "this store was restored from a backup: it decrypts, and encrypts nothing, because versions made after the "
            "backup are gone; run `keystead store recover`"
        )
        super().__init__(message or told)


class ForbiddenError(KMSError):
    """The caller may not do this with what belongs to somebody else, or without a scope that allows it."""

    code = "forbidden"


class UnauthenticatedError(KMSError):
    """Nobody shows who calls, or what shows it is not good; which of these is not told."""

    code = "unauthenticated"

    def __init__(self, message: str = "no valid token was sent") -> None:
        super().__init__(message)


class IssuerUnavailableError(KMSError):
    """Whether a token of the identity provider is good could not be found out: its keys could not be read."""

    code = "issuer_unavailable"
    retryable = True


class RateLimitedError(KMSError):
    """Too many of these were asked for; ``retry_after_s`` is when the next is allowed."""

    code = "rate_limited"
    retryable = True

    def __init__(self, *given: object, retry_after_s: float = 0.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(*given)


class LockedError(RateLimitedError):
    """A secret was guessed wrong too often: nothing is tried on it for ``retry_after_s``, the right one neither."""

    code = "locked"


class ReplayedError(KMSError):
    """This very ciphertext has succeeded before; who knows the secret encrypts it anew."""

    code = "replayed"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "this ciphertext has been used; encrypt the secret anew")


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


class WorkersLostError(KMSError):
    """Nobody is left to do a job of many files: a scheduler or every worker is gone. What was done is noted."""

    code = "workers_lost"
    retryable = True


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


class ImportEndedError(KMSError):
    """The time is over in which values in another system's form are read; nothing reads them any more."""

    code = "import_ended"


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
