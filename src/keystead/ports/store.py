"""The key store: what a transaction of it can do, and what stands beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from keystead.model import DataKeyState, KeyRecord, KeyringRecord, StoreState
from keystead.ports.access import RoleRows, SessionRows, TokenRows
from keystead.ports.approvals import ApprovalRows
from keystead.ports.audit import AuditRows
from keystead.ports.devices import ClientKeyRows, DeviceRows
from keystead.ports.erasure import ErasureMark, SubjectRows
from keystead.ports.fields import FieldRows, ReencryptionRows
from keystead.ports.jobs import JobRunRows
from keystead.ports.key_numbers import KeyNumbers
from keystead.ports.metrics import MetricRows
from keystead.ports.secrets import CredentialRows, SecretWrites, SpentCiphertextRows
from keystead.ports.transit import TransitRows
from keystead.ports.wishes import WishRows


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do a named job until ``until_ms`` (the database's clock), proven by ``token``."""

    name: str
    owner: str
    token: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A live manager: the epoch it has loaded, and until when its heartbeat holds (the database's clock)."""

    node_id: str
    seen_epoch: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A declared data source of a keyring: where ciphertexts lie that a destroy must look through.

    ``locator`` says how to scan it: ``file:<glob>``, ``sql:<url>#<table>.<column>`` or ``app:<name>``.
    """

    name: str
    keyring: str
    locator: str


@dataclass(slots=True)
class KeyChanges:
    """What a transaction has changed: the epoch it made, whether the store was audited then, and keys as they are now.

    Both are None while the epoch was not counted up.
    """

    epoch: int | None = None
    is_audited: bool | None = None
    keys: dict[int, KeyRecord] = field(default_factory=dict)


class KeyReads(Protocol):
    """Reading keyrings and data keys inside a transaction."""

    async def state(self, *, lock: bool = False) -> StoreState:
        """Return the store's id, epoch and restored mark; ``lock`` holds them until the transaction ends."""

    async def hold_keys(self) -> StoreState:
        """Wait for a transaction that is changing keys, and let none change any before this one ends."""

    async def now_ms(self) -> int:
        """Return the database's clock, milliseconds since 1970."""

    async def find_keyring(self, name: str, *, lock: bool = False) -> KeyringRecord | None:
        """Return a keyring; ``lock`` holds its row until the transaction ends."""

    async def keyrings(self, *, after: str = "", limit: int = 1000) -> list[KeyringRecord]:
        """Return a page of keyrings by name."""

    async def keyrings_with_keys(self, names: Collection[str]) -> list[tuple[KeyringRecord, list[KeyRecord]]]:
        """Return those of these keyrings that there are, by name, each with all of its data keys by id."""

    async def find_key(self, key_id: int) -> KeyRecord | None:
        """Return a data key by id, in any state."""

    async def find_keys(self, key_ids: Collection[int]) -> list[KeyRecord]:
        """Return those of these data keys that there are, in any state, by id."""

    async def find_legacy_key(self, legacy_version: str) -> KeyRecord | None:
        """Return the data key imported under a legacy version text."""

    async def find_active(self, keyring: str) -> KeyRecord | None:
        """Return the keyring's active version."""

    async def keys(
        self,
        *,
        keyring: str | None = None,
        states: Collection[DataKeyState] | None = None,
        wrapped_by: int | None = None,
        wrapped_by_not: Collection[int] | None = None,
        published_after: int | None = None,
        due_before: datetime | None = None,
        after_id: int = 0,
        limit: int = 1000,
    ) -> list[KeyRecord]:
        """Return a page of data keys by id, filtered.

        ``wrapped_by`` keeps the keys a WRAP key wraps; ``wrapped_by_not`` those wrapped by a WRAP key outside the
        given ids (never WRAP rows themselves); ``due_before`` those whose ``rotate_after`` is not later.
        """

    async def count_keys(self, keyring: str) -> Mapping[DataKeyState, int]:
        """Return how many keys of the keyring are in each state."""


class KeyWrites(Protocol):
    """Changing keyrings and data keys. Every change bumps the epoch once a transaction."""

    @property
    def changes(self) -> KeyChanges:
        """What this transaction has changed so far."""

    async def bump_epoch(self) -> int:
        """Count the epoch up (once a transaction) and return it."""

    async def set_restored(self, restored: bool) -> None:
        """Mark the store restored, or recovered."""

    async def adopt(self, store_id: str, epoch: int) -> None:
        """Take over the identity of an exported store: its id and epoch, marked restored. For an empty store only."""

    async def raise_epoch(self, at_least: int) -> int:
        """Set the epoch to at least ``at_least`` and return it."""

    async def add_keyring(self, keyring: KeyringRecord) -> bool:
        """Insert a keyring; False when the name exists already."""

    async def take_version(self, keyring: str, *, skip: int = 0) -> int:
        """Return the next version number and count it up, so that it is never given again."""

    async def add_key(self, key: KeyRecord) -> None:
        """Insert a data key; ``ConflictError`` when id, version or active state is taken."""

    async def add_keyrings(self, made: Sequence[tuple[KeyringRecord, KeyRecord]]) -> None:
        """Insert new keyrings, each with its first key; ``ConflictError`` when a name or an id is taken."""

    async def change_key(self, key_id: int, expected: DataKeyState, **changes: Any) -> KeyRecord:
        """Change columns of a key that is in state ``expected``; ``ConflictError`` when it is in another.

        Columns: state, wrapped_key, wrapped_by, kek_*, activated_at, rotate_after, expires_at, destroy_after,
        published_epoch. The immutable ones cannot be changed.
        """

    async def add_uses(self, key_id: int, messages: int, size_bytes: int) -> None:
        """Add to the use counts of a key; does not touch the epoch."""


class LeaseRows(Protocol):
    """Leases with fencing tokens and heartbeats of nodes."""

    async def find_lease(self, name: str) -> Lease | None:
        """Return a lease as it stands, expired or not; its owner is empty where it was given back."""

    async def claim_lease(
        self, name: str, owner: str, ttl_ms: int, *, floor: int = 0, longest_ms: int | None = None
    ) -> Lease | None:
        """Take the lease if it is free, expired or already ours; the token grows with every change of owner.

        It is no lower than ``floor``, a token that was given before, and above it with a change of owner: a lease whose
        row was lost does not begin anew. One that is held for longer than ``longest_ms`` from now on is held by nobody.
        """

    async def check_lease(self, lease: Lease) -> None:
        """Raise ``ConflictError`` when the lease's token is no longer the newest."""

    async def drop_lease(self, lease: Lease) -> None:
        """Give the lease back if it is still ours."""

    async def beat(self, node_id: str, seen_epoch: int, ttl_ms: int) -> None:
        """Write a node's heartbeat and the epoch it has loaded."""

    async def drop_node(self, node_id: str) -> None:
        """Remove a node's heartbeat."""

    async def live_nodes(self) -> list[NodeRecord]:
        """Return the nodes whose heartbeat has not expired."""

    async def drop_expired(self) -> int:
        """Remove expired leases' owners and expired nodes; return how many."""


class KeyUseRows(Protocol):
    """Declared data sources."""

    async def key_uses(self, keyring: str | None = None) -> list[KeyUse]:
        """Return the declared sources of a keyring, or of all."""

    async def declare_use(self, use: KeyUse) -> None:
        """Declare or change a source, once nobody is in the midst of destroying a key."""

    async def drop_use(self, keyring: str, name: str) -> bool:
        """Remove a declaration; False when absent."""


class UnitOfWork(
    KeyReads,
    KeyNumbers,
    KeyWrites,
    LeaseRows,
    JobRunRows,
    KeyUseRows,
    FieldRows,
    ReencryptionRows,
    WishRows,
    AuditRows,
    DeviceRows,
    ClientKeyRows,
    CredentialRows,
    SpentCiphertextRows,
    SecretWrites,
    TokenRows,
    RoleRows,
    SessionRows,
    ApprovalRows,
    SubjectRows,
    TransitRows,
    MetricRows,
    Protocol,
):
    """One transaction of the store: everything in it is kept, or nothing."""

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Begin a part of the transaction that alone is undone when its block raises."""


class KeyStore(Protocol):
    """Where wrapped keys live.

    Counterparts of the Go KMS's ``KeyStorage``: SaveDataKey = ``add_key``, GetActiveDataKey =
    ``find_active``, GetDataKeyByVersion = ``keys``/``find_legacy_key``, UpdateKeyStatus = ``change_key``,
    CleanupExpiredKeys = none (a key that may protect data is never deleted), GetKeyStatistics = ``count_keys``.
    """

    @property
    def is_durable(self) -> bool:
        """Whether keys outlive the process."""

    async def open(self) -> StoreState:
        """Check the schema (creating only an empty SQLite or memory store) and return the store's state."""

    def transaction(self, *, once: bool = False) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a writing transaction; commits when the block ends, rolls back when it raises.

        With ``once`` the block calls one operation that says that it is for this.
        """

    def reading(self, *, once: bool = False) -> AbstractAsyncContextManager[UnitOfWork]:
        """Begin a read-only transaction; with ``once`` the block runs one statement, and no transaction is begun."""

    async def aclose(self) -> None:
        """Close every connection; idempotent."""


@dataclass(frozen=True, slots=True)
class SeenState:
    """What is known of a store from outside its database: the highest epoch, keys, destructions, exports, its trail.

    ``keys`` maps a data key id to (keyring, version); ``destroyed`` are ids that must never come back; ``exported_at``
    is when the newest export was read out of the store. ``audited`` is the highest epoch at which it is known to have
    kept an audit trail, 0 where none is. ``erasures`` is the furthest that its erasure log is known to have come.
    """

    epoch: int = 0
    keys: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    destroyed: frozenset[int] = frozenset()
    exported_at: datetime | None = None
    audited: int = 0
    erasures: ErasureMark | None = None


class StateJournal(Protocol):
    """Remembers, outside the database, how far a store had come, so that a restored backup is noticed."""

    def read(self, store_id: str) -> SeenState:
        """Return what was written for the store; empty when nothing was."""

    def append(
        self,
        store_id: str,
        *,
        epoch: int | None = None,
        keys: Mapping[int, tuple[str, int]] | None = None,
        destroyed: Collection[int] = (),
        exported_at: datetime | None = None,
        audited: bool = False,
        erasures: ErasureMark | None = None,
    ) -> None:
        """Add to the journal, durably.

        ``exported_at`` comes with the epoch that was exported, ``audited`` with one at which the store kept a trail.
        """


class SourceScanner(Protocol):
    """Looks through a declared data source for ciphertexts of given data keys."""

    async def __call__(self, use: KeyUse, key_ids: Collection[int], /) -> Mapping[int, int]:
        """Return how many ciphertexts of each id the source holds. An unreadable source raises."""
