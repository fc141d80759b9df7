"""What the API server is answered when something is wrong: codes of gRPC for errors, and the text of ``healthz``."""

from __future__ import annotations

from typing import Final

from grpc import StatusCode

from keystead.errors import (
    ConfigurationError,
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidInputError,
    KeyDecryptionFailError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    NotInitializedError,
    ProviderConnectionError,
    StorageOperationError,
    SystemShutdownError,
)
from keystead.server.causes import DATABASE, KMS, SERVICE, STARTING, Cause
from keystead.server.errors import answer_of

HEALTHY: Final = "ok"
LONGEST: Final = 400
"""Characters of what is answered."""
_CODES: Final[tuple[tuple[type[KMSError], StatusCode], ...]] = (
    (DataKeyNotLoadedError, StatusCode.NOT_FOUND),
    (KeyDecryptionFailError, StatusCode.DATA_LOSS),
    (DecryptionError, StatusCode.INVALID_ARGUMENT),
    (InvalidInputError, StatusCode.INVALID_ARGUMENT),
    (KeyNotFoundError, StatusCode.NOT_FOUND),
    (KeyStateError, StatusCode.FAILED_PRECONDITION),
    (ConfigurationError, StatusCode.FAILED_PRECONDITION),
    (StorageOperationError, StatusCode.UNAVAILABLE),
    (ProviderConnectionError, StatusCode.UNAVAILABLE),
    (NotInitializedError, StatusCode.UNAVAILABLE),
    (SystemShutdownError, StatusCode.UNAVAILABLE),
)
_CURES: Final = {
    DATABASE: "bring it back, the plugin then goes on by itself; what is encrypted under keys in memory is still read",
    KMS: "bring it back or allow it again, the plugin then goes on by itself",
    SERVICE: "see the plugin's log, and docs/guides/kubernetes",
}


def code_of(error: BaseException) -> StatusCode:
    """Return the code that an error is answered with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), StatusCode.INTERNAL)


def text_of(error: BaseException) -> str:
    """Return what is answered to an error: nothing secret, and nothing of a driver or an SDK."""
    return answer_of(error, to_administrator=True).message[:LONGEST]


def health_of(cause: Cause | None) -> str:
    """Return ``healthz``: ``ok``, or what is wrong and what to do."""
    if cause is None:
        return HEALTHY
    if cause == STARTING:
        return "starting: the store and the KMS have not answered yet"
    return f"{cause.code}: {cause.message}; {_CURES[cause.component]}"[:LONGEST]
