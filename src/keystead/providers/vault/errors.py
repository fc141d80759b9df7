"""What a Vault server's refusals mean.

The status alone does not tell: wrong input is answered by 500 in places, and an outage by 400. So the texts are read,
and each becomes one of our errors in words of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
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

DECRYPTION_FAILED: Final = "decryption failed"


class RequestTooLargeError(InvalidInputError):
    """More than the server takes in one request; a batch is then asked for in parts."""


class VersionNotStoredError(ProviderConnectionError):
    """The server made a key version and could not store it; another rotation that succeeds stores both."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered. ``body`` is its JSON object, empty where there is none."""

    status: int
    body: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    @property
    def is_ok(self) -> bool:
        """Whether the request was carried out."""
        return 200 <= self.status < 300

    @property
    def data(self) -> Mapping[str, Any]:
        """The ``data`` of the answer."""
        data = self.body.get("data")
        return data if isinstance(data, Mapping) else {}

    @property
    def texts(self) -> str:
        """What the server said, in one text, for recognising it; never for showing it."""
        errors = self.body.get("errors")
        return "\n".join(str(error) for error in errors) if isinstance(errors, list) else ""

    @property
    def retry_after_s(self) -> float | None:
        """How long the server asked to be left alone."""
        value = self.headers.get("Retry-After", "").strip()
        if value.isdecimal():
            return min(float(value), 3600.0)
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None


class Reason(Enum):
    """Why a request was refused."""

    UNAVAILABLE = auto()
    SEALED = auto()
    THROTTLED = auto()
    BAD_TOKEN = auto()
    DENIED = auto()
    NO_KEY = auto()
    NO_MOUNT = auto()
    NO_NAMESPACE = auto()
    NO_OPERATION = auto()
    SOFT_DELETED = auto()
    ALTERED = auto()
    TOO_NEW = auto()
    TOO_OLD = auto()
    VERSION_AHEAD = auto()
    VERSION_BEHIND = auto()
    WRONG_TYPE = auto()
    NO_PRIVATE_KEY = auto()
    NO_CONTEXT = auto()
    NO_ROTATION = auto()
    TOO_LARGE = auto()
    REFUSED = auto()


OUTAGES: Final = frozenset({Reason.UNAVAILABLE, Reason.SEALED, Reason.THROTTLED})
"""Refusals that say nothing of the key."""

_OF_TEXTS: Final = (
    ("message authentication failed", Reason.ALTERED),
    ("version is too new", Reason.TOO_NEW),
    ("no such key version", Reason.TOO_NEW),
    ("invalid ciphertext", Reason.ALTERED),
    ("failed to rsa decrypt", Reason.ALTERED),
    ("version is too old", Reason.TOO_OLD),
    ("disallowed by policy (too old)", Reason.TOO_OLD),
    ("soft-deleted key", Reason.SOFT_DELETED),
    ("higher than the latest key version", Reason.VERSION_AHEAD),
    ("less than the minimum encryption key version", Reason.VERSION_BEHIND),
    ("signature verification key not found", Reason.NO_KEY),
    ("signing key not found", Reason.NO_KEY),
    ("encryption key not found", Reason.NO_KEY),
    ("no existing key named", Reason.NO_KEY),
    ("key not found", Reason.NO_KEY),
    ("missing 'context'", Reason.NO_CONTEXT),
    ("no handler for route", Reason.NO_MOUNT),
    ("namespace not found", Reason.NO_NAMESPACE),
    ("unsupported path", Reason.NO_OPERATION),
    ("unsupported operation", Reason.NO_OPERATION),
    ("not supported for key type", Reason.WRONG_TYPE),
    ("does not support", Reason.WRONG_TYPE),
    ("unsupported key type", Reason.WRONG_TYPE),
    ("non-aead cipher suite", Reason.WRONG_TYPE),
    ("private counterpart", Reason.NO_PRIVATE_KEY),
    ("not contain a private part", Reason.NO_PRIVATE_KEY),
    ("does not allow rotation", Reason.NO_ROTATION),
    ("past the max ttl", Reason.REFUSED),
    ("high complexity", Reason.TOO_LARGE),
    ("request body too large", Reason.TOO_LARGE),
)
"""Beginnings of what 400, 404, 405 and 500 say. Measured on OpenBao 2.7; Vault's texts are the same where both have
the case."""

_OF_STATUS: Final = {
    307: Reason.UNAVAILABLE,
    308: Reason.UNAVAILABLE,
    405: Reason.NO_OPERATION,
    412: Reason.UNAVAILABLE,
    413: Reason.TOO_LARGE,
    429: Reason.THROTTLED,
    472: Reason.UNAVAILABLE,
    473: Reason.UNAVAILABLE,
    503: Reason.SEALED,
}
_POLICY: Final = "1 error occurred:\n\t* permission denied\n\n"
"""What a policy's refusal says; anything else with 403 is about the token itself."""


