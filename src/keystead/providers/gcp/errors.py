"""What Cloud KMS, google-auth and the network answer instead of a result, as Keystead's own errors.

Statuses, and the texts by which some of them are told apart, are those of the live service. No text of an answer is
passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    RotationNotSupportedError,
    SigningError,
)

PERMISSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "encrypt": ("cloudkms.cryptoKeyVersions.useToEncrypt",),
    "generate_data_key": ("cloudkms.cryptoKeyVersions.useToEncrypt",),
    "decrypt": ("cloudkms.cryptoKeyVersions.useToDecrypt",),
    "describe": ("cloudkms.cryptoKeys.get",),
    "get_rotation_policy": ("cloudkms.cryptoKeys.get",),
    "rotate_key": (
        "cloudkms.cryptoKeys.get",
        "cloudkms.cryptoKeyVersions.list",
        "cloudkms.cryptoKeyVersions.get",
        "cloudkms.cryptoKeyVersions.create",
        "cloudkms.cryptoKeys.update",
    ),
    "mac": ("cloudkms.cryptoKeyVersions.useToSign", "cloudkms.cryptoKeyVersions.list"),
    "verify_mac": ("cloudkms.cryptoKeyVersions.useToVerify",),
    "sign": ("cloudkms.cryptoKeyVersions.useToSign", "cloudkms.cryptoKeyVersions.list"),
    "public_key": ("cloudkms.cryptoKeyVersions.viewPublicKey", "cloudkms.cryptoKeyVersions.list"),
}
"""What each operation needs on its key, by our names of the operations."""
_OF_READING: Final[Mapping[str, str]] = {
    "get_crypto_key_version": "cloudkms.cryptoKeyVersions.get",
    "list_crypto_key_versions": "cloudkms.cryptoKeyVersions.list",
}
"""What a method of the client needs besides, for key ids that name a version and keys that have no primary one."""

_DEFAULT: Final[Mapping[str, type[KMSError]]] = {
    "encrypt": EncryptionError,
    "decrypt": DecryptionError,
    "rotate_key": KeyRotationError,
    "mac": SigningError,
    "sign": SigningError,
}
_PASSING: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "ABORTED", "CANCELLED", "UNKNOWN"})
_STATUS_OF_HTTP: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}
_STATE: Final = re.compile(r"current state is: ([A-Z_]+)")
_TLS: Final = re.compile(r"\bssl\b|\btls\b|certificate|handshake|verification check", re.IGNORECASE)
_PENDING: Final = frozenset({"PENDING_GENERATION", "PENDING_IMPORT"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an error, whichever way it came.

    Attributes:
        status: the canonical name, as in ``PERMISSION_DENIED``.
        text: the service's message; for telling apart, never for passing on.
        violations: types of ``google.rpc.PreconditionFailure``, as in ``KEY_DISABLED``.
        reason: of ``google.rpc.ErrorInfo``, as in ``SERVICE_DISABLED``.
    """

    status: str
    text: str
    violations: tuple[str, ...] = ()
    reason: str = ""
    retry_after_s: float | None = None

    @property
    def key_state(self) -> str | None:
        """The state of the key version that forbids the call, if that is what the answer says."""
        for violation in self.violations:
            if violation.startswith("KEY_"):
                return violation.removeprefix("KEY_")
        found = _STATE.search(self.text)
        return found[1] if found else None


def error_of(operation: str, exc: Exception, method: str = "") -> KMSError:
    """Return what a failed call is to our callers.

    ``operation`` is our name of what they asked for, ``method`` the client's that failed.
    """
    from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    if isinstance(exc, GoogleAPICallError):
        return _of_refusal(operation, _read(exc), method)
    if isinstance(exc, GoogleAuthError):
        return _of_credentials(exc)
    if isinstance(exc, OSError) and "SSL" in type(exc).__name__:
        return _of_tls()
    if isinstance(exc, OSError | GoogleAPIError):
        return ProviderConnectionError(f"Cloud KMS could not be reached for {operation}: {type(exc).__name__}")
    error = _DEFAULT.get(operation, ProviderConnectionError)
    return error(f"the client of Cloud KMS failed {operation}: {type(exc).__name__}")


def is_unauthenticated(exc: Exception) -> bool:
    """Whether the service does not know the caller, as when a token was revoked."""
    return str(getattr(getattr(exc, "grpc_status_code", None), "name", "")) == "UNAUTHENTICATED"


def _read(exc: Any) -> Refusal:
    """Read an error of gRPC, whose details are messages, or of REST, whose details are their JSON."""
    status, text = getattr(exc.grpc_status_code, "name", ""), str(exc.message)
    if callable(getattr(exc.response, "json", None)):
        status = _rest_status(exc.response)
    retry_after_s, violations = None, []
    for detail in exc.details:
        kind, content = _detail(detail)
        if kind == "PreconditionFailure":
            violations += [str(each.get("type", "")) for each in content.get("violations", ())]
        elif kind == "RetryInfo":
            retry_after_s = _seconds(content.get("retryDelay"))
    return Refusal(status or "UNKNOWN", text, tuple(violations), str(exc.reason or ""), retry_after_s)


