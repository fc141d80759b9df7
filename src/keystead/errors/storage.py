"""What a store refuses or fails at; drawn in ``keystead.errors``."""

from __future__ import annotations

from keystead.errors.root import KMSError


class StorageOperationError(KMSError):
    """The store refused or failed an operation."""

    code = "storage_operation"


class StoreUnavailableError(StorageOperationError):
    """The store cannot be reached, or is locked for too long."""

    code = "store_unavailable"
    retryable = True


class StaleViewError(StoreUnavailableError):
    """This process has not polled the store for too long: to know which index keys to write, or who was erased."""

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
    """The store's schema is older or newer than this release reads; the message says which and the cure.

    ``is_newer`` says whether it is the release that has to change.
    """

    code = "schema_version"

    def __init__(self, *given: object, is_newer: bool = False) -> None:
        self.is_newer = is_newer
        super().__init__(*given)


class ForeignSchemaError(StorageOperationError):
    """Tables of our names exist at the store's URL, and they are not ours."""

    code = "foreign_schema"


class ErasureLogError(StorageOperationError):
    """The log of erasures is missing, shorter than it was, or another one: keys of subjects are not used without it."""

    code = "erasure_log"


class ConflictError(StorageOperationError):
    """Another process changed the same row first; reread and decide again."""

    code = "conflict"
    retryable = True


class CleanupFailedError(StorageOperationError):
    """A maintenance step failed; the others ran."""

    code = "cleanup_failed"
    retryable = True
