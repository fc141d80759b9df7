"""A log that is open in this process: what waits to be sealed, and the two threads that look after it.

Appending only ever waits for the disk. One thread writes what waits and goes from epoch to epoch; the other signs, asks
witnesses, begins files and sessions, and may have to wait for somebody else in all of that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from keystead.crypto.merkle import BATCH
from keystead.errors import KMSError, StorageOperationError, SystemShutdownError
from keystead.ledger.format.records import Kind
from keystead.ledger.format.session_source import SessionSource
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.tlog.checkpoint_signers import CheckpointSigner, LocalSigner, name_for
from keystead.ledger.writing.ended_files import EndedFiles
from keystead.ledger.writing.options import LogOptions
from keystead.ledger.writing.sealer import require_payloads
from keystead.ledger.writing.sessions import LogSessions
from keystead.ledger.writing.signed_writer import SignedWriter
from keystead.ledger.writing.turns import Turn
from keystead.ledger.writing.witnessing import Witnesses
from keystead.ledger.writing.writer import LogWriter, require_room

log = logging.getLogger("keystead.ledger")

_IDLE_S: Final = 60.0
_RETRY_S: Final = 30.0
"""How long after a KMS that did not answer it is asked again."""
_DISK_RETRY_S: Final = 1.0


class OpenLog:
    """One stream, opened by one process. Thread-safe; errors as ``SealedFile``.

    Attributes:
        fresh: records that were appended without the lock, which takes longer than all else: as many as ``most_fresh``.
            Nothing is lost by that: whoever takes them says first that the next record has to tell of itself, and is
            there once more when the log is closed.
        is_told: the thread that writes knows of them; otherwise who appends calls ``tell``.
        is_over: it has let go of the stream.
    """

    def __init__(
        self, path: Path, stream: str, source: SessionSource, signer: CheckpointSigner | None, options: LogOptions
    ) -> None:
        self._files = LogFiles(path)
        self.path = path = self._files.path
        self.stream = stream
        self._sessions = LogSessions(source, path, stream, options)
        self._options = options
        self._turn, self._signs = Turn(path.name, breaks=True), Turn(path.name, breaks=False)
        self._lock, self._signing = self._turn.lock, self._signs.lock
        self._written_due, self._signed_due = threading.Condition(self._lock), threading.Condition(self._lock)
        self.fresh: list[bytes] = []
        self.most_fresh, self.is_told = BATCH - 1, False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._waits_since = self._writes_at = self._signs_at = self._asks_again_at = self._rests_until = 0.0
        self._is_closing = self._is_final = self._is_done = self.is_over = self._wants_rotation = False
        self._wants_checkpoint = False
        self._checkpoint_at = time.monotonic() + options.checkpoint_s
        self._files.lock()
        try:
            self.signer = signer or LocalSigner.from_file(f"{path}.key", name_for(stream))
            self.witnesses = Witnesses(path, stream, options.witnesses)
            self._writer = LogWriter(
                self._files, stream, self._sessions.first, options.clock, fsync_always=options.fsync == "always"
            )
        except BaseException:
            self._files.unlock()
            raise
        self._signed = SignedWriter(
            self._writer, self.signer, self.witnesses, self._turn, self._written_due, syncs=options.fsync != "never"
        )
        self._ended = EndedFiles(self._files, stream, compresses=options.compress)
        self._threads = [self._begin(self._keep_written, "writes"), self._begin(self._keep_signed, "signs")]

    @property
    def session_id(self) -> str:
        """The id of the session that is sealed in now."""
        return self._writer.sealer.session.id

    def append_many(self, records: list[bytes]) -> None:
        """Append records, all or none of them."""
        require_payloads(records)
        self._turn.settle()
        with self._lock:
            self._require_open()
            if self._turn.is_interrupted:
                # What is being sealed just now must not be touched; who does that, or the thread that writes, goes on.
                self.fresh += records
                self.tell()
                return
            with self._turn:
                self._take_fresh()
                self._waiting += records
                self._waiting_bytes += sum(map(len, records))
                try:
                    self._drain()
                except StorageOperationError:
                    if self.is_broken:
                        raise
                    # Taken all the same: it is sealed, and written by a later attempt.
                    self._written_due.notify_all()

    def flush(self, *, waits: bool = True) -> bool:
        """Write what waits, and put it on disk; return whether that was possible.

        Where nothing but checkpoints says who wrote, one is signed.
        """
        if not waits and (self._turn.is_locked_here or self._signs.is_locked_here):
            return False
        while not self._is_written_out():
            if not waits:
                return False
            with self._signing, self._signs:
                self._go_on()
        with self._lock:
            number, writer = self._writer.sealer.number, self._writer
            if writer.sealer.session.key is not None or writer.checkpointed >= number:
                return True
            if not waits:
                self._wants_checkpoint = True
                self._signed_due.notify_all()
                return False
        self._vouch(number)
        return True

    def checkpoint(self) -> bytes:
        """Sign the log as it is, and return the checkpoint."""
        self._is_written_out()
        with self._signing, self._signs:
            self._go_on()
            self._signed.rekey_if_due(self._sessions)
            note = self._signed.checkpoint()
        self.witnesses.require_one_history()
        return note

    def rotate(self) -> Path:
        """Begin the next file, and return the one that has ended."""
        self._is_written_out()
        with self._signing, self._signs:
            self._require_not_closed()
            return self._rotate()

    def retire(self, files: Iterable[int], reason: str) -> None:
        """Remove files that have ended, once that is written and signed."""
        numbers = sorted(set(files))
        told = self._ended.removals(numbers, reason, self.signer.keys)
        self._is_written_out()
        with self._signing, self._signs:
            self._go_on()
            self._signed.say(Kind.RETENTION, told)
            self._signed.checkpoint()
        # A witness that has not seen what follows could never be shown that the log has only grown.
        self.witnesses.require_all()
        self._ended.remove(numbers)

    def close(self) -> None:
        """Sign the stream as closed, and let go of it. After a failure it can be called again."""
        self._turn.require_free()
        self._signs.require_free()
        with self._lock:
            self._is_closing, self.is_told, self.most_fresh = True, False, 0
            self._written_due.notify_all()
            self._signed_due.notify_all()
        for thread in self._threads:
            thread.join()
        try:
            self._end()
        finally:
            if self._is_done or self.is_broken:
                self._writer.close()
                self._files.unlock()
                self.is_over = True

    def _end(self) -> None:
        with self._signing, self._signs:
            if not self._is_final and self._signed.is_ended:
                self._rotate()
            with self._lock, self._turn:
                self._drain()
            self._is_final = True
            self._signed.end(None)
            with self._lock, self._turn:
                self._signed.put()
            self._is_done = True

    @property
    def is_broken(self) -> bool:
        """Whether it takes nothing any more, and has to be opened anew."""
        return self._turn.is_broken or self._writer.is_lost

    def forget(self) -> None:
        """Let go of everything without a word, in a child of the process whose log it is."""
        self._is_closing = True
        self._writer.close()
        self._files.unlock()

    def _is_written_out(self) -> bool:
        """Write what waits and put it on disk; return False where it has to wait for the next file."""
        self._signs.settle()
        self._turn.require_free()
        with self._lock, self._turn:
            self._require_open()
            if self._signed.is_ended:
                return False
            self._drain()
            self._signed.put()
            return True

    def _vouch(self, number: int) -> None:
        """Sign the log, unless a checkpoint is over the records before ``number`` already."""
        try:
            with self._signing, self._signs:
                self._go_on()
                if self._writer.checkpointed < number:
                    self._signed.checkpoint()
        except StorageOperationError:
            raise
        except KMSError as exc:
            if not self._sessions.is_fallback:
                raise
            # Sealed without a key for as long as the KMS is away: that has been said, and is what was asked for.
            log.warning("a log's checkpoint is not signed: %s", exc.code, extra={"stream": self.stream})

    def _go_on(self) -> None:
        """Begin the next file, where one has ended and an earlier attempt could not; a close may have come before."""
        self._require_not_closed()
        if self._signed.is_ended:
            self._rotate()

    def _rotate(self) -> Path:
        ended = self._signed.rotate()
        with self._lock, self._turn:
            self._wants_rotation = False
            self._ended.add(ended)
            self._signed_due.notify_all()
            self._drain()
            self._signed.put()
        return ended

    def tell(self) -> None:
        """See that a record that was appended without the lock is written in its time."""
        with self._lock:
            self._require_taking()
            self.is_told, self._waits_since = True, time.monotonic()
            if self._waits_since + self._options.buffer_s < self._writes_at:
                self._written_due.notify_all()

    def _require_not_closed(self) -> None:
        if self._is_closing:
            raise SystemShutdownError(f"the log {self.path.name} was closed")

    def _require_taking(self) -> None:
        self._require_not_closed()
        self._turn.require_whole()
        self._writer.require_kept()

    # With the lock held.

    def _require_open(self) -> None:
        self._require_taking()
        require_room(self._writer, self._waiting_bytes)

    def _take_fresh(self) -> None:
        """Take what was appended without the lock."""
        self.is_told = False
        count = len(self.fresh)
        taken = self.fresh[:count]
        del self.fresh[:count]
        self._waiting += taken
        self._waiting_bytes += sum(map(len, taken))

    def _drain(self) -> None:
        """Seal and write what waits; behind a file's end it waits for the next file."""
        self._take_fresh()
        # Until it has been written, who appends takes the lock, and sees whether there is room.
        self.most_fresh = 0
        if self._signed.is_ended:
            return
        if self._waiting:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            self._writer.seal(waiting)
        else:
            self._writer.write()
        self.most_fresh = 0 if self._is_closing else BATCH - 1
        limit = self._options.max_bytes
        if limit is not None and self._writer.size >= limit and not self._wants_rotation:
            self._wants_rotation = True
            self._signed_due.notify_all()
        if self._is_checkpoint_due() or self._checkpoint_at < self._signs_at:
            self._signed_due.notify_all()

    def _is_checkpoint_due(self) -> bool:
        now, waiting = time.monotonic(), self._writer.sealer.number - self._writer.checkpointed
        is_wanted = self._wants_checkpoint or waiting >= self._options.checkpoint_records or now >= self._checkpoint_at
        return waiting > 0 and is_wanted and now >= self._asks_again_at

    # In the thread that writes.

    def _keep_written(self) -> None:
        """Write what waits, and go from epoch to epoch, until the log is closed."""
        while True:
            with self._lock:
                if not self._is_closing:
                    # The time first: what is due at the end of the pause is not due before it.
                    now = time.monotonic()
                    pause_s = self._pause_s(now)
                    self._writes_at = now + pause_s
                    self._written_due.wait(pause_s)
                if self._is_closing:
                    return
                failure = self._settle()
            if failure is not None:
                # Without the lock: what handles this message may be a log of its own, or this one.
                log.warning("a log cannot be written: %s", failure.code, extra={"stream": self.stream})

    def _settle(self) -> KMSError | None:
        """Go forward and write; return what that failed with."""
        try:
            with self._turn:
                if self._signed.may_advance:
                    self._writer.advance()
                if not self.is_told or time.monotonic() >= self._waits_since + self._options.buffer_s:
                    self._drain()
        except StorageOperationError as exc:
            self.most_fresh = 0 if self.is_broken else self.most_fresh
            return exc
        return None

    def _pause_s(self, now: float) -> float:
        if self.is_broken:
            return _IDLE_S
        ends = [_IDLE_S, self._writer.epoch_ends_in_s() if self._signed.may_advance else None]
        if self.is_told:
            ends.append(self._waits_since + self._options.buffer_s - now)
        if self._writer.unwritten:
            ends.append(_DISK_RETRY_S)
        return max(0.0, min(each for each in ends if each is not None))

    # In the thread that signs.

    def _keep_signed(self) -> None:
        """Sign, and begin files and sessions, until the log is closed."""
        while True:
            with self._lock:
                while not self._is_closing and not self._is_due():
                    now = time.monotonic()
                    pause_s = self._signing_pause_s(now)
                    self._signs_at = now + pause_s
                    self._signed_due.wait(pause_s)
                if self._is_closing:
                    return
            try:
                self._look_after()
            except KMSError as exc:
                log.warning("the upkeep of a log failed: %s", exc.code, extra={"stream": self.stream})
                now = time.monotonic()
                if isinstance(exc, StorageOperationError):
                    self._rests_until = now + _DISK_RETRY_S
                else:
                    self._asks_again_at = now + _RETRY_S

    def _is_due(self) -> bool:
        if self.is_broken or time.monotonic() < self._rests_until:
            return False
        return self._wants_rotation or self._signed.is_ended or self._ended.has_work or self._is_checkpoint_due()

    def _signing_pause_s(self, now: float) -> float:
        at = now + _IDLE_S
        if not self.is_broken and self._writer.sealer.number > self._writer.checkpointed:
            at = min(at, max(self._checkpoint_at, self._asks_again_at))
        return max(0.001, self._rests_until - now, at - now if now >= self._rests_until else 0.0)

    def _look_after(self) -> None:
        with self._signing, self._signs:
            if self._wants_rotation or self._signed.is_ended:
                self._rotate()
            elif self._is_checkpoint_due():
                self._wants_checkpoint = False
                self._signed.rekey_if_due(self._sessions)
                self._signed.checkpoint()
                self._checkpoint_at = time.monotonic() + self._options.checkpoint_s
        self._ended.compress()

    def _begin(self, work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"keystead-log-{self.path.name}-{name}", daemon=True)
        thread.start()
        return thread