def _rest_status(response: Any) -> str:
    try:
        status = response.json()["error"]["status"]
    except (ValueError, TypeError, KeyError, LookupError):
        # What stands between here and the service, such as a proxy, answers in its own words.
        return _STATUS_OF_HTTP.get(response.status_code, "UNAVAILABLE")
    return str(status)


def _detail(detail: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the kind of a detail, and its content as JSON has it."""
    if isinstance(detail, Mapping):
        return str(detail.get("@type", "")).rpartition(".")[2], detail
    if not hasattr(detail, "DESCRIPTOR"):
        return "", {}
    from google.protobuf.json_format import MessageToDict

    try:
        return str(detail.DESCRIPTOR.name), MessageToDict(detail)
    except TypeError:  # a detail of a type that is not known here
        return "", {}


def _seconds(duration: object) -> float | None:
    try:
        return float(str(duration).removesuffix("s"))
    except ValueError:
        return None


def _of_refusal(operation: str, refusal: Refusal, method: str) -> KMSError:
    status = refusal.status
    if status == "RESOURCE_EXHAUSTED":
        message = f"Cloud KMS throttled {operation}: a quota of the project is used up"
        return ProviderConnectionError(message, retry_after_s=refusal.retry_after_s)
    if status in _PASSING:
        return _of_tls() if status == "UNAVAILABLE" and _TLS.search(refusal.text) else _passing(operation, status)
    if status == "UNAUTHENTICATED":
        return ProviderAuthError(
            f"Cloud KMS does not accept the credentials for {operation}: they were revoked, or are of another audience"
        )
    if status == "PERMISSION_DENIED":
        return _denied(operation, refusal, method)
    if status == "NOT_FOUND":
        return KeyNotFoundError("Cloud KMS has no key, or no key version, of that name")
    if status == "FAILED_PRECONDITION":
        return _unmet(operation, refusal)
    if status == "INVALID_ARGUMENT":
        return _invalid(operation, refusal)
    if status == "UNIMPLEMENTED":
        return ConfigurationError("what answers at the endpoint is not Cloud KMS; check endpoint in GCPKMSConfig")
    return _DEFAULT.get(operation, ProviderConnectionError)(f"Cloud KMS failed {operation}: {status}")


def _passing(operation: str, status: str) -> KMSError:
    return ProviderConnectionError(f"Cloud KMS did not answer {operation}: {status}")


def _denied(operation: str, refusal: Refusal, method: str) -> KMSError:
    if refusal.reason == "SERVICE_DISABLED":
        return _of_disabled_service()
    if refusal.reason.startswith("BILLING"):
        return ProviderAuthError("the project of the key has no active billing account, which Cloud KMS needs")
    needed, own = PERMISSIONS.get(operation, ()), _OF_READING.get(method)
    return ProviderAuthError(
        f"Cloud KMS denied {operation}, or there is no such key: these credentials need "
        f"{_listed(needed if own is None or own in needed else (*needed, own))} on the key"
    )


def _unmet(operation: str, refusal: Refusal) -> KMSError:
    state = refusal.key_state
    if state in _PENDING:
        return ProviderConnectionError(f"the key version for {operation} is still being made: {state}")
    if state is not None:
        return KeyStateError(
            f"the key version that {operation} needs is {state}; enable or restore it with gcloud kms keys versions"
        )
    if "has not been used in" in refusal.text:
        return _of_disabled_service()
    if operation == "rotate_key":
        return RotationNotSupportedError(
            "Cloud KMS does not make versions of this key: they are imported, or live in an external key manager"
        )
    return InvalidInputError(
        f"the key is not one for {operation}: its purpose is another, or it has no primary version"
    )


def _invalid(operation: str, refusal: Refusal) -> KMSError:
    if "checksum" in refusal.text.lower():
        return ProviderConnectionError(f"the request for {operation} was altered on its way to Cloud KMS")
    if operation == "decrypt":
        return DecryptionError("decryption failed: wrong key, wrong context or altered bytes")
    return InvalidInputError(
        f"Cloud KMS refuses {operation} as malformed: too large for the key's protection level, or not of its algorithm"
    )


def _of_disabled_service() -> KMSError:
    return ProviderAuthError(
        "the Cloud KMS API is not enabled in the project: gcloud services enable cloudkms.googleapis.com"
    )


def _of_tls() -> KMSError:
    return ProviderConnectionError(
        "no TLS connection to Cloud KMS: the certificate is not trusted, or of another host; name its authority in "
        "ca_file, or check endpoint"
    )


def _of_credentials(exc: Any) -> KMSError:
    from google.auth import exceptions as auth

    if isinstance(exc, auth.DefaultCredentialsError):
        return ProviderAuthError(
            "no usable credentials for Cloud KMS: run on Google Cloud with a service account, set "
            "GOOGLE_APPLICATION_CREDENTIALS, give credentials_file, or run gcloud auth application-default login"
        )
    if isinstance(exc, auth.TransportError | auth.TimeoutError) or exc.retryable:
        return ProviderConnectionError(f"the credentials for Cloud KMS could not be renewed: {type(exc).__name__}")
    return ProviderAuthError(
        f"the credentials for Cloud KMS could not be renewed ({type(exc).__name__}): they were refused where tokens "
        "are issued; check the service account, the workload identity pool, or log in again"
    )


def _listed(names: Iterable[str]) -> str:
    return " and ".join(names) or "a role"
