"""A log that is open in this process: what waits to be sealed, and the thread that looks after it.

Appending only ever waits for the disk. Calls to a KMS, to sign or for a session key, are made in the log's own thread;
while the end of a file is being signed what is appended waits in memory.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from keystead.errors import InvalidInputError, KMSError, StorageOperationError, SystemShutdownError
from keystead.ledger.checkpoint_signers import CheckpointSigner, LocalSigner, name_for
from keystead.ledger.log_files import LogFiles
from keystead.ledger.log_writer import LogWriter, require_room
from keystead.ledger.records import Kind, Session
from keystead.ledger.resuming import span_of
from keystead.ledger.retaining import merged, removals_in
from keystead.ledger.sealer import BATCH
from keystead.ledger.session_source import ChainedSessions, SessionSource
from keystead.ports import Clock

log = logging.getLogger("keystead.ledger")

Fsync = Literal["flush", "always", "never"]
_QUEUE_BYTES: Final = 1 << 18
_IDLE_S: Final = 60.0
_RETRY_S: Final = 30.0
"""How long after a checkpoint that could not be signed the next one is tried."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """See ``SealedFile``."""

    clock: Clock
    epoch_s: int
    checkpoint_records: int
    checkpoint_s: float
    max_bytes: int | None
    compress: bool
    fsync: Fsync
    buffer_s: float
    chains_on_failure: bool


class OpenLog:
    """One stream, opened by one process. Thread-safe; errors as ``SealedFile``."""

    def __init__(
        self, path: Path, stream: str, source: SessionSource, signer: CheckpointSigner | None, options: LogOptions
    ) -> None:
        self._files = LogFiles(path)
        self.path = path = self._files.path
        self.stream = stream
        self._source = source
        self._options = options
        self._lock = threading.Condition(threading.Lock())
        self._signing = threading.Lock()
        self._compressing = threading.Lock()
        self._queue: list[bytes] = []
        self._queued = 0
        self._waits_since = self._sleeps_until = 0.0
        self._is_closing = self._is_final = self._wants_rotation = False
        self._is_ended = self._is_end_done = self._is_signing_end = False
        self._ended: list[Path] = []
        self._checkpoint_at = time.monotonic() + options.checkpoint_s
        self._files.lock()
        try:
            self.signer = signer or LocalSigner.from_file(f"{path}.key", name_for(stream))
            self._writer = LogWriter(
                self._files, stream, self._draw, options.clock, fsync_always=options.fsync == "always"
            )
        except BaseException:
            self._files.unlock()
            raise
        if options.compress:
            # What an earlier process had no time for.
            self._ended = [each for each in self._files.ended().values() if each.suffix != ".gz"]
        self._thread = threading.Thread(target=self._upkeep, name=f"keystead-log-{path.name}", daemon=True)
        self._thread.start()

    @property
    def session_id(self) -> str:
        """The id of the session that is sealed in now."""
        return self._writer.sealer.session.id

    def append(self, record: bytes) -> None:
        """Append a record that has been looked at."""
        with self._lock:
            self._require_open()
            queue = self._queue
            queue.append(record)
            self._queued += len(record)
            if len(queue) >= BATCH or self._queued >= _QUEUE_BYTES:
                self._try_drain()
            elif len(queue) == 1:
                self._waits_since = time.monotonic()
                self._lock.notify_all()

    def append_many(self, records: list[bytes]) -> None:
        """Append records that have been looked at."""
        with self._lock:
            self._require_open()
            self._queue.extend(records)
            self._queued += sum(map(len, records))
            self._try_drain()

    def flush(self, *, waits: bool = True) -> bool:
        """Write what waits, and put it on disk; return whether that was possible."""
        with self._lock:
            self._require_open()
            while self._is_signing_end:
                if not waits:
                    return False
                self._lock.wait()
            self._drain()
            self._put()
            return True

    def checkpoint(self) -> bytes:
        """Sign the log as it is, and return the checkpoint."""
        self.flush()
        with self._signing:
            self._go_on()
            return self._checkpoint()

    def rotate(self) -> Path:
        """Begin the next file, and return the one that has ended."""
        self.flush()
        with self._signing:
            return self._rotate()

    def retire(self, files: Iterable[int], reason: str) -> None:
        """Remove files that have ended, once that is written and signed."""
        numbers = sorted(set(files))
        with self._compressing:
            ended = self._files.ended()
            if not numbers or not reason or any(number not in ended for number in numbers):
                raise InvalidInputError(f"a removal names files that have ended ({list(ended)}), and its reason")
            going = [ended[number] for number in numbers]
            removals = removals_in(going, self.stream, self.signer.keys)
            spans = [span_of(file, self.stream) for file in going]
        told = [{"file": number, **span} for number, span in zip(numbers, spans, strict=True)]
        removals.setdefault(reason, []).extend(told)
        self.flush()
        with self._signing:
            self._go_on()
            with self._lock:
                for payload in merged(removals):
                    self._writer.control(Kind.RETENTION, payload)
            self._checkpoint()
        with self._compressing, self._files.failing("be removed"):
            for number in numbers:
                self._files.remove(number)
            self._files.sync_folder()

    def close(self) -> None:
        """Sign the stream as closed, and let go of it. After a failure it can be called again."""
        with self._lock:
            self._is_closing = True
            self._lock.notify_all()
        self._thread.join()
        with self._signing:
            if not self._is_final:
                self._go_on()
            with self._lock:
                self._drain()
            self._is_final = True
            self._end(None)
            with self._lock:
                self._put()
        self._writer.close()
        self._files.unlock()

    def forget(self) -> None:
        """Let go of everything without a word, in a child of the process whose log it is."""
        self._is_closing = True
        self._writer.close()
        self._files.unlock()

    def _checkpoint(self) -> bytes:
        """Sign the log, without holding it up where that takes a call to somewhere else."""
        with self._lock:
            if not self.signer.is_remote:
                note = self._writer.checkpoint_now(self.signer.sign)
                self._put()
                return note
            announced = self._writer.cut()
        signature = self.signer.sign(announced.text())
        with self._lock:
            note = self._writer.checkpoint(announced, signature)
            self._put()
            return note

    def _go_on(self) -> None:
        """Begin the next file, where one has ended and an earlier attempt could not."""
        if self._is_ended:
            self._rotate()

    def _rotate(self) -> Path:
        self._end(self._writer.number + 1)
        return self._begin_next()

    def _begin_next(self) -> Path:
        with self._lock:
            ended = self._writer.next_file()
            self._is_ended = self._is_end_done = self._wants_rotation = False
            self._drain()
        self._ended.append(ended)
        return ended

    def _end(self, following: int | None) -> None:
        """Write the end of the file and sign it; what is appended meanwhile waits in memory.

        What the disk refused is sealed all the same: another attempt goes on from there.
        """
        with self._lock:
            if not self._is_ended:
                self._is_ended = True
                self._writer.end_file(following)
            if self._is_end_done:
                return
            self._is_signing_end = True
            text = self._writer.sealer.checkpoint().text()
        try:
            signature = self.signer.sign(text)
            with self._lock:
                self._is_end_done = True
                self._writer.last_checkpoint(signature)
        except StorageOperationError:
            raise
        except KMSError as exc:
            self._is_end_done = True
            log.warning("a log's file ends without a checkpoint: %s", exc.code, extra={"stream": self.stream})
        finally:
            with self._lock:
                self._is_signing_end = False
                self._lock.notify_all()

    def _draw(self, start_ms: int) -> tuple[Session, bytes | None]:
        try:
            return self._source.draw(self.stream, epoch_s=self._options.epoch_s, start_ms=start_ms)
        except KMSError as exc:
            if not self._options.chains_on_failure:
                raise
            told = f"the log {self.path.name} is sealed without a key, since the KMS gives none ({exc.code})"
            warnings.warn(f"{told}; until it does, only checkpoints say who wrote", stacklevel=6)
            log.warning("a log is sealed without a key: %s", exc.code, extra={"stream": self.stream})
            return ChainedSessions().draw(self.stream, epoch_s=0, start_ms=start_ms)

    # With the lock held.

    def _require_open(self) -> None:
        if self._is_closing:
            raise SystemShutdownError(f"the log {self.path.name} was closed")
        require_room(self._writer, self._queued)

    def _drain(self) -> None:
        """Seal and write what waits; behind a file's end it waits for the next file."""
        if self._is_ended:
            return
        if self._queue:
            queue, self._queue, self._queued = self._queue, [], 0
            self._writer.seal(queue)
        else:
            self._writer.write()
        limit = self._options.max_bytes
        if limit is not None and self._writer.size >= limit and not self._wants_rotation:
            self._wants_rotation = True
            self._lock.notify_all()
        if self._is_checkpoint_due() or self._checkpoint_at < self._sleeps_until:
            self._lock.notify_all()

    def _try_drain(self) -> None:
        """Seal and write what waits. What the disk does not take is taken all the same: it is written later."""
        try:
            self._drain()
        except StorageOperationError:
            self._lock.notify_all()

    def _put(self) -> None:
        if self._options.fsync == "never":
            self._writer.write()
        else:
            self._writer.sync()

    # In the log's own thread.

    def _upkeep(self) -> None:
        """Write what waits, go from epoch to epoch, sign, and begin files, until the log is closed."""
        while True:
            with self._lock:
                if not self._is_closing:
                    # The time first: what is due at the end of the pause is not due before it.
                    now = time.monotonic()
                    pause_s = self._pause_s()
                    self._sleeps_until = now + pause_s
                    self._lock.wait(pause_s)
                if self._is_closing:
                    return
                failure = self._settle()
                is_due = self._is_checkpoint_due()
            try:
                if failure is not None:
                    raise failure
                self._look_after(is_due)
            except KMSError as exc:
                # Without the lock: what handles this message may be a log of its own, or this one.
                log.warning("the upkeep of a log failed: %s", exc.code, extra={"stream": self.stream})
                self._checkpoint_at = time.monotonic() + _RETRY_S

    def _look_after(self, is_due: bool) -> None:
        with self._signing:
            if self._wants_rotation or self._is_ended:
                self._rotate()
            elif is_due:
                self._rekey_if_due()
                self._checkpoint()
                self._checkpoint_at = time.monotonic() + self._options.checkpoint_s
        while self._options.compress and self._ended:
            with self._compressing:
                path = self._ended.pop()
                # Unless it was retired meanwhile.
                if path.exists():
                    self._files.compress(path)

    def _settle(self) -> KMSError | None:
        """Go forward and write; return what that failed with."""
        if not self._is_ended:
            self._writer.advance()
        if self._queue and time.monotonic() < self._waits_since + self._options.buffer_s:
            return None
        try:
            self._drain()
        except StorageOperationError as exc:
            return exc
        return None

    def _pause_s(self) -> float:
        now = time.monotonic()
        ends = [_IDLE_S, self._writer.epoch_ends_in_s()]
        if self._queue and not self._is_ended:
            ends.append(self._waits_since + self._options.buffer_s - now)
        if self._writer.unwritten or self._is_ended:
            ends.append(1.0)
        if self._writer.sealer.number > self._writer.checkpointed:
            ends.append(self._checkpoint_at - now)
        return max(0.0, min(each for each in ends if each is not None))

    def _is_checkpoint_due(self) -> bool:
        waiting = self._writer.sealer.number - self._writer.checkpointed
        is_late = time.monotonic() >= self._checkpoint_at
        return waiting >= self._options.checkpoint_records or (waiting > 0 and is_late)

    def _rekey_if_due(self) -> None:
        """Begin another session where the KMS key was rotated, or this one has no key or no further epoch."""
        is_chained = self._writer.sealer.session.key is None and not isinstance(self._source, ChainedSessions)
        if is_chained or self._writer.needs_rekey or self._source.has_rotated():
            now_ms = int(self._options.clock.now().timestamp() * 1000)
            session, key = self._source.draw(self.stream, epoch_s=self._options.epoch_s, start_ms=now_ms)
            with self._lock:
                self._writer.rekey(session, key)
