"""Erasure logs in a file or in memory, and which one a URL names. Spec: docs/spec/erasure-v1.md, 2."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from keystead.errors import ConfigurationError, ConflictError, ErasureLogError, StoreFullError
from keystead.ports import ErasureLog, LogPosition
from keystead.runtime.files import DISK_FULL, make_folder, sync_folder

EXAMPLES: Final = (
    "use file:///var/lib/keystead/erasures.log, or the URL of a second database: sqlite:///, postgresql://"
)
_CHUNK: Final = 1 << 20


def open_erasure_log(url: str | os.PathLike[str]) -> ErasureLog:
    """Return the erasure log at a URL, or in the file of a path; nothing is opened yet.

    Raises:
        ConfigurationError: the URL names no place for one.
    """
    if not isinstance(url, str):
        return FileErasureLog(Path(url))
    scheme = url.partition(":")[0].lower()
    if scheme == "file":
        location = url[len("file:") :]
        if location.startswith("//") and not location.startswith("///"):
            raise ConfigurationError(f"a file of another host cannot be an erasure log; {EXAMPLES}")
        name = unquote(location[2:] if location.startswith("///") else location)
        if not name or name.endswith("/"):
            raise ConfigurationError(f"the URL of an erasure log names a file; {EXAMPLES}")
        return FileErasureLog(Path(name))
    if scheme not in ("sqlite", "postgresql", "postgres", "postgresql+psycopg"):
        raise ConfigurationError(f"unknown kind of erasure log in the URL; {EXAMPLES}")
    from keystead.stores.erasure_log_sql import SqlErasureLog
    from keystead.stores.urls import parse_url

    return SqlErasureLog(parse_url(url))


class MemoryErasureLog:
    """For a store in memory, with which it goes."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def read(self, position: LogPosition) -> tuple[list[bytes], LogPosition]:
        """Return the lines behind a place."""
        return self._lines[position.at :], LogPosition(len(self._lines), self._lines[-1] if self._lines else b"")

    def append(self, position: LogPosition, line: bytes) -> None:
        """Add a line."""
        if position.at != len(self._lines):
            raise moved_on()
        self._lines.append(line)


class FileErasureLog:
    """A file of lines, which the processes of one machine, or of several on a shared disk that locks, append to."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def read(self, position: LogPosition) -> tuple[list[bytes], LogPosition]:
        """Return the whole lines behind a place, which is an offset of bytes."""
        try:
            with self._opened(os.O_RDONLY) as file:
                return _read(file, position)
        except FileNotFoundError:
            if position.at:
                raise ErasureLogError(f"the erasure log {self._path} is gone: put it back from a copy") from None
            return [], position
        except OSError as exc:
            raise self._unusable(exc) from None

    def append(self, position: LogPosition, line: bytes) -> None:
        """Add a line, and remove what a killed process left of one."""
        try:
            if position.at == 0:
                make_folder(self._path.parent, mode=0o700)
            with self._opened(os.O_RDWR | (os.O_CREAT if position.at == 0 else 0)) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                lines, _ = _read(file, position)
                if lines:
                    raise moved_on()
                if position.at == 0 and os.fstat(file).st_size:
                    raise ErasureLogError(f"{self._path} is no erasure log and is not written over: name another file")
                os.ftruncate(file, position.at)
                data = line + b"\n"
                if os.pwrite(file, data, position.at) != len(data):
                    raise OSError(errno.ENOSPC, "only a part could be written")
                os.fsync(file)
            if position.at == 0:
                sync_folder(self._path.parent)
        except FileNotFoundError:
            raise ErasureLogError(f"the erasure log {self._path} is gone: put it back from a copy") from None
        except OSError as exc:
            if exc.errno in DISK_FULL:
                raise StoreFullError("the disk under the erasure log is full: make room on it") from None
            raise self._unusable(exc) from None

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        file = os.open(self._path, flags | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise ErasureLogError(f"the erasure log {self._path} is no file")
            yield file
        finally:
            os.close(file)

    def _unusable(self, exc: OSError) -> ErasureLogError:
        return ErasureLogError(
            f"the erasure log {self._path} cannot be used ({type(exc).__name__}); check its path and rights"
        )


def _read(file: int, position: LogPosition) -> tuple[list[bytes], LogPosition]:
    """Return the whole lines behind a place, once what stands before it has been found there."""
    before = position.last + b"\n" if position.at else b""
    start = position.at - len(before)
    content = b""
    while part := os.pread(file, _CHUNK, start + len(content)):
        content += part
    if not content.startswith(before):
        raise ErasureLogError(
            "the erasure log is shorter than it was, or another one: put back the one that this store was used with"
        )
    whole, newline, _ = content[len(before) :].rpartition(b"\n")
    lines = whole.split(b"\n") if newline else []
    return lines, LogPosition(position.at + len(whole) + len(newline), lines[-1] if lines else position.last)


def moved_on() -> ConflictError:
    """Return the error for a place behind which there are lines by now."""
    return ConflictError("another process has added to the erasure log; read it and decide again")
