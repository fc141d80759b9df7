"""Where output goes: a file that is complete or not there, a pipe, or a terminal that gets nothing it cannot show."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from keystead.cli.frame import wrong_usage
from keystead.runtime.files import sync_folder

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT: Final = "-"
_NOT_REPLACED: Final = {
    b"keystead-kek-file": "a KEK file",
    b"SQLite format 3\0": "a database",
    b"-----BEGIN PRIVATE KEY": "a private key",
    b'{"n":': "a log",
}
"""How files begin that no answer takes the place of, and what they are."""
_NO_UNNAMED_FILES: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.EPERM})


@contextmanager
def open_target(path: str | None, *, is_text: bool) -> Iterator[BinaryIO]:
    """Open where the answer goes, None and ``-`` being stdout. A file appears when the block ends well, all at once.

    Args:
        path: a file, replaced if it is there, unless it is one whose loss would be felt; anything that is no regular
            file is written to as it is.
        is_text: the output is known to be readable text. ``-`` writes binary to a terminal too.
    """
    if path is not None and path != STDOUT:
        real = Path(os.path.realpath(path))
        if real.is_dir():
            wrong_usage(f"-o {path} is a folder; name a file")
        require_replaceable(real)
        with _open_special(real) if real.exists() and not real.is_file() else _replace(real) as file:
            yield file
        return
    stdout = cast(BinaryIO, sys.stdout.buffer)
    is_guarded = sys.stdout.isatty() and path is None and not is_text
    with ended_by_signals():
        yield cast(BinaryIO, _ReadableOnly(stdout)) if is_guarded else stdout
        stdout.flush()


def require_replaceable(path: Path) -> None:
    """End the command before anything is made, if its output would take the place of keys, of a store or of a log."""
    if not path.is_file():
        return  # a pipe would hold us up
    try:
        with path.open("rb") as file:
            begin = file.read(max(map(len, _NOT_REPLACED)))
    except OSError:
        return  # the writing says why not
    for known, what in _NOT_REPLACED.items():
        if begin.startswith(known):
            wrong_usage(f"{path} is {what}, which is not replaced: name another file, or remove it first")


def refuse_binary_terminal(path: str | None) -> None:
    """End the command before anything is read, if its binary output would go to a terminal."""
    if path is None and sys.stdout.isatty():
        wrong_usage("the ciphertext is binary and is not written to a terminal: give -o FILE, a pipe, or --text")


@contextmanager
def _open_special(path: Path) -> Iterator[BinaryIO]:
    with ended_by_signals(), path.open("wb") as file:
        yield file


@contextmanager
def _replace(path: Path) -> Iterator[BinaryIO]:
    """Write beside ``path``, sync, and rename; a failure or a signal leaves what was there."""
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    pending = _Pending(path)
    try:
        with ended_by_signals(pending):
            try:
                with pending.open() as file:
                    yield file
                    file.flush()
                    os.fchmod(file.fileno(), mode)
                    os.fsync(file.fileno())
                    pending.name_it(file.fileno())
                pending.rename()
            finally:
                pending.remove()
    except OSError as exc:
        # A file object does not say which file failed.
        raise OSError(exc.errno, exc.strerror, exc.filename or str(path)) from None


class _Pending:
    """The file to be renamed: without a name until it is complete, where the file system can do that."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._name: Path | None = None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it for writing."""
        with open(self._unnamed() or self._named(), "wb") as file:
            yield file

    def name_it(self, descriptor: int) -> None:
        """Give a complete file its first name."""
        if self._name is None:
            name = self._target.with_name(f".{self._target.name}.{os.urandom(6).hex()}.part")
            # With a folder given, and only then, os.link follows the link that /proc has for an open file.
            folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.link(f"/proc/self/fd/{descriptor}", name.name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
            self._name = name

    def rename(self) -> None:
        """Put it where it belongs, and make that last."""
        if self._name is not None:
            os.replace(self._name, self._target)
            self._name = None
            sync_folder(self._target.parent)

    def remove(self) -> None:
        """Take an incomplete file away."""
        if self._name is not None:
            with contextlib.suppress(OSError):
                self._name.unlink()

    def _unnamed(self) -> int | None:
        if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
            return None
        try:
            return os.open(self._target.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno in _NO_UNNAMED_FILES and self._target.parent.is_dir():
                return None
            raise OSError(exc.errno, exc.strerror, str(self._target)) from None

    def _named(self) -> int:
        descriptor, name = tempfile.mkstemp(".part", f".{self._target.name}.", self._target.parent)
        self._name = Path(name)
        return descriptor


@contextmanager
def ended_by_signals(pending: _Pending | None = None) -> Iterator[None]:
    """End at once on Ctrl-C and SIGTERM, although a worker thread may be blocked on its input."""

    def stop(number: int, frame: object) -> None:
        if pending is not None:
            pending.remove()
        os.write(2, b"\nstopped\n" if pending is None else b"\nstopped; nothing was written\n")
        os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _ReadableOnly(io.RawIOBase):
    """Passes text on to a terminal, and refuses bytes that it would not show, or would act upon."""

    def __init__(self, terminal: BinaryIO) -> None:
        self._terminal = terminal
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write ``data`` if a person can read it."""
        content = bytes(data)
        try:
            text = self._decoder.decode(content)
        except UnicodeDecodeError:
            text = "\0"
        if any(not (character.isprintable() or character in "\n\r\t") for character in text):
            wrong_usage("the plaintext is binary and is not written to a terminal: give -o FILE, -o -, or a pipe")
        self._terminal.write(content)
        return len(content)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
