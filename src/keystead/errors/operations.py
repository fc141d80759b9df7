"""What an operation on keys, ciphertexts and services fails at; drawn in ``keystead.errors``."""

from __future__ import annotations

from collections.abc import Sequence

from keystead.errors.root import KMSError


class NotInitializedError(KMSError):
    """The call needs a data key, and ``initialize()`` has not run."""

    code = "not_initialized"
    cure = "`await km.initialize()` once at start, or use the manager as `async with`"


class KeyringNotLoadedError(NotInitializedError):
    """A field's keyring is not loaded in this process, and the call does no I/O; the message names one that does."""

    code = "keyring_not_loaded"
    cure = "await the call that the message names first, at start or before the rows at hand are read"


class SystemShutdownError(KMSError):
    """The manager was closed."""

    code = "system_shutdown"
    cure = "make a new manager or provider; end what uses the old one before it is closed"


class KeyNotFoundError(KMSError):
    """No key, keyring or version of that name exists."""

    code = "key_not_found"
    cure = (
        "check the key's name, and where it is looked for: the store and tenant of a keyring; the region, project, "
        "mount or token of a key in a key service"
    )


class KeyStateError(KMSError):
    """The key exists, and its state does not allow the operation."""

    code = "key_state"
    cure = (
        "enable the key, or call its deletion off, where it is kept: `keystead key show ID` tells the state of one of "
        "the store; what was destroyed stays so"
    )


class NoActiveKeyError(KeyStateError):
    """The keyring has no active version to encrypt under."""

    code = "no_active_key"
    retryable = True
    cure = "make a new version with `keystead key rotate NAME`, or enable the one that was disabled"


class SubjectErasedError(KeyStateError):
    """Whom the value was about was forgotten, with the keys: it is gone for good."""

    code = "subject_erased"
    cure = "show the value as deleted; nothing brings it back, and who comes back is given a new keyring"


class KeyExpiredError(KeyStateError):
    """The active version is past its expiry and could not be replaced."""

    code = "key_expired"
    retryable = True
    cure = "mend what stops the rotation, which the log and `keystead doctor` name; a device asks for a new key"


class KeyInUseError(KeyStateError):
    """A data source still holds ciphertexts of the version that was to be destroyed."""

    code = "key_in_use"
    cure = "re-encrypt or rewrap what the message names, then destroy the version; the message says with which command"


class StoreRestoredError(KeyStateError):
    """The store is older than a state already seen: it decrypts, and encrypts again after ``recover``."""

    code = "store_restored"
    cure = "where the backup is meant, `keystead store recover`; where it is not, connect to the store of now"

    def __init__(self, message: str | None = None) -> None:
        told = (
            "this store was restored from a backup: it decrypts, and encrypts nothing, because versions made after the "
            "backup are gone; run `keystead store recover`"
        )
        super().__init__(message or told)


class ForbiddenError(KMSError):
    """The caller may not do this with what belongs to somebody else, or without a scope that allows it."""

    code = "forbidden"
    cure = "let somebody do it who may, or have a token or role given with the scope and tenant that it needs"


class ApprovalRequiredError(ForbiddenError):
    """The store asks for two people: somebody else has to approve this before it is done.

    Attributes:
        approval_id: what was asked for; None where it is not known who asks, and so nothing was.
    """

    code = "approval_required"
    cure = (
        "have somebody else approve it within 24 hours (`keystead approval approve ID`, or at the console), then do "
        "exactly the same again"
    )

    def __init__(self, message: str, *, approval_id: str | None = None) -> None:
        super().__init__(message)
        self.approval_id = approval_id


class UnauthenticatedError(KMSError):
    """Nobody shows who calls, or what shows it is not good; which of these is not told."""

    code = "unauthenticated"
    cure = (
        "send a token that is in force, of this service, as `Authorization: Bearer`; `keystead token list` shows "
        "which are"
    )

    def __init__(self, message: str = "no valid token was sent") -> None:
        super().__init__(message)


class IssuerUnavailableError(KMSError):
    """Whether a token of the identity provider is good could not be found out: its keys could not be read."""

    code = "issuer_unavailable"
    retryable = True
    cure = "try again; where it stays, check the issuer's URL, the network, and its certificate"


class RateLimitedError(KMSError):
    """Too many of these were asked for; ``retry_after_s`` is when the next is allowed."""

    code = "rate_limited"
    retryable = True
    cure = "wait for `retry_after_s`, then try again; a limit that is too low for honest use is a setting"

    def __init__(self, *given: object, retry_after_s: float = 0.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(*given)


class LockedError(RateLimitedError):
    """A secret was guessed wrong too often: nothing is tried on it for ``retry_after_s``, the right one neither."""

    code = "locked"
    cure = "wait for `retry_after_s`; where it was not the owner who guessed, revoke the device"


class ReplayedError(KMSError):
    """This very ciphertext has succeeded before; who knows the secret encrypts it anew."""

    code = "replayed"
    cure = "encrypt the secret anew for every call, and keep no ciphertext"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "this ciphertext has been used; encrypt the secret anew")


class EncryptionError(KMSError):
    """Encryption failed; no ciphertext was made."""

    code = "encryption"
    cure = "try again; where it stays, `keystead doctor` tries the provider and tells what it gives back"


class KeyEncryptionFailError(EncryptionError):
    """A data key could not be wrapped."""

    code = "key_encryption_fail"
    cure = "see what the key service says of this key with `keystead doctor`, then try again"


