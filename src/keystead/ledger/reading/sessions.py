"""A session as a reader follows it: its key, the epoch it has come to, and the times its records may have."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from keystead.ledger.format.records import MAX_EPOCHS, MalformedRecordError, Record, Session, tag_text
from keystead.ledger.format.tags import SessionKey, Tagger, unkeyed_tagger

TOLERANCE_MS: Final = 2000
_ALWAYS: Final = 1 << 62


class OpenSession:
    """A session in one epoch.

    Attributes:
        told: what the log says of it, as it stands now.
        tagger: what its records are sealed with; None where its key is not at hand.
        low_ms, high_ms: bounds of a record's time.
    """

    def __init__(self, told: Session, stream: str, key: SessionKey | None) -> None:
        self.told = told
        self._stream = stream
        self._key = key
        self.tagger: Tagger | None
        if key is not None:
            self.tagger = key.tagger()
        else:
            self.tagger = unkeyed_tagger(stream) if told.key is None else None
        self._bound()

    @classmethod
    def begin(cls, told: Session, stream: str, key: bytes | None) -> OpenSession:
        """Return a session with its key, in the epoch that it is told to be in."""
        return cls(told, stream, None if key is None else SessionKey(key, stream, epoch=told.epoch))

    @property
    def is_keyed(self) -> bool:
        """Whether the tags of its records are checked by a key."""
        return self._key is not None

    def seals(self, record: Record, tag: bytes) -> bytes | None:
        """Return a record's tag if the session sealed it after ``tag``, else None."""
        if self.tagger is None:
            return None
        found = self.tagger(tag + record.head)
        return found if tag_text(found) == record.tag else None

    def at_epoch(self, epoch: int, number: int, tag: bytes) -> tuple[OpenSession, bytes]:
        """Return the session in a later epoch, and what stands for the last tag there; this one stays as it is.

        Raises:
            MalformedRecordError: the epoch is not later, or later than any session's.
        """
        if not self.told.epoch < epoch < MAX_EPOCHS:
            raise MalformedRecordError("an epoch that does not follow")
        key = None if self._key is None else self._key.copy()
        while key is not None and key.epoch < epoch:
            tag = key.end_epoch(number, tag)
        return OpenSession(replace(self.told, epoch=epoch), self._stream, key), tag

    def step(self, step_ms: int) -> None:
        """Note that the clock was set."""
        self.told = replace(self.told, steps=self.told.steps + step_ms)
        self._bound()

    def _bound(self) -> None:
        told = self.told
        if not told.epoch_s:
            self.low_ms, self.high_ms = 0, _ALWAYS
            return
        begins = told.start + told.steps + told.epoch * told.epoch_s * 1000
        is_last = told.epoch == MAX_EPOCHS - 1
        self.low_ms = begins - TOLERANCE_MS
        self.high_ms = _ALWAYS if is_last else begins + told.epoch_s * 1000 + TOLERANCE_MS
