"""The one table from our errors to what the service answers. Nothing else of an error leaves it.

Whoever administers keys is told of their states and of what stands in the way of a change; a device is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from keystead.errors import (
    ApprovalRequiredError,
    CleanupFailedError,
    ConfigurationError,
    ConflictError,
    CouldNotVerifyError,
    DecryptionError,
    EncryptionError,
    ForbiddenError,
    InvalidInputError,
    IssuerUnavailableError,
    KeyExpiredError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    LockedError,
    ProviderConnectionError,
    RateLimitedError,
    ReplayedError,
    RotationNotSupportedError,
    StorageOperationError,
    StoreRestoredError,
    SystemShutdownError,
    UnauthenticatedError,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an error becomes: a code, a status of HTTP, a text, and when to try again.

    Attributes:
        error: the code of the error in docs/errors.md, finer than ``code``; None where it is none of those.
        approval_id: what somebody else has to approve first; None where it is something else.
    """

    code: str
    status: int
    message: str
    retry_after_s: float | None = None
    error: str | None = None
    approval_id: str | None = None


_OWN_TEXT: Final = "own text"
_TABLE: Final[tuple[tuple[type[KMSError], str, int, str], ...]] = (
    (UnauthenticatedError, "UNAUTHENTICATED", 401, _OWN_TEXT),
    (ApprovalRequiredError, "APPROVAL_REQUIRED", 403, _OWN_TEXT),
    (ForbiddenError, "FORBIDDEN", 403, _OWN_TEXT),
    (LockedError, "LOCKED", 429, _OWN_TEXT),
    (RateLimitedError, "RATE_LIMITED", 429, _OWN_TEXT),
    (ReplayedError, "REPLAYED", 409, _OWN_TEXT),
    (KeyExpiredError, "KEY_EXPIRED", 410, _OWN_TEXT),
    (KeyNotFoundError, "NOT_FOUND", 404, _OWN_TEXT),
    (DecryptionError, "DECRYPTION_FAILED", 400, _OWN_TEXT),
    (EncryptionError, "ENCRYPTION_FAILED", 400, _OWN_TEXT),
    (InvalidInputError, "BAD_USER_INPUT", 400, _OWN_TEXT),
    (ConflictError, "CONFLICT", 409, _OWN_TEXT),
    (StoreRestoredError, "UNAVAILABLE", 503, "the service takes nothing new until its store is recovered"),
    (StorageOperationError, "UNAVAILABLE", 503, "the service cannot reach its database; try again"),
    (ProviderConnectionError, "UNAVAILABLE", 503, "the service cannot reach its key management service; try again"),
    (IssuerUnavailableError, "UNAVAILABLE", 503, "the service cannot reach the issuer of this token; try again"),
    (SystemShutdownError, "UNAVAILABLE", 503, "the service is stopping; try again"),
)
_TO_ADMINISTRATORS: Final[tuple[tuple[type[KMSError], str, int, str], ...]] = (
    # Ciphertexts do not come in here: what does not open is a key of the store.
    (DecryptionError, "DECRYPTION_FAILED", 500, _OWN_TEXT),
    (StoreRestoredError, "UNAVAILABLE", 503, _OWN_TEXT),
    (KeyStateError, "KEY_STATE", 409, _OWN_TEXT),
    (RotationNotSupportedError, "KEY_STATE", 409, _OWN_TEXT),
    (ConfigurationError, "NOT_CONFIGURED", 409, _OWN_TEXT),
    (KeyRotationError, "UNAVAILABLE", 503, _OWN_TEXT),
    (CouldNotVerifyError, "UNAVAILABLE", 503, _OWN_TEXT),
    (CleanupFailedError, "UNAVAILABLE", 503, _OWN_TEXT),
)
RETRY_S: Final = 2.0
"""When to try again what could not be served for now."""
INTERNAL: Final = Answer("INTERNAL_SERVER_ERROR", 500, "something went wrong in the service; its log has more")


def answer_of(error: BaseException, *, to_administrator: bool = False) -> Answer:
    """Return what is answered to an error; one that is not in the table is told to nobody but the log."""
    for kind, code, status, text in (*_TO_ADMINISTRATORS, *_TABLE) if to_administrator else _TABLE:
        if isinstance(error, kind):
            retry_after_s = getattr(error, "retry_after_s", None)
            if retry_after_s is None and status == 503:
                retry_after_s = RETRY_S
            told = str(error) if text is _OWN_TEXT else text
            waits_for = getattr(error, "approval_id", None)
            return Answer(code, status, told, retry_after_s, getattr(error, "code", None), waits_for)
    return INTERNAL


def graphql_error(answer: Answer) -> dict[str, Any]:
    """Return an answer as GraphQL tells it."""
    extensions: dict[str, Any] = {"code": answer.code}
    if answer.retry_after_s is not None:
        extensions["retryAfter"] = answer.retry_after_s
    return {"message": answer.message, "extensions": extensions}


def answer_headers(answer: Answer) -> dict[str, str]:
    """Return the headers that go with an answer: how to show who calls, and when to try again."""
    shows = {"WWW-Authenticate": "Bearer"} if answer.status == 401 else {}
    return shows | retry_header(answer.retry_after_s)


def retry_header(retry_after_s: float | None) -> dict[str, str]:
    """Return the header that says when to try again, in whole seconds; none where that is not known."""
    return {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))}
