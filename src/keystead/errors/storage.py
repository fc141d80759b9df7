"""What a store refuses or fails at; drawn in ``keystead.errors``."""

from __future__ import annotations

from keystead.errors.root import KMSError


class StorageOperationError(KMSError):
    """The store refused or failed an operation."""

    code = "storage_operation"
    cure = "check the database's state and this process's rights in it; a row that is damaged is put back from a backup"


class StoreUnavailableError(StorageOperationError):
    """The store cannot be reached, or is locked for too long."""

    code = "store_unavailable"
    retryable = True
    cure = "start the database, and check address, network, user and password"


class StaleViewError(StoreUnavailableError):
    """This process has not polled the store for too long: to know which index keys to write, or who was erased."""

    code = "stale_view"
    cure = "let the background task run, or `await km.run_due()` from time to time, then try again"


class StoreNotFoundError(StorageOperationError):
    """No store is in the SQLite file that was named, and none was to be made there; the message names the file."""

    code = "store_not_found"
    cure = "name the store that is meant, or make one: `keystead init`"


class StoreReadOnlyError(StorageOperationError):
    """The store can be read and not written."""

    code = "store_read_only"
    cure = "let the role write, or the user of the process: an SQLite store needs that for its folder as well"


class StoreFullError(StorageOperationError):
    """The disk under the store is full; nothing of the transaction was kept."""

    code = "store_full"
    retryable = True
    cure = "make room on the disk; work goes on by itself"


class SchemaVersionError(StorageOperationError):
    """The store's schema is older or newer than this release reads; the message says which and the cure.

    ``is_newer`` says whether it is the release that has to change.
    """

    code = "schema_version"
    cure = "do as the message says: `keystead migrate`, or a newer release"

    def __init__(self, *given: object, is_newer: bool = False) -> None:
        self.is_newer = is_newer
        super().__init__(*given)


class ForeignSchemaError(StorageOperationError):
    """Tables of our names exist at the store's URL, and they are not ours."""

    code = "foreign_schema"
    cure = "give the store a database or schema of its own"


class ErasureLogError(StorageOperationError):
    """The log of erasures is missing, shorter than it was, or another one: keys of subjects are not used without it."""

    code = "erasure_log"
    cure = (
        "put the log of erasures back from its newest copy; do not begin another one, which would forget who was erased"
    )


class ConflictError(StorageOperationError):
    """Another process changed the same row first; reread and decide again."""

    code = "conflict"
    retryable = True
    cure = "read again, and decide again; where nobody decides, just try again"


class CleanupFailedError(StorageOperationError):
    """A maintenance step failed; the others ran."""

    code = "cleanup_failed"
    retryable = True
    cure = "make the data source that the message names reachable, then `keystead maintain`"
