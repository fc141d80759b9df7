"""What the errors of the Azure SDK mean, in Keystead's own. Programs act on status and codes, never on texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from keystead.errors import (
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    SigningError,
)
from keystead.providers.azure.config import AzureKeyId


class Asked(StrEnum):
    """What a request asked for."""

    KEY = "read a key"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    SIGN = "sign"
    VERIFY = "verify"
    ROTATE = "rotate a key"
    POLICY = "read a rotation policy"


_STATES: Final[Mapping[str, str]] = {
    "KeyDisabled": "is disabled",
    "KeyNotYetValid": "is not valid yet",
    "KeyExpired": "has expired",
}
_FOREIGN_NETWORK: Final = frozenset({"ForbiddenByFirewall", "ForbiddenByConnection"})
_STATE_TEXT: Final = re.compile(r"not allowed on an? (disabled|expired|key that is not yet valid)")
"""For answers without an inner code, as those of older services."""
_PASSING: Final = frozenset({408, 410, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not meet; 410 is a machine's identity endpoint being updated."""

_REFUSED: Final[Mapping[Asked, type[KMSError]]] = {
    Asked.ENCRYPT: EncryptionError,
    Asked.SIGN: SigningError,
    Asked.VERIFY: SigningError,
    Asked.ROTATE: KeyRotationError,
    Asked.POLICY: KeyRotationError,
}


def translate(asked: Asked, exc: Exception, key_id: AzureKeyId) -> KMSError:
    """Return the error of ours for ``exc``, which a call about a key raised; what is ours already stays."""
    from azure.core import exceptions as azure

    host = key_id.host
    if isinstance(exc, KMSError):
        return exc
    if isinstance(exc, azure.ClientAuthenticationError):
        return _no_token(exc, host)
    if isinstance(exc, azure.DecodeError | azure.DeserializationError):
        return ProviderConnectionError(f"the answer of {host} cannot be read")
    if isinstance(exc, azure.HttpResponseError):
        return _answered(asked, exc, key_id)
    if isinstance(exc, azure.ServiceRequestError | azure.ServiceResponseError):
        return _unreachable(exc, host)
    if isinstance(exc, ValueError) and "challenge" in str(exc):
        # What the SDK refuses itself, with nothing but a text to tell it by: a challenge for something else.
        return ProviderAuthError(f"{host} asks for an access token of a service it does not belong to; none was sent")
    return ProviderConnectionError(f"the answer of {host} cannot be read: {type(exc).__name__}")


def is_token_refused(exc: Exception, host: str) -> bool:
    """Return whether ``host`` itself did not accept the access token, however good it looked."""
    from azure.core.exceptions import ClientAuthenticationError

    if not isinstance(exc, ClientAuthenticationError) or exc.status_code != 401:
        return False
    url = getattr(getattr(exc.response, "request", None), "url", "")
    return urlsplit(str(url)).netloc.lower().removesuffix(":443") == host


def _answered(asked: Asked, exc: Any, key_id: AzureKeyId) -> KMSError:
    """Return what an error answer of the vault means."""
    status, host = exc.status_code, key_id.host
    if status in _PASSING:
        text = "is asked too often" if status == 429 else f"answered {status}"
        return ProviderConnectionError(f"{host} {text}", retry_after_s=_retry_after_s(exc.response))
    if status == 403:
        return _forbidden(asked, exc, key_id)
    if status == 404:
        return KeyNotFoundError(f"there is no {key_id}, or it was deleted")
    if status == 409:
        return KeyStateError(f"{key_id} is deleted, or being deleted or recovered")
    if status == 400 and asked is Asked.DECRYPT:
        return DecryptionError("decryption failed")
    if status == 400 and asked is Asked.KEY:
        return KeyNotFoundError(f"there is no {key_id}")
    if 400 <= status < 500:
        cure = "; an AES key needs 256 bits" if asked is Asked.ENCRYPT else ""
        return _REFUSED.get(asked, ProviderConnectionError)(f"{host} refused to {asked} with status {status}{cure}")
    return ProviderConnectionError(f"{host} answered {status}")


def _forbidden(asked: Asked, exc: Any, key_id: AzureKeyId) -> KMSError:
    code = _inner_code(exc)
    if code is not None and code in _STATES:
        return KeyStateError(f"{key_id} {_STATES[code]}; enable it, or use another version")
    if code == "KeyOperationForbidden":
        return InvalidInputError(f"{key_id} was not made to {asked}; its key_ops say what it may do")
    if code in _FOREIGN_NETWORK:
        return ProviderAuthError(
            f"{key_id.host} takes no calls from this network; allow it in the firewall, or use a private endpoint"
        )
    if code is None and _STATE_TEXT.search(str(getattr(exc.error, "message", ""))):
        return KeyStateError(f"{key_id} is disabled, has expired or is not valid yet")
    return ProviderAuthError(
        f"{key_id.host} denied to {asked}; give the identity the permissions that the page on Azure lists. A new role "
        "assignment takes some minutes"
    )


def _inner_code(exc: Any) -> str | None:
    inner = getattr(exc.error, "innererror", None)
    code = inner.get("code") if isinstance(inner, Mapping) else None
    return code if isinstance(code, str) else None


def _no_token(exc: Any, host: str) -> KMSError:
    """Tell a denied sign-in, which ends use at once, from one that could not be asked for."""
    from azure.core import exceptions as azure

    for each in _causes(exc):
        if isinstance(each, azure.ServiceRequestError | azure.ServiceResponseError):
            return ProviderConnectionError(
                "no access token: the sign-in service could not be reached; check network and proxy"
            )
        if isinstance(each, azure.HttpResponseError) and each.status_code in _PASSING:
            return ProviderConnectionError(
                f"no access token: the sign-in service answered {each.status_code}",
                retry_after_s=_retry_after_s(each.response),
            )
    if is_token_refused(exc, host):
        return ProviderAuthError(f"{host} does not accept the access token; is it of the tenant the vault belongs to?")
    status = "" if exc.status_code is None else f" (status {exc.status_code})"
    return ProviderAuthError(
        f"no access token: no credential was accepted{status}; check tenant, client and secret, the managed identity, "
        "or run `az login` where the default credentials are used"
    )


def _causes(exc: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = exc
    for _ in range(8):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _unreachable(exc: Any, host: str) -> ProviderConnectionError:
    import ssl

    for each in _causes(exc):
        if isinstance(each, ssl.SSLError) or type(each).__name__.startswith("ClientConnectorCertificate"):
            return ProviderConnectionError(
                f"the TLS connection to {host} failed: its certificate is not trusted, or not its own; ca_file names "
                "the authorities of a private cloud or proxy"
            )
    return ProviderConnectionError(
        f"{host} could not be reached, or did not answer in time; check the vault's name, network and proxy"
    )


def _retry_after_s(response: Any) -> float | None:
    """Return how long the service asks to be left alone: seconds, milliseconds, or a date beside its own clock."""
    headers = getattr(response, "headers", None) or {}
    for name, unit_s in (("Retry-After", 1.0), ("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) * unit_s)
        except ValueError:
            until, now = http_date(value), http_date(headers.get("Date")) or datetime.now(UTC)
            if until is not None:
                return max(0.0, (until - now).total_seconds())
    return None


def http_date(text: str | None) -> datetime | None:
    """Return the time in a header, aware UTC; None where there is none."""
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
