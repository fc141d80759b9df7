"""What re-encryption asks of the application's table: reading its rows by key, and swapping their ciphertexts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

RowKey: TypeAlias = tuple[Any, ...]
"""The values of a row's key columns."""
Row: TypeAlias = tuple[Any, ...]
"""The columns that were read of a row, as the driver gives them; ``RowLayout`` says where each is."""


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where the columns stand in a row that was read; the key comes first, of ``key`` columns named ``key_columns``.

    ``guard`` is the plaintext column in the form by which it is compared when the row is written. ``bound`` are those
    columns of record, tenant and subject that are not in the key. ``perhaps_uuids`` names columns of text whose type is
    what UUIDs are kept in where the database has no type for them; ``columns`` are all that the table has.
    ``limit`` is how many characters the ciphertext's column takes, where it is one of text that has a limit.
    """

    key: int
    key_columns: tuple[str, ...]
    record: tuple[int, ...]
    tenant: int | None
    subject: int | None
    ciphertext: int
    plaintext: int | None
    guard: int | None
    indexes: slice
    bound: tuple[int, ...] = ()
    perhaps_uuids: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What makes a row one that may need something still.

    ``hashes`` are columns of single hashes and what each hash there begins with; ``tokens`` what some token row of each
    record has to begin with, where the field has them. ``is_null_sealed``: a row without a ciphertext is one as well.
    """

    hashes: Mapping[str, bytes]
    tokens: Sequence[bytes]
    is_null_sealed: bool


class RowChange(NamedTuple):
    """What becomes of one row, if its ciphertext is still ``old`` (and its plaintext column still ``guard``).

    A ciphertext is bytes, or text where the column is one of text.
    ``indexes`` are the values of every index column, None to leave them; ``tokens`` the hashes of its token rows.
    ``bound`` is whose the row was, where there was no ciphertext to say so: it has to be the same one's still.
    ``is_imported``: its value was read from another system's form.
    """

    key: RowKey
    old: bytes | str | None
    new: bytes | str | None
    indexes: tuple[bytes | None, ...] | None = None
    guard: object = None
    record: object = None
    tokens: Sequence[bytes] | None = None
    bound: tuple[Any, ...] = ()
    is_imported: bool = False


class ApplicationRows(Protocol):
    """One column of the application's table, and what belongs to it. Blocks; for one thread at a time."""

    @property
    def layout(self) -> RowLayout:
        """Where the columns stand in a row; asks the database at the first use."""

    def require_key(self) -> None:
        """Make sure that reading by key passes no row by.

        Raises:
            InvalidInputError: two rows may have one key, or a row has NULL in it.
        """

    def has_tokens(self, name: str) -> bool:
        """Return whether there is a table of that name beside this one, and it is one of token rows."""

    def prepared(self) -> int:
        """Return how many transactions wrote to the table and are prepared: what they wrote may come to be any time."""

    def count(self) -> int:
        """Return how many rows there are."""

    def versions(self) -> dict[bytes | None, int]:
        """Return how many rows are under each data key (its id, 8 bytes), and under None how many hold nothing."""

    def count_plaintext(self) -> int:
        """Return how many rows have a plaintext and no ciphertext."""

    def upper_key(self, after: RowKey | None, rows: int) -> RowKey | None:
        """Return the key of the ``rows``-th row after ``after``, None where there are fewer."""

    def read(self, after: RowKey | None, until: RowKey | None, limit: int) -> list[Row]:
        """Return rows by key, after one and up to another."""

    def read_keys(self, keys: Collection[RowKey]) -> list[Row]:
        """Return the rows with these keys that are still there, in order."""

    def read_unfinished(self, wanted: Unfinished, after: RowKey | None, limit: int) -> list[Row]:
        """Return rows by key, after one, that may need something still.

        Those with a plaintext, and those with a ciphertext that lack a hash or a token row; with ``is_null_sealed``
        those without a ciphertext as well.
        """

    def read_tokens(self, records: Sequence[object]) -> dict[object, set[bytes]]:
        """Return the token rows of these records; a record without one is absent."""

    def swap(
        self, changes: Sequence[RowChange], *, before_commit: Callable[[], object] | None = None, wait: bool = False
    ) -> set[RowKey]:
        """Write the rows that are still as they were read, in one transaction, and return the keys of those.

        Args:
            changes: at most one for each row, in the order in which rows are read.
            before_commit: called when everything is written; raising undoes it.
            wait: wait for rows that another transaction holds, instead of leaving them out.

        Raises:
            ConflictError: a value is there already in a unique column; nothing was written.
        """

    def close(self) -> None:
        """Close the connection; the next use opens another."""
