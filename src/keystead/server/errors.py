"""The one table from our errors to what the service answers. Nothing else of an error leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keystead.errors import (
    ConflictError,
    DecryptionError,
    EncryptionError,
    ForbiddenError,
    InvalidInputError,
    KeyExpiredError,
    KeyNotFoundError,
    KMSError,
    LockedError,
    ProviderConnectionError,
    RateLimitedError,
    ReplayedError,
    StorageOperationError,
    StoreRestoredError,
    SystemShutdownError,
    UnauthenticatedError,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an error becomes: a code, a status of HTTP, a text, and when to try again."""

    code: str
    status: int
    message: str
    retry_after_s: float | None = None


_OWN_TEXT: Final = "own text"
_TABLE: Final[tuple[tuple[type[KMSError], str, int, str], ...]] = (
    (UnauthenticatedError, "UNAUTHENTICATED", 401, _OWN_TEXT),
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
    (SystemShutdownError, "UNAVAILABLE", 503, "the service is stopping; try again"),
)
INTERNAL: Final = Answer("INTERNAL_SERVER_ERROR", 500, "something went wrong in the service; its log has more")


def answer_of(error: BaseException) -> Answer:
    """Return what is answered to an error; one that is not in the table is told to nobody but the log."""
    for kind, code, status, text in _TABLE:
        if isinstance(error, kind):
            retry_after_s = getattr(error, "retry_after_s", None)
            return Answer(code, status, str(error) if text is _OWN_TEXT else text, retry_after_s)
    return INTERNAL
