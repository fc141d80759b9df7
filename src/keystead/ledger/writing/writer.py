"""A log's one writer: what is sealed, where it stands on disk, and when a file ends. Not thread-safe; see SealedFile.

What was sealed is written as it is, however often that has to be tried: another attempt never seals anew, since what
follows is sealed behind it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from keystead.errors import ConfigurationError, StorageOperationError
from keystead.ledger.format.records import MAX_EPOCHS, Kind, Session
from keystead.ledger.reading.files import LogFiles
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.writing.resuming import LastState, last_state
from keystead.ledger.writing.sealer import Sealer
from keystead.ports import Clock

CLOCK_STEP_MS: Final = 1000
MAX_UNWRITTEN_BYTES: Final = 16 << 20
"""What is kept while the disk takes nothing; then appending is refused."""
MAX_QUEUED_BYTES: Final = 64 << 20
"""What is kept while the end of a file is signed, and the next one cannot begin; then appending is refused."""
_CHUNK_BYTES: Final = 1 << 20

Draw = Callable[[int, Session | None], tuple[Session, "bytes | None"]]
"""Returns a new session that starts at a time, and its key; given the last one of the log that has a key."""


class LogWriter:
    """Opens a log where it ended, or anew, and goes on.

    Attributes:
        is_lost: what was written may not have come to the disk; it takes no more.

    Raises:
        ConfigurationError: the file is no log, of another stream, compressed, or sealed under another KEK.
        ConflictError: another process writes it.
        StorageOperationError: it cannot be read or written.
        KMSError: the KMS gives no session.
    """

    def __init__(self, files: LogFiles, stream: str, draw: Draw, clock: Clock, *, fsync_always: bool) -> None:
        self._files = files
        self._stream = stream
        self._clock = clock
        self._fsync_always = fsync_always
        self._unwritten = bytearray()
        self._is_synced = True
        self.is_lost = False
        self._pending: int | None = None
        self.number = 1
        self.size = 0
        self.checkpointed = 0
        self._file: IO[bytes] | None = None
        self.sealer: Sealer
        try:
            self._begin(draw)
        except BaseException:
            if self._file is not None:
                self._file.close()
            raise
        self.checkpointed = self.sealer.number

    def _begin(self, draw: Draw) -> None:
        files, stream = self._files, self._stream
        current = files.path.exists()
        ended = files.ended()
        state = None
        if current:
            # Before it is looked at: from here on nobody else writes it.
            self._file = files.open()
            if LogFile(files.path).is_compressed:
                raise ConfigurationError(f"{files.path} is compressed; put it back as it was: run gunzip on it")
            state = last_state(files.path, stream)
            if ended and max(ended) >= state.file:
                raise ConfigurationError(
                    f"{files.path} is file {state.file} of its stream, and {ended[max(ended)].name} has ended: it was "
                    "put back to an earlier state. Put back the last one, or move all files of the log away"
                )
        elif ended:
            state = last_state(ended[max(ended)], stream)
        # Before the key is drawn, which may take longer than an epoch.
        start_ms, self._started_s = self.moment()
        session, key = draw(start_ms, None if state is None else state.session)
        self._start_ms = session.start
        if state is None:
            self.sealer = Sealer(stream, session, key)
            self._new_file(1, begins=session)
        else:
            self.sealer = Sealer(stream, session, key, tree=state.tree, tag=state.tag, time_ms=state.time_ms)
            self._resume(state, session, key)

    @property
    def unwritten(self) -> int:
        """Bytes that are sealed and not on disk yet."""
        return len(self._unwritten)

    def seal(self, payloads: Sequence[bytes]) -> None:
        """Seal records of the application and write them.

        Raises:
            StorageOperationError: the disk takes them not; they are sealed, and written by a later attempt.
        """
        lines, now_ms = self._advanced()
        self._take(lines + self.sealer.seal(payloads, now_ms))

    def control(self, kind: Kind, payload: Mapping[str, Any]) -> None:
        """Seal one of the log's own records and write it; errors as ``seal``."""
        lines, now_ms = self._advanced()
        self._take(lines + self.sealer.control(kind, payload, now_ms))

    def advance(self) -> None:
        """End the epochs whose time is over, and erase their keys. Nothing is written."""
        self._end_epochs(self._elapsed_s())

    def epoch_ends_in_s(self) -> float | None:
        """Return when the next epoch begins; None where there are none."""
        epoch_s = self.sealer.session.epoch_s
        if not epoch_s or self.sealer.session.epoch >= MAX_EPOCHS - 1:
            return None
        return max(0.0, (self.sealer.session.epoch + 1) * epoch_s - self._elapsed_s())

    @property
    def needs_rekey(self) -> bool:
        """Whether half of the session's epochs are over: behind the last one no record would have its time."""
        return self.sealer.session.epoch >= MAX_EPOCHS // 2

    def moment(self) -> tuple[int, float]:
        """Return what the clocks say for a session to start: milliseconds, and seconds of the monotonic one."""
        return self._now_ms(), self._clock.monotonic()

    def rekey(self, session: Session, key: bytes | None, started_s: float) -> None:
        """Hand over to another session; errors as ``seal``.

        Args:
            started_s: what the monotonic clock said where the session starts.
        """
        lines, now_ms = self._advanced()
        lines += self.sealer.rekey(session, key, now_ms)
        self._start_ms, self._started_s = session.start, started_s
        self._take(lines)

    def cut(self) -> Checkpoint:
        """Announce a checkpoint over all records so far, and return what is to be signed; errors as ``seal``."""
        lines, now_ms = self._advanced()
        self._take(lines)
        checkpoint = self.sealer.checkpoint()
        self._take(self.sealer.control(Kind.CUT, {}, now_ms))
        return checkpoint

    def checkpoint(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Write a signed checkpoint that a cut announced; errors as ``seal``."""
        is_last = self.sealer.number == checkpoint.size + 1
        self.control(Kind.CHECKPOINT, {"note": note.decode()})
        # What was sealed while it was being signed is under the next one.
        self.checkpointed = self.sealer.number if is_last else checkpoint.size + 1

    def checkpoint_now(self, signed: Callable[[str], bytes]) -> bytes:
        """Sign and write a checkpoint over all records so far, and return it as a note; errors as ``seal``."""
        self._take(self._advanced()[0])
        note = signed(self.sealer.checkpoint().text())
        self.last_checkpoint(note)
        return note

    def end_file(self, following: int | None) -> None:
        """Write that the file ends: the stream goes on in ``following``, or is closed. Errors as ``seal``.

        Nothing but a last checkpoint may come after it.
        """
        self.control(Kind.CLOSE, {} if following is None else {"next": following})

    def last_checkpoint(self, note: bytes) -> None:
        """Write a signed checkpoint over all records so far, as behind the end of a file; errors as ``seal``."""
        # With the time of the record before: a signature may take longer than what is left of the epoch.
        self._take(self.sealer.control(Kind.CHECKPOINT, {"note": note.decode()}, self.sealer.time_ms))
        self.checkpointed = self.sealer.number

    def next_file(self) -> Path:
        """Begin the next file, and return the one that has ended.

        Raises:
            StorageOperationError: what the last one should hold, or the next one, cannot be written. It can be tried
                again.
        """
        ended = self._files.name_of(self.number)
        if self._pending is None:
            if self._file is not None:
                self.sync()
                self._file.close()
                self._file = None
            if self._files.path.exists():
                self._files.end(self.number)
        self._new_file(self.number + 1)
        return ended

    def sync(self) -> None:
        """Write what is sealed, and put it on disk; errors as ``seal``."""
        self.write()
        self._put_on_disk()

    def write(self) -> None:
        """Write what is sealed; errors as ``seal``."""
        if self.is_lost:
            self.require_kept()
        while self._unwritten and self._file is not None:
            written = self._write_some(self._file, memoryview(self._unwritten)[:_CHUNK_BYTES].tobytes())
            del self._unwritten[:written]
        if self._fsync_always:
            self._put_on_disk()

    def close(self) -> None:
        """Erase the key and close the file."""
        self.sealer.wipe()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put_on_disk(self) -> None:
        if self._is_synced or self._file is None:
            return
        try:
            with self._files.failing("be put on disk, and has to be opened anew"):
                os.fsync(self._file.fileno())
                if os.fstat(self._file.fileno()).st_nlink == 0:
                    raise FileNotFoundError(errno.ENOENT, "its file was deleted")
        except StorageOperationError:
            # The system may forget what it could not write, and say of the next attempt that all is well.
            self.is_lost = True
            raise
        self._is_synced = True

    def require_kept(self) -> None:
        """Raise ``StorageOperationError`` where the disk failed to keep what was written."""
        if self.is_lost:
            raise StorageOperationError(
                f"the log {self._files.path} takes no more, since its disk failed to keep what was written, or its "
                "file was deleted: see to that, and open it anew"
            )

    def _take(self, lines: bytes) -> None:
        if self.is_lost:
            self.require_kept()
        self.size += len(lines)
        if self._unwritten or self._file is None:
            self._unwritten += lines
        elif lines:
            # What the disk takes at once, as it nearly always does, is not copied.
            written = 0
            try:
                written = self._write_some(self._file, lines)
            finally:
                if written < len(lines):
                    self._unwritten += memoryview(lines)[written:]
        if self._unwritten or self._fsync_always:
            self.write()

    def _write_some(self, file: IO[bytes], content: bytes) -> int:
        with self._files.failing("be written"):
            written = file.write(content) or 0
        self._is_synced = False
        return written

    def _new_file(self, number: int, *, begins: Session | None = None) -> None:
        if self._pending is None:
            # Sealed once: should the disk refuse it, another attempt writes the same line.
            if begins is None:
                elapsed_s = self._elapsed_s()
                self._end_epochs(elapsed_s)
                now_ms = self._expected_ms(elapsed_s)
            else:
                # A session follows the record before it by its first epoch, which may be over by now.
                now_ms = begins.start
            self._unwritten += self.sealer.file(number, now_ms)
            self._pending = number
        content = bytes(self._unwritten)
        self._file = self._files.create(content)
        self._unwritten.clear()
        self._pending = None
        self.number, self.size, self._is_synced = number, len(content), True

    def _resume(self, state: LastState, session: Session, key: bytes | None) -> None:
        self.number = state.file
        if self._file is None and not state.goes_on:
            raise ConfigurationError(
                f"{self._files.path} is gone, and the file before it did not end: put it back; a log is ended by "
                "rotate() or max_bytes, not by moving it away"
            )
        if state.goes_on:
            # The file ended, and the process with it before the next one began.
            if self._file is not None:
                self._file.close()
                self._file = None
                self._files.end(state.file)
            self._new_file(state.file + 1, begins=session)
            return
        self.size = state.size
        lines = b"" if state.has_end else b"\n"
        # Both in the first epoch, as where a file begins by a session.
        lines += self.sealer.resume(session, key, session.start)
        if not state.is_closed:
            size, digest = state.torn
            lines += self.sealer.control(Kind.RECOVERY, {"bytes": size, "sha256": digest}, session.start)
        self._take(lines)
        self.sync()

    def _advanced(self) -> tuple[bytes, int]:
        """Return the lines that come before the next record, of an epoch that began and a clock that was set; its time.

        The clocks are read once: one that is set between two readings would put a record into an epoch of other times.
        """
        elapsed_s, now_ms = self._elapsed_s(), self._now_ms()
        self._end_epochs(elapsed_s)
        expected_ms = self._expected_ms(elapsed_s)
        lines = self.sealer.epoch(expected_ms) if self.sealer.is_in_new_epoch else b""
        step = now_ms - expected_ms
        if self.sealer.session.epoch_s and abs(step) > CLOCK_STEP_MS:
            lines += self.sealer.clock_step(step, now_ms)
        return lines, now_ms

    def _end_epochs(self, elapsed_s: float) -> None:
        epoch_s = self.sealer.session.epoch_s
        if epoch_s:
            self.sealer.end_epochs(int(elapsed_s // epoch_s))

    def _elapsed_s(self) -> float:
        return self._clock.monotonic() - self._started_s

    def _expected_ms(self, elapsed_s: float) -> int:
        """Return the time by the monotonic clock, from where the session started and the clock was set since."""
        return self._start_ms + self.sealer.session.steps + int(elapsed_s * 1000)

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def require_room(writer: LogWriter, queued: int = 0) -> None:
    """Raise ``StorageOperationError`` where too much waits for the disk already, or for the next file."""
    if writer.unwritten > MAX_UNWRITTEN_BYTES:
        raise StorageOperationError("the log's disk takes nothing, and too much is waiting for it; make room")
    if queued > MAX_QUEUED_BYTES:
        raise StorageOperationError("the log's next file does not begin, and too much is waiting for it; make room")