def reason_of(answer: Answer) -> Reason:
    """Return why a request was refused."""
    if answer.status == 403:
        return Reason.DENIED if answer.texts == _POLICY else Reason.BAD_TOKEN
    if (found := _OF_STATUS.get(answer.status)) is not None:
        return found
    if answer.status in {400, 404, 500} and (told := reason_of_text(answer.texts)) is not None:
        return told
    if answer.status == 404:
        return Reason.NO_KEY
    # Whatever else a 5xx says, it does not say that key, context or ciphertext are wrong.
    return Reason.UNAVAILABLE if answer.status >= 500 else Reason.REFUSED


def reason_of_text(text: str) -> Reason | None:
    """Return what an error's text is about, if it is known."""
    lowered = text.lower()
    return next((reason for part, reason in _OF_TEXTS if part in lowered), None)


_FAILURES: Final[Mapping[str, type[KMSError]]] = {
    "decrypt": DecryptionError,
    "rotate": KeyRotationError,
    "hmac": SigningError,
    "sign": SigningError,
    "verify": SigningError,
    "encrypt": EncryptionError,
    "datakey": EncryptionError,
    "rewrap": EncryptionError,
}


def error_of(reason: Reason, verb: str, path: str, *, answer: Answer | None = None) -> KMSError:
    """Return our error for a refused request.

    Args:
        verb: what was asked for: ``encrypt``, ``decrypt``, ``datakey``, ``rewrap``, ``rotate``, ``hmac``, ``sign``,
            ``verify``, ``read``, ``capabilities``.
        path: where, as a policy names it.
    """
    status = f" ({answer.status})" if answer is not None else ""
    if reason is Reason.THROTTLED:
        after = answer.retry_after_s if answer is not None else None
        return ProviderConnectionError("the Vault server throttles the call (429)", retry_after_s=after)
    if reason in _CONNECTION:
        return ProviderConnectionError(_CONNECTION[reason].format(path=path, status=status))
    if reason in {Reason.BAD_TOKEN, Reason.DENIED}:
        return _denied(reason, verb, path)
    if reason in _STATE:
        kind, text = _STATE[reason]
        return kind(text.format(path=path))
    if reason is Reason.ALTERED:
        return DecryptionError(DECRYPTION_FAILED)
    if reason is Reason.TOO_NEW:
        if verb in {"decrypt", "rewrap"}:
            return DecryptionError(DECRYPTION_FAILED)
        return KeyNotFoundError(f"{path}: the key has no such version")
    kind = _FAILURES.get(verb, KMSError)
    return kind(f"the Vault server refused {verb} on {path}{status}; its audit log says why")


_CONNECTION: Final[Mapping[Reason, str]] = {
    Reason.UNAVAILABLE: "the Vault server could not carry out the call on {path}{status}; it may be about to change "
    "its leader, or have lost its storage",
    Reason.SEALED: "the Vault server is sealed, or not initialised (503); unseal it: `bao operator unseal`",
    Reason.VERSION_AHEAD: "{path}: this node of the Vault cluster does not know the key's newest version yet; name "
    "the active node, or the cluster's own address, as VAULT_ADDR",
}
_STATE: Final[Mapping[Reason, tuple[type[KMSError], str]]] = {
    Reason.NO_KEY: (KeyNotFoundError, "{path}: the Vault server has no key of that name; make it with `bao write -f`"),
    Reason.NO_MOUNT: (
        ConfigurationError,
        "{path}: nothing is mounted there; `bao secrets enable transit` mounts the engine, mount_path names another "
        "place, and namespace another namespace",
    ),
    Reason.NO_NAMESPACE: (ConfigurationError, "{path}: the Vault server has no such namespace; see VAULT_NAMESPACE"),
    Reason.NO_OPERATION: (
        ConfigurationError,
        "{path}: the Vault server has no such operation there; is it Transit that is mounted, in a release of today?",
    ),
    Reason.SOFT_DELETED: (
        KeyStateError,
        "{path}: the key is deleted softly; keys/<name>/soft-delete-restore brings it back",
    ),
    Reason.TOO_OLD: (
        KeyStateError,
        "{path}: the key's min_decryption_version forbids this version; lower it with keys/<name>/config",
    ),
    Reason.VERSION_BEHIND: (
        KeyStateError,
        "{path}: the key's min_encryption_version forbids the version asked for; rotate it, or lower that setting",
    ),
    Reason.WRONG_TYPE: (InvalidInputError, "{path}: the key's type does not do that; see describe()"),
    Reason.NO_PRIVATE_KEY: (KeyStateError, "{path}: only the public half of the key was imported"),
    Reason.NO_CONTEXT: (KeyStateError, "{path}: the key was replaced by a derived one of its name"),
    Reason.NO_ROTATION: (
        RotationNotSupportedError,
        "{path}: the key was imported with allow_rotation=false; import a new version instead",
    ),
    Reason.TOO_LARGE: (
        RequestTooLargeError,
        "{path}: more than the server takes in one request; encrypt it under a data key: km.local_encrypt, or "
        "generate_data_key",
    ),
}


def _denied(reason: Reason, verb: str, path: str) -> ProviderAuthError:
    if reason is Reason.BAD_TOKEN:
        return ProviderAuthError(
            f"the Vault server refused the token at {path}: it has expired, was revoked, has been used up, or belongs "
            "to another server or namespace"
        )
    capability = "read" if verb == "read" else "update"
    return ProviderAuthError(f"denied: the token's policy needs the capability {capability} on {path}")