class SigningError(KMSError):
    """A signature or MAC could not be made."""

    code = "signing"
    cure = (
        "see whether the key service makes signatures of this kind under this key; `keystead doctor` tries the provider"
    )


class InvalidSignatureError(KMSError):
    """The signature or MAC is not of these bytes under this key. That it could not be checked is another error."""

    code = "invalid_signature"
    cure = "do not trust these bytes; compare key, algorithm and message with those that were signed"


class InvalidProofError(KMSError):
    """The proof does not show that a record is in a log, or that a log only grew."""

    code = "invalid_proof"
    cure = "do not trust the record; get record, proof and checkpoint anew from one and the same log, then report it"


class CouldNotVerifyError(KMSError):
    """Whether a log is as it was written could not be found out: a KMS or a file could not be reached."""

    code = "could_not_verify"
    retryable = True
    cure = (
        "make the file or key service that the message names reachable, and verify again; take it for neither good "
        "nor bad"
    )


class KeyNotExportableError(KMSError, NotImplementedError):
    """The key never leaves its KMS, which signs and verifies itself; ask for a signature instead of the key."""

    code = "key_not_exportable"
    cure = "use `sign` and `verify`; to have a key in the process, take one that encrypts and `use_kms_signing=False`"


class PartialBatchError(KMSError):
    """Some items of a batch failed.

    ``results`` has for each item, in order, what it became: a result, or the error that is its own.
    """

    code = "partial_batch"
    cure = "go through `results`, and repeat the items whose error is retryable"

    def __init__(self, message: str, results: Sequence[object] = ()) -> None:
        self.results = tuple(results)
        super().__init__(message)


class WorkersLostError(KMSError):
    """Nobody is left to do a job of many files: a scheduler or every worker is gone. What was done is noted."""

    code = "workers_lost"
    retryable = True
    cure = "start scheduler and workers again, and run the same job: it goes on behind what was committed"


class DecryptionError(KMSError):
    """Wrong key, wrong context or altered bytes: the three are not told apart."""

    code = "decryption"
    cure = (
        "compare the context with the one given at encryption, name by name; then KEK and store with those it was "
        "encrypted under, and the bytes with another copy: an export or a backup"
    )


class InvalidCiphertextError(DecryptionError):
    """The bytes are not a ciphertext of a format Keystead reads."""

    code = "invalid_ciphertext"
    cure = (
        "see what `keystead inspect` says of the bytes: text where bytes belong, encoded twice, or cut off by a short "
        "column"
    )


class KeyDecryptionFailError(DecryptionError):
    """A wrapped key could not be unwrapped: another KEK, or an altered row."""

    code = "key_decryption_fail"
    cure = "give the KEK that wrapped this store; where that is given, put the row back from an export or a backup"


class DataKeyNotLoadedError(DecryptionError):
    """The ciphertext names a data key this process has not loaded; ``await km.decrypt_local(blob)`` fetches it.

    ``data_key_id`` is the id the ciphertext names.
    """

    code = "data_key_not_loaded"
    retryable = True
    cure = (
        "`await km.decrypt_local(blob)`; where that does not find it, the key is in another store or in an older export"
    )

    def __init__(self, data_key_id: int, message: str | None = None) -> None:
        self.data_key_id = data_key_id
        told = f"data key {data_key_id} is not loaded in this process: `await km.decrypt_local(blob)` fetches it"
        super().__init__(message or told)

    def __reduce__(self) -> tuple[type[DataKeyNotLoadedError], tuple[int, str]]:
        return type(self), (self.data_key_id, str(self))


class ProviderNotConfiguredError(DecryptionError):
    """The record names a provider instance this manager does not have."""

    code = "provider_not_configured"
    cure = "configure the provider under that name, or map the name with `provider_aliases`"


class ImportEndedError(KMSError):
    """The time is over in which values in another system's form are read; nothing reads them any more."""

    code = "import_ended"
    cure = "make the importer with a later `until`, re-encrypt what is left, then take the importer away"


class KeyRotationError(KMSError):
    """Rotation failed; the version that was active still is."""

    code = "key_rotation"
    retryable = True
    cure = "try again once the key service and the store answer; `keystead doctor` tells which does not"


class KeyGenerationFailError(KeyRotationError):
    """A new data key could not be made."""

    code = "key_generation_fail"
    cure = "see with `keystead doctor` whether the key service draws keys of 32 bytes, then rotate again"


class RotationNotSupportedError(KeyRotationError):
    """The KEK has no further version to give, whatever is tried again; the message names the other way."""

    code = "rotation_not_supported"
    retryable = False
    cure = "make the next version where the key is kept, as the message says, then `keystead key rewrap`"


class ProviderConnectionError(KMSError):
    """The KMS could not be reached, throttled the call, or did not answer in time.

    ``retry_after_s`` is how long the service asked to be left alone, where it said so.
    """

    code = "provider_connection"
    retryable = True
    cure = "check address, network, proxy and TLS; a service that is merely busy recovers by itself"

    def __init__(self, *given: object, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(*given)


class ProviderAuthError(ProviderConnectionError):
    """The KMS answered, and denied: credentials or permissions are wrong."""

    code = "provider_auth"
    retryable = False
    cure = (
        "give the process credentials that the service takes, with the permissions on this key that the page of this "
        "key service lists"
    )
