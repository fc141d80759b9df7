"""The audit trail: who is told of changes, and the rows that it is kept in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from keystead.ports.store import Lease, UnitOfWork

T = TypeVar("T")

MAX_ENTRY_BYTES: Final = 1 << 20
"""How long the bytes of an entry may be."""

Detail: TypeAlias = "str | int | bool | Sequence[Detail] | Mapping[str, Detail] | None"
"""What an event may say: text, whole numbers, booleans, None, and lists and mappings of them."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What a transaction is about to change: an action, the keyring and key it concerns, and plain details."""

    action: str
    keyring: str | None = None
    key_id: int | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)


class AuditTrail(Protocol):
    """Told of every change, inside the transaction that makes it."""

    async def record(self, work: UnitOfWork, event: AuditEvent) -> None:
        """Record ``event``; raising undoes the change."""


@runtime_checkable
class NotesUses(Protocol):
    """An audit trail that is also told of what changes nothing: keys that were unwrapped, a KMS that was asked."""

    async def note(self, *events: AuditEvent) -> None:
        """Record events in a transaction of their own; they have happened when it is called, and nobody knows yet.

        Raises:
            KMSError: they could not be recorded: what they tell of must not be used.
        """


@runtime_checkable
class WritesAtOnce(Protocol):
    """A store that keeps an audit trail, and writes a change and what is told of it at once."""

    @property
    def may_write_at_once(self) -> bool:
        """Whether the trail is open, and may miss no entry."""

    async def write_at_once(
        self, event: AuditEvent, write: Callable[[UnitOfWork, AuditEntryRow], Awaitable[T]]
    ) -> T | None:
        """Make one write, and the entry of an event if it does something; return what it returns.

        The write has done nothing where it returns something false. None, and nothing is done, where the trail is not
        open, or may miss an entry.
        """


@dataclass(frozen=True, slots=True)
class AuditEntryRow:
    """An entry that has no number in the log yet: id (16 bytes), session, its bytes, and its code (32 bytes).

    What somebody else has put there may be of any length: of more, one byte more is read than there can be.
    """

    id: bytes
    session: str
    entry: bytes
    code: bytes


@runtime_checkable
class InsertsElsewhere(Protocol):
    """A store whose entries can be inserted in a transaction of somebody else's, over the same database."""

    def audit_insert(self) -> Any:
        """Return the statement that inserts an entry, whose parameters are named as the members of that."""


@dataclass(frozen=True, slots=True)
class AuditSessionRow:
    """A session that entries are authenticated in, as its first entry tells as well."""

    id: str
    node: str
    wrapped_key: bytes
    begun_ms: int


class AuditLogRow(NamedTuple):
    """A record of the log: its number, the bytes of its line, and what one searches by, which authenticates nothing.

    ``kind`` is that of the log's own records; the others have the id, time, action, keyring and data key of an entry.
    """

    seq: int
    line: bytes
    kind: str | None = None
    entry_id: bytes | None = None
    at: str | None = None
    action: str | None = None
    keyring: str | None = None
    key_id: int | None = None


@dataclass(frozen=True, slots=True)
class AuditStateRow:
    """How far the log has come: ``state`` and its code as the specification has them, and what nobody authenticates.

    ``token`` is the fencing token of the last sequencer; ``checkpoint_*`` and ``exported_*`` tell of the last
    checkpoint and of the last one that left the database: records, and the database's clock; ``rejected`` counts
    entries that were not authentic.
    """

    size: int
    state: bytes
    code: bytes
    key_id: int
    token: int = 0
    checkpoint_size: int = 0
    checkpoint_ms: int = 0
    exported_size: int = 0
    exported_ms: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which records are asked for; None is any. ``since`` and ``until`` are times as entries have them.

    ``until`` itself is excluded.
    """

    keyring: str | None = None
    action: str | None = None
    key_id: int | None = None
    since: str | None = None
    until: str | None = None
    entry_id: bytes | None = None


class AuditStanding(NamedTuple):
    """The state of the log, who has the lease that was asked for, and the database's clock, milliseconds since 1970."""

    state: AuditStateRow | None
    lease: Lease | None
    now_ms: int


class AuditBatch(NamedTuple):
    """Entries that wait, and whether there are more."""

    entries: Sequence[AuditEntryRow]
    has_more: bool


