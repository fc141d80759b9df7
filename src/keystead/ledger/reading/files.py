"""A log's files on disk: their names, the lock of their one writer, and what has to be synced for them to stay."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from keystead.errors import ConfigurationError, ConflictError, StorageOperationError, StoreFullError
from keystead.ledger.format.records import MalformedRecordError
from keystead.ledger.reading.lines import LogFile
from keystead.runtime.files import DISK_FULL, sync_folder

_ENDED: Final = re.compile(r"(?s)(.+)\.([0-9]{6}|[1-9][0-9]{6,17})(?:\.gz)?\Z")
"""The name of a file that has ended, in the one spelling of its number."""
COMPANIONS: Final = (".gz.new", ".new", ".key", ".lock", ".index", ".policy.json", ".tlog-proof")
"""What is appended to a file's name for what stands beside it."""


class LogFiles:
    """The files of a stream: ``app.log`` is written, ``app.log.000001`` and so on have ended, compressed or not.

    A link leads to them: by whatever name it is called, a log has one lock, and is not replaced by a file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.realpath(path))
        self._lock: int | None = None

    def ended(self) -> dict[int, Path]:
        """Return the files that have ended, by number. Where both forms are there, the compressed one is not done."""
        found: dict[int, Path] = {}
        with contextlib.suppress(FileNotFoundError):
            for path in self.path.parent.iterdir():
                name = _ENDED.match(path.name)
                if name is not None and name[1] == self.path.name:
                    number = int(name[2])
                    found[number] = path if path.suffix != ".gz" else found.get(number, path)
        return dict(sorted(found.items()))

    @staticmethod
    def log_of(path: Path) -> Path:
        """Return the path of the log that a file is of: its own, unless it is one that has ended.

        A log may be called as one that has ended, such as ``audit.20240115``: then it says that it has another number.
        """
        name = _ENDED.match(path.name)
        if name is None:
            return path
        try:
            is_ended = LogFile(path).beginning()[1].file == int(name[2])
        except MalformedRecordError:
            is_ended = True
        except StorageOperationError:
            is_ended = not LogFiles(path).ended()
        return path.with_name(name[1]) if is_ended else path

    @staticmethod
    def is_ended(path: Path) -> bool:
        """Whether a file has the name of one that has ended, and the number that it says."""
        return LogFiles.log_of(path) != path

    def name_of(self, number: int) -> Path:
        """Return what a file is called once it has ended."""
        return self.path.with_name(f"{self.path.name}.{number:06d}")

    def lock(self) -> None:
        """Become the stream's one writer, until ``unlock``.

        Raises:
            ConflictError: another process is.
            ConfigurationError: the folder cannot be written to.
        """
        path = f"{self.path}.lock"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise ConfigurationError(f"the log's folder cannot be written to: {exc.strerror}: {path}") from None
        try:
            self._claim(file)
        except BaseException:
            os.close(file)
            raise
        self._lock = file

    def _claim(self, file: int) -> None:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"{self.path} is being written by another process or object; one log has one writer: give each its own "
                "stream and file"
            ) from None

    def unlock(self) -> None:
        """Let others write; idempotent."""
        file, self._lock = self._lock, None
        if file is not None:
            os.close(file)

    def create(self, content: bytes) -> IO[bytes]:
        """Make the file that is written, with its first line, on disk when this returns.

        Raises:
            StorageOperationError: it cannot be made.
        """
        staged = f"{self.path}.new"
        with self.failing("be made"):
            file = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            opened = os.fdopen(file, "ab", buffering=0)
            try:
                # Before what is there is emptied: it might be another writer's.
                self._claim(file)
                os.ftruncate(file, 0)
                write_all(opened, content)
                os.fsync(file)
                os.replace(staged, self.path)
                self.sync_folder()
            except BaseException:
                opened.close()
                raise
            return opened

    def open(self) -> IO[bytes]:
        """Open the file that is written, to append to it; its name is on disk when this returns.

        It is locked itself, too: somebody may have deleted the file that is the lock.

        Raises:
            ConflictError: another process writes it.
            StorageOperationError: it cannot be opened.
        """
        with self.failing("be opened"):
            # Whoever made it may have been stopped before its name was.
            self.sync_folder()
            # A pipe in its place must not hold anybody up.
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
            opened = os.fdopen(file, "ab", buffering=0)
        try:
            self._claim(file)
        except BaseException:
            opened.close()
            raise
        return opened

    def end(self, number: int) -> Path:
        """Give the file that was written the name of one that has ended; on disk when this returns."""
        with self.failing("be renamed"):
            if os.path.lexists(self.name_of(number)):
                raise FileExistsError(errno.EEXIST, f"there is a {self.name_of(number).name} already")
            os.rename(self.path, self.name_of(number))
            self.sync_folder()
        return self.name_of(number)

    def compress(self, path: Path) -> Path:
        """Put a compressed file in the place of one that has ended; a crash leaves one of the two, whole.

        Raises:
            StorageOperationError: there is no room for it; the file stays as it was.
        """
        target = path.with_name(f"{path.name}.gz")
        staged = Path(f"{target}.new")
        with self.failing("be compressed"):
            # Whoever may read the one may read the other, and nobody else.
            made = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(made, "wb") as raw, path.open("rb") as plain:
                os.fchmod(made, os.fstat(plain.fileno()).st_mode & 0o777)
                with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed:
                    shutil.copyfileobj(plain, packed, 1 << 20)
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(staged, target)
            self.sync_folder()
            path.unlink()
            self.sync_folder()
        return target

    def remove(self, number: int) -> None:
        """Remove a file that has ended, in whatever form it is there by now, and what stands beside it."""
        path = self.name_of(number)
        for each in (path, Path(f"{path}.gz"), Path(f"{path}.index")):
            each.unlink(missing_ok=True)

    def sync_folder(self) -> None:
        """Put names on disk."""
        sync_folder(self.path.parent)

    @contextmanager
    def failing(self, what: str) -> Iterator[None]:
        """Turn errors of the disk into Keystead's."""
        try:
            yield
        except OSError as exc:
            error = StoreFullError if exc.errno in DISK_FULL else StorageOperationError
            raise error(f"the log {self.path} cannot {what}: {exc.strerror or type(exc).__name__}") from None


def without_companions(paths: Iterable[Path]) -> list[Path]:
    """Return files without what stands beside one of them: its key, lock, index, policy, and what is not done yet."""
    given = list(paths)
    logs = {*given, *(each.with_name(name[1]) for each in given if (name := _ENDED.match(each.name)))}
    return [each for each in given if not _is_beside(each, logs) and not _is_beside(each, set(given), (".gz",))]


def _is_beside(path: Path, files: Collection[Path], endings: tuple[str, ...] = COMPANIONS) -> bool:
    names = (path.name.removesuffix(ending) for ending in endings if path.name.endswith(ending))
    return any(name and path.with_name(name) in files for name in names)


def write_all(file: IO[bytes], content: bytes) -> None:
    """Write all of ``content`` to a file without a buffer."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) or 0 :]
