"""The log behind sealed sinks: what waits to be sealed, what could not be, and the files it ends in.

Taking a record does no I/O. Draining does, and belongs in a thread; while the log cannot be opened or written, records
wait, up to a bound, and how many were lost beyond it is sealed when it can be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keystead.errors import (
    ConfigurationError,
    ConflictError,
    KMSError,
    StorageOperationError,
    SystemShutdownError,
)
from keystead.integrations.fapilog.alarm import Alarm
from keystead.integrations.fapilog.files import FileKeeper
from keystead.integrations.fapilog.keys import SinkKeys
from keystead.integrations.fapilog.payload import loss_record
from keystead.ledger import LocalSigner, SealedFile, Verifier
from keystead.model.counts import counted
from keystead.runtime import fork
from keystead.runtime.files import replace_file

if TYPE_CHECKING:
    from keystead.integrations.fapilog.settings import SinkSettings
    from keystead.ledger import TrustPolicy
    from keystead.ledger.writing.keys import LogKeys

MAX_WAITING: Final = 20_000
MAX_WAITING_BYTES: Final = 32 << 20
RETRY_S: Final = 5.0
"""How long after a failure the log is tried again."""
MOST_PROCESSES: Final = 64


class SinkLog:
    """One log, of one or more sinks of this process. Thread-safe."""

    def __init__(self, settings: SinkSettings, keys: SinkKeys | None = None) -> None:
        self.settings = settings
        self.alarm = Alarm(settings.path.name)
        self._sink_keys = keys or SinkKeys(settings)
        self._keys: LogKeys | None = None
        self._file: SealedFile | None = None
        self._keeper: FileKeeper | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._lost = 0
        self._lost_since = 0.0
        self._failure: KMSError | None = None
        self._retry_at = 0.0
        self._renew_locks()
        fork.in_child(self._in_child)

    def __repr__(self) -> str:
        return f"<SinkLog {self.settings.path.name!r} of {self.settings.stream!r}>"

    @property
    def is_waiting(self) -> bool:
        """Whether records wait to be sealed."""
        return bool(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing that another log could take away: it never opened, and nothing waits for it."""
        return self._file is None and not self._waiting and not self._lost

    @property
    def waiting(self) -> int:
        """How many records wait to be sealed."""
        return len(self._waiting)

    @property
    def failure(self) -> KMSError | None:
        """Why the log could not be opened or written when that was tried last."""
        return self._failure

    @property
    def session_id(self) -> str | None:
        """The session that is sealed in; None while the log is not open."""
        file = self._file
        return None if file is None else file.session_id

    def take(self, record: bytes) -> None:
        """Take a record, to be sealed when the log is drained.

        Raises:
            StorageOperationError: too many wait already; the record was not taken.
        """
        with self._lock:
            if len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES:
                why = f": {self._failure}" if self._failure is not None else ""
                raise StorageOperationError(f"too many records wait to be sealed{why}")
            self._waiting.append(record)
            self._waiting_bytes += len(record)

    def lose(self) -> None:
        """Count a record that was not taken: the number is sealed as soon as that is possible."""
        with self._lock:
            self._lost_since = self._lost_since or time.time()
            self._lost += 1

    def open(self) -> SealedFile:
        """Return the log's file, opened if it is not. Blocks.

        Raises:
            KMSError: as ``SealedFile``; the same again, without trying, for a short while.
        """
        with self._draining:
            return self._opened(is_last=False)

    def drain(self, *, is_last: bool = False) -> None:
        """Seal what waits, and hand it to the kernel. Blocks on the disk, and on a KMS where the log is to be opened.

        Args:
            is_last: try, however short a while ago that failed.

        Raises:
            KMSError: it cannot be opened or written. What waits goes on waiting.
        """
        with self._draining:
            if not self._waiting and not self._lost:
                return  # and a log that was closed stays so
            file = self._opened(is_last=is_last)
            try:
                try:
                    self._append(file)
                except SystemShutdownError:
                    self._file = None  # somebody closed it
                    file = self._opened(is_last=True)
                    self._append(file)
            except KMSError as exc:
                raise self._failed(exc) from None
            self._recovered()
        if self._keeper is not None:
            self._keeper.look(file)

    def probe(self) -> None:
        """Return if the log works, after a failure once it was tried again. Blocks.

        Raises:
            KMSError: it does not work yet.
        """
        with self._draining:
            if self._failure is None:
                return
            if time.monotonic() < self._retry_at:
                raise self._failure
            try:
                self._opened(is_last=True).flush()
            except KMSError as exc:
                raise self._failed(exc) from None
            self._recovered()

    def flush(self) -> None:
        """Put everything on disk; errors as ``drain``."""
        self.drain(is_last=True)
        file = self._file
        try:
            if file is not None:
                file.flush()
        except KMSError as exc:
            raise self._failed(exc) from None

    def checkpoint(self) -> bytes:
        """Sign the log as it is and return the checkpoint; errors as ``SealedFile.checkpoint``."""
        self.drain(is_last=True)
        note = self.open().checkpoint()
        self._export(note)
        return note

    def rotate(self) -> Path:
        """End the file, begin the next one, return the one that has ended; errors as ``SealedFile.rotate``."""
        self.drain(is_last=True)
        file = self.open()
        ended = file.rotate()
        if self.settings.own.manifest_path is not None:
            self._export(file.checkpoint())
        return ended

    def trust_policy(self) -> TrustPolicy:
        """Return what a reader has to trust; covers the streams of other processes as well."""
        return dataclasses.replace(self.open().trust_policy(), stream=self.settings.stream)

    def close(self, *, is_whole: bool = True) -> None:
        """Seal what waits and close the log; idempotent. Another record opens it again.

        Args:
            is_whole: False: more may come, from elsewhere: sign the log as it is, and leave it open.

        Raises:
            KMSError: not everything could be sealed. Records that waited are lost if the process ends.
        """
        failure: KMSError | None = None
        with self._draining:
            try:
                self.drain(is_last=True)
            except KMSError as exc:
                failure = exc
            self._close(is_whole=is_whole)
        if failure is not None:
            raise failure

    def _close(self, *, is_whole: bool) -> None:
        file, keys = self._file, self._keys
        if file is None or keys is None or file.is_closed:
            return
        path, policy = file.path, None
        if self.settings.keys.verify_on_close and is_whole:
            policy = file.trust_policy()
        if not is_whole or self.settings.own.manifest_path is not None:
            self._export(file.checkpoint())
        if not is_whole:
            return
        file.close()
        self._file = None
        if policy is not None:
            self._verify(path, policy, keys)
        self._keys = None
        with contextlib.suppress(KMSError):
            keys.close()  # which may need a thread, and the interpreter be at its end

    def _append(self, file: SealedFile) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
            size, self._waiting_bytes = self._waiting_bytes, 0
            lost, self._lost = self._lost, 0
        gap = [loss_record(lost, self._lost_since, self.settings.own.on_failure)] if lost else []
        try:
            file.append_many([*gap, *batch])
        except BaseException:
            with self._lock:
                self._waiting[:0] = batch
                self._waiting_bytes += size
                self._lost += lost
            raise
        if lost:
            self._lost_since = 0.0

    def _opened(self, *, is_last: bool) -> SealedFile:
        if self._file is not None and not self._file.is_closed:
            return self._file
        if self._failure is not None and not is_last and time.monotonic() < self._retry_at:
            raise self._failure
        try:
            keys = self._keys = self._keys or self._sink_keys.read()
            self._file = self._written(keys)
        except KMSError as exc:
            raise self._failed(exc) from None
        self._keeper = FileKeeper.of(self.settings, self.alarm)
        self._recovered()
        return self._file

    def _written(self, keys: LogKeys) -> SealedFile:
        """Open the file, or the first of its kind that no other process writes."""
        settings, own = self.settings, self.settings.own
        signing_key = settings.signing_key
        for folder in (settings.path.parent, signing_key.parent):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise ConfigurationError(f"the folder {folder} cannot be made: {exc.strerror}") from None
        signer = keys.signer or LocalSigner.from_file(signing_key, settings.stream)
        most = 1 if own.on_conflict == "refuse" else MOST_PROCESSES
        number = 1
        while True:
            path, stream = settings.path, settings.stream
            if number > 1:
                path = path.with_name(f"{path.stem}-{number}{path.suffix}")
                stream = f"{stream}/{number}"
            try:
                return SealedFile(
                    path,
                    stream=stream,
                    kms=keys.source,
                    signer=signer,
                    epoch_s=own.epoch_s,
                    checkpoint_records=own.checkpoint_records,
                    checkpoint_s=own.checkpoint_s,
                    max_bytes=settings.max_bytes,
                    compress=settings.compress,
                )
            except ConflictError:
                if number == most:
                    raise
            number += 1

    def _export(self, note: bytes) -> None:
        folder = self.settings.own.manifest_path
        if folder is None or self._file is None:
            return
        target = Path(folder) / f"{self._file.path.name}.checkpoint"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, note)
        except OSError as exc:
            self.alarm.say(f"the checkpoint {target} cannot be written: {exc.strerror}", "checkpoint_export")

    def _verify(self, path: Path, policy: TrustPolicy, keys: LogKeys) -> None:
        try:
            report = Verifier(policy, keys.providers).verify([path])
        except KMSError as exc:
            self.alarm.say(f"it could not be verified after it was closed: {exc}", exc.code)
            return
        if not report.valid:
            first = report.errors[0]
            told = f"{counted(report.findings, 'finding')}, the first in line {first.line}: {first.message}"
            self.alarm.say(f"it does not verify after it was closed: {told}", "verify_on_close")

    def _failed(self, exc: KMSError) -> KMSError:
        self._failure = exc
        self._retry_at = time.monotonic() + RETRY_S
        return exc

    def _recovered(self) -> None:
        if self._failure is not None:
            self.alarm.is_over(self._failure.code)
            self._failure = None

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._draining = threading.RLock()

    def _in_child(self) -> None:
        # What waited in the parent is the parent's; its file goes on as a stream of this process's own.
        self._renew_locks()
        self._waiting, self._waiting_bytes, self._lost = [], 0, 0
