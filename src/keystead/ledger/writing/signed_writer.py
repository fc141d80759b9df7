"""A log's writer, and who signs for it: checkpoints, and the ends of files.

Calls to somewhere else, of a KMS or of witnesses, are made without the log's lock: what is appended meanwhile is
sealed, or waits where the end of a file is being signed, behind which nothing but its checkpoint may stand.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Condition
from typing import Any, Final

from keystead.errors import KMSError, StorageOperationError
from keystead.ledger.format.records import Kind
from keystead.ledger.tlog.checkpoint_signers import CheckpointSigner
from keystead.ledger.tlog.note import Note
from keystead.ledger.writing.sessions import LogSessions
from keystead.ledger.writing.turns import Turn
from keystead.ledger.writing.witnessing import Witnesses
from keystead.ledger.writing.writer import LogWriter

log = logging.getLogger("keystead.ledger")

WITNESS_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 5.0
"""How long witnesses are waited for at a checkpoint, and when a log is closed."""


class SignedWriter:
    """One caller at a time, but for what is said to be called with the log's turn taken.

    Args:
        turn: the log's, which is taken for all that is sealed.
        ended_is_signed: what waits for the end of a file to be signed; a condition of its lock.
        syncs: whether what is written is put on disk.

    Attributes:
        is_ended: the file has ended, and the next one has not begun.
    """

    def __init__(
        self,
        writer: LogWriter,
        signer: CheckpointSigner,
        witnesses: Witnesses,
        turn: Turn,
        ended_is_signed: Condition,
        *,
        syncs: bool,
    ) -> None:
        self.writer = writer
        self.signer = signer
        self.witnesses = witnesses
        self.is_ended = False
        self._lock = turn.lock
        self._turn = turn
        self._ended_is_signed = ended_is_signed
        self._stream = writer.sealer.stream
        self._syncs = syncs
        self._is_end_done = False

    @property
    def may_advance(self) -> bool:
        """Whether another epoch may begin: behind the end of a file, not before its checkpoint has been written."""
        return not self.is_ended or self._is_end_done

    def put(self) -> None:
        """Write what is sealed, and put it on disk; the turn is taken."""
        if self._syncs:
            self.writer.sync()
        else:
            self.writer.write()

    def checkpoint(self) -> bytes:
        """Sign the log as it is, and return the checkpoint.

        Raises:
            KMSError: the signing key's KMS does not sign.
            StorageOperationError: the disk does not take it.
        """
        with self._lock, self._turn:
            if not self.signer.is_remote and not self.witnesses:
                note = self.writer.checkpoint_now(self._signed)
                self.put()
                return note
            announced = self.writer.cut()
        note = self.witnesses.cosigned(self._signed(announced.text()), WITNESS_TIMEOUT_S)
        with self._lock, self._turn:
            self.writer.checkpoint(announced, note)
            self.put()
        return note

    def rekey_if_due(self, sessions: LogSessions) -> None:
        """Begin another session where it is time for one; the log goes on in its own where the KMS gives none.

        Raises:
            StorageOperationError: the disk does not take it.
        """
        try:
            following = sessions.following(self.writer)
            if following is not None:
                with self._lock, self._turn:
                    self.writer.rekey(*following)
        except StorageOperationError:
            raise
        except KMSError as exc:
            log.warning("a log goes on in its session: %s", exc.code, extra={"stream": self._stream})

    def say(self, kind: Kind, payloads: Iterable[Mapping[str, Any]]) -> None:
        """Seal records of the log's own; errors as ``checkpoint``."""
        with self._lock, self._turn:
            for payload in payloads:
                self.writer.control(kind, payload)

    def rotate(self) -> Path:
        """End the file and begin the next one; return the one that has ended. After a failure it can be called again.

        Raises:
            StorageOperationError: what the last one should hold, or the next one, cannot be written.
        """
        if self.witnesses and not self.is_ended:
            self._checkpoint_before_end()
        self.end(self.writer.number + 1)
        with self._lock, self._turn:
            ended = self.writer.next_file()
            self.is_ended = self._is_end_done = False
        return ended

    def end(self, following: int | None) -> None:
        """Write the end of the file and sign it; errors as ``rotate``.

        What the disk refused is sealed all the same: another attempt goes on from there.
        """
        with self._lock, self._turn:
            if not self.is_ended:
                self.is_ended = True
                self.writer.end_file(following)
            if self._is_end_done:
                return
            text = self.writer.sealer.checkpoint().text()
        try:
            note = self._signed(text)
            if following is None:
                note = self.witnesses.cosigned(note, CLOSE_TIMEOUT_S)
            with self._lock, self._turn:
                self._is_end_done = True
                self.writer.last_checkpoint(note)
        except StorageOperationError:
            raise
        except KMSError as exc:
            self._is_end_done = True
            log.warning("a log's file ends without a checkpoint: %s", exc.code, extra={"stream": self._stream})
        finally:
            with self._lock:
                # An epoch that ended meanwhile has waited for this.
                self._ended_is_signed.notify_all()

    def _checkpoint_before_end(self) -> None:
        """Have what is there cosigned: for the end itself no record waits until witnesses have answered."""
        try:
            self.checkpoint()
        except StorageOperationError:
            raise
        except KMSError as exc:
            log.warning("a log's checkpoint is not signed: %s", exc.code, extra={"stream": self._stream})

    def _signed(self, text: str) -> bytes:
        return Note(text, (self.signer.sign(text),)).render()
