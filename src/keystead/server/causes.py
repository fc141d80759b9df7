"""Why a service does not serve, as it may be told to anybody: no address, no name of a key, no text of a driver."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from keystead.errors import (
    ConfigurationError,
    ForeignSchemaError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    SchemaVersionError,
    StorageOperationError,
    StoreFullError,
    StoreNotFoundError,
    StoreReadOnlyError,
    StoreRestoredError,
    StoreUnavailableError,
)

DATABASE: Final = "database"
KMS: Final = "kms"
SERVICE: Final = "service"

_TABLE: Final[tuple[tuple[type[KMSError], str, str], ...]] = (
    (StoreRestoredError, DATABASE, "the store was restored from a backup: `keystead store recover` has it serve again"),
    (SchemaVersionError, DATABASE, "the store's schema is missing or older than this release: run `keystead migrate`"),
    (StoreReadOnlyError, DATABASE, "the database can be read and not written"),
    (StoreFullError, DATABASE, "the disk under the database is full"),
    (StoreUnavailableError, DATABASE, "the database cannot be reached"),
    (StorageOperationError, DATABASE, "the database refuses what the service needs; the service's log has more"),
    (ProviderAuthError, KMS, "the key management service denies what the service needs: check its credentials"),
    (ProviderConnectionError, KMS, "the key management service cannot be reached"),
    (KeyNotFoundError, KMS, "a key that the service needs is not there; the service's log has more"),
    (KeyStateError, KMS, "a key that the service needs is out of use; the service's log has more"),
)
_NEVER: Final = (ConfigurationError, ForeignSchemaError, StoreNotFoundError)
_PASSING: Final = (StorageOperationError, ProviderConnectionError, KeyNotFoundError, KeyStateError)


@dataclass(frozen=True, slots=True)
class Cause:
    """What stands in the way of serving.

    Attributes:
        component: ``database``, ``kms`` or ``service``.
        code: of an error of ``keystead.errors``, ``starting`` or ``stopping``.
        message: for whoever operates the service.
    """

    component: str
    code: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """Return it as it is answered."""
        return asdict(self)


STARTING: Final = Cause(SERVICE, "starting", "the service is starting")
STOPPING: Final = Cause(SERVICE, "stopping", "the service is stopping")


def cause_of(error: BaseException) -> Cause:
    """Return what may be told of an error."""
    for kind, component, message in _TABLE:
        if isinstance(error, kind):
            return Cause(component, error.code, message)
    return Cause(SERVICE, getattr(error, "code", "unexpected"), "something is wrong; the service's log has more")


def may_pass(error: BaseException) -> bool:
    """Return whether what failed may succeed later without a change to this process or its settings.

    A database or a KMS may come up, a right may be granted, a store may be migrated by another program. A setting that
    cannot work, another KEK than the store's, tables of somebody else's and a newer schema stay what they are.
    """
    if isinstance(error, _NEVER) or (isinstance(error, SchemaVersionError) and error.is_newer):
        return False
    return isinstance(error, _PASSING) or (isinstance(error, KMSError) and error.retryable)