class AuditRows(Protocol):
    """The rows of the audit trail."""

    async def set_audited(self, audited: bool) -> None:
        """Mark the store as one whose changes are recorded, or not any more. Counts the epoch up."""

    async def has_audit_trace(self) -> bool:
        """Return whether anything of an audit trail is there: a state, a record, or the keyring of a trail."""

    async def add_audit_entries(self, entries: Sequence[AuditEntryRow]) -> None:
        """Insert entries."""

    async def audit_entries(
        self, *, sessions: Collection[str] | None = None, after: bytes | None = None, limit: int = 1000
    ) -> list[AuditEntryRow]:
        """Return a page of the entries that wait, by id; of some sessions, or of all."""

    async def has_audit_entries(self) -> bool:
        """Return whether any entry waits."""

    async def audit_standing(self, lease: str) -> AuditStanding:
        """Return the state of the log, a lease as it stands, and the database's clock."""

    async def audit_batch(self, *, sessions: Collection[str] | None, most: int, most_bytes: int) -> AuditBatch:
        """Return the first entries that wait, by id; of some sessions, or of all.

        Args:
            most, most_bytes: how many there are at most, and how many bytes they have, unless a single one has more.
        """

    async def count_unnamed_entries(self) -> int:
        """Return how many entries wait whose id is no bytes, as SQLite lets it be: nothing else here finds them."""

    async def name_audit_entries(self) -> None:
        """Give those entries an id."""

    async def waiting_sessions(self) -> list[str]:
        """Return the sessions that entries wait of."""

    async def count_audit_entries(self, *, at_most: int | None = None) -> tuple[int, bytes | None]:
        """Return how many entries wait, counted up to ``at_most``, and the lowest id among them."""

    async def drop_audit_entries(self, ids: Sequence[bytes]) -> int:
        """Delete entries; return how many were there."""

    async def add_audit_session(self, session: AuditSessionRow) -> None:
        """Insert a session."""

    async def audit_sessions(self, ids: Collection[str]) -> list[AuditSessionRow]:
        """Return sessions by id."""

    async def drop_audit_sessions(self, begun_before_ms: int) -> int:
        """Delete the sessions that began before a time and that no entry waits of; return how many."""

    async def add_audit_records(self, records: Sequence[AuditLogRow]) -> None:
        """Insert records; ``ConflictError`` when one of the numbers or entries is taken."""

    async def audit_records(
        self,
        *,
        after: int = -1,
        before: int | None = None,
        where: AuditFilter | None = None,
        newest_first: bool = False,
        limit: int = 1000,
    ) -> list[AuditLogRow]:
        """Return a page of records between two numbers, both excluded, filtered by the search columns."""

    async def count_audit_records(
        self, *, after: int, before: int, where: AuditFilter, at_most: int | None = None
    ) -> int:
        """Return how many records there are between two numbers, both excluded, filtered by the search columns.

        They are counted up to ``at_most``.
        """

    async def find_audit_records(
        self, where: AuditFilter, *, before: int | None, among: int, limit: int
    ) -> tuple[list[AuditLogRow], int | None]:
        """Return the newest records before one, and the number before which there are others.

        They are in the order of their numbers, or of their times where nothing but a time is asked for. Where more than
        one thing is asked for, no more than ``among`` records that fit one of them are looked at: there may be fewer
        than ``limit``, although there are others before. None says that nothing else was looked for before the last.
        """

    async def audit_lines(self, *, after: int, before: int, limit: int) -> list[bytes]:
        """Return the lines alone of records between two numbers, both excluded."""

    async def audit_controls(
        self,
        kind: str,
        *,
        after: int = -1,
        before: int | None = None,
        newest_first: bool = False,
        limit: int = 1000,
    ) -> list[AuditLogRow]:
        """Return records of the log's own, of a kind, between two numbers, both excluded."""

    async def listed_entries(self, ids: Collection[bytes]) -> list[AuditLogRow]:
        """Return the records that are listed under the ids of these entries, whether or not they hold them."""

    async def audit_size(self, *, before: int | None = None) -> int:
        """Return the number after the highest one in the log, or after the highest one before a number."""

    async def drop_audit_records(self, before: int) -> int:
        """Delete the records below a number; return how many there were."""

    async def audit_state(self) -> AuditStateRow | None:
        """Return the state of the log; None where there is none."""

    async def put_audit_state(self, state: AuditStateRow, *, expected: int | None) -> None:
        """Write the state; ``ConflictError`` unless its size was ``expected`` (None: there was none)."""

    async def note_audit_export(self, size: int) -> None:
        """Note that a checkpoint over so many records has left the database; never goes back."""
