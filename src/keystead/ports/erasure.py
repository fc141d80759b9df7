"""Subjects, whose keys can be erased, and the log outside the database that remembers erasures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol


@dataclass(frozen=True, slots=True)
class SubjectRecord:
    """A subject, known by a keyed hash of 32 bytes, and its keyring. Spec: docs/spec/erasure-v1.md, 1."""

    id: bytes
    keyring: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ErasureMark:
    """How far a store has followed its erasure log: so many lines, and the SHA-256 of the last one."""

    count: int
    head: bytes


NO_ERASURES: Final = ErasureMark(0, bytes(32))
"""The mark of a log that has not begun."""


class SubjectRows(Protocol):
    """Subjects and the mark of the erasure log."""

    async def find_subjects(self, subject_ids: Collection[bytes]) -> list[SubjectRecord]:
        """Return those of these subjects that there are, by their hashes."""

    async def add_subjects(self, subjects: Sequence[SubjectRecord]) -> None:
        """Insert new subjects; ``ConflictError`` where the hash of one is there already."""

    async def drop_subject(self, keyring: str) -> bool:
        """Remove the subject of a keyring; False when absent."""

    async def subjects(self, *, after: bytes = b"", limit: int = 1000) -> list[SubjectRecord]:
        """Return a page of subjects by hash."""

    async def erasure_mark(self) -> ErasureMark | None:
        """Return how far the erasure log has been followed; None where it has not begun."""

    async def put_erasure_mark(self, mark: ErasureMark) -> None:
        """Write it."""


@dataclass(frozen=True, slots=True)
class LogPosition:
    """A place in an erasure log, behind a line; ``at`` as the log counts. By itself the place before the first."""

    at: int = 0
    last: bytes = b""


class ErasureLog(Protocol):
    """Lines outside the database that are only ever appended. Blocking: called in a thread of its own."""

    def read(self, position: LogPosition) -> tuple[list[bytes], LogPosition]:
        """Return the lines behind a place, and the place behind them; none before the log has begun.

        Raises:
            ErasureLogError: the log is shorter than that place, or has another line before it, or cannot be read.
            StoreUnavailableError: it cannot be reached now.
        """

    def append(self, position: LogPosition, line: bytes) -> None:
        """Add a line directly behind a place, and return when it is durable.

        Raises:
            ConflictError: another line is there by now.
            ErasureLogError, StoreUnavailableError: as ``read``; or it cannot be written.
        """
