"""The KEK file: numbered versions of a local KEK, one a line, with a checksum. Spec: docs/spec/local-kek-v1.md.

A change is written to a second file (mode 0600), synced, renamed over the first, and read again before anything may
be wrapped under it. Writers of several processes take turns by ``flock`` on ``<file>.lock``. A crash at any moment
leaves the old file or the new one, and whichever it is holds every version that was ever returned.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from keystead.errors import (
    ConfigurationError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderConnectionError,
    RotationNotSupportedError,
)
from keystead.model import SecretBytes, utc_text
from keystead.ports import Random
from keystead.providers.local.kek import KEY_SIZE, MAX_VERSION, KekVersion
from keystead.providers.private_file import read_content, require_private
from keystead.runtime.files import sync_folder

LOCK_WAIT_S: Final = 10.0

_FIRST_WORD: Final = b"keystead-kek-file "
_FIRST_LINE: Final = "keystead-kek-file v1"
_NOTICE: Final = "# Whoever reads this file reads everything it protects; whoever loses it loses the same. Back it up."
_MAX_FILE_SIZE: Final = 1024 * 1024
_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def create_kek_file(
    path: str | os.PathLike[str], *, random: Random = os.urandom, now: datetime | None = None
) -> tuple[KekVersion, ...]:
    """Make a KEK file with one new version, mode 0600, on disk when this returns; never overwrites one.

    Raises:
        ConfigurationError: the file exists, or its folder cannot be written to. Nothing may be wrapped under it.
    """
    target = os.fspath(path)
    first = KekVersion(1, SecretBytes(random(KEY_SIZE)), now or datetime.now(UTC))
    try:
        with _turn_to_write(target):
            _write(target, [first], is_new=True)
            return _confirm(target, [first])
    except FileExistsError:
        raise ConfigurationError(
            f"{target} exists already and is not overwritten: what it protects could never be read again; "
            "use it, or move it away first"
        ) from None
    except OSError as exc:
        raise ConfigurationError(
            f"cannot make the KEK file {target}: {_reason(exc)}; make room or choose another folder, then try again"
        ) from None


def begins_kek_file(content: bytes) -> bool:
    """Whether a content is meant to be a KEK file's, of this or a later format."""
    return content.startswith(_FIRST_WORD)


def is_kek_file(path: str) -> bool:
    """Whether there is a file at ``path`` that begins as a KEK file does; blocks. What cannot be read may be one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return begins_kek_file(os.read(fd, len(_FIRST_WORD)))
        finally:
            os.close(fd)
    except OSError:
        return True


def read_kek_file(path: str, *, allow_group_read: bool = False) -> tuple[KekVersion, ...]:
    """Return the versions in a KEK file, ascending. ``allow_group_read`` accepts modes 0640 and 0440.

    Raises:
        KeyNotFoundError: there is no such file.
        ConfigurationError: others than its owner may read it, we may not, or it is malformed or damaged.
        ProviderConnectionError: the disk failed.
    """
    failure: KMSError
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _parse(_read(fd, path, allow_group_read))
        finally:
            os.close(fd)
    except _LaterFormatError:
        failure = ConfigurationError(
            f"the KEK file {path} is of a version newer than this release reads; update Keystead"
        )
    except ValueError:
        failure = ConfigurationError(
            f"{path} is no KEK file, or is damaged (its checksum does not fit); restore it from its backup"
        )
    except FileNotFoundError:
        failure = KeyNotFoundError(
            f"there is no KEK file {path}: restore it from its backup if it was ever used; "
            "for a new installation `keystead init` makes one"
        )
    except PermissionError:
        failure = ConfigurationError(f"the KEK file {path} cannot be read by this user; give it to the user")
    except OSError as exc:
        failure = ProviderConnectionError(f"the KEK file {path} could not be read: {_reason(exc)}")
    # Outside the except blocks: frames of the parser hold keys, and would travel on in the context.
    raise failure


def add_version(path: str, *, random: Random, now: datetime, allow_group_read: bool = False) -> tuple[KekVersion, ...]:
    """Append a new version and return all of them, once the new one is on disk and was read back.

    Raises:
        KeyRotationError: it could not be written; the versions that were there still are.
        KeyNotFoundError, ConfigurationError, ProviderConnectionError: as ``read_kek_file``.
    """
    path = os.path.realpath(path)
    read_kek_file(
        path, allow_group_read=allow_group_read
    )  # a file that is not there, or not readable, needs no lock to say so
    try:
        with _turn_to_write(path):
            versions = read_kek_file(path, allow_group_read=allow_group_read)
            number = versions[-1].number + 1
            if number > MAX_VERSION:
                raise RotationNotSupportedError(f"{path} has used up its version numbers; move to another KEK")
            grown = [*versions, KekVersion(number, SecretBytes(random(KEY_SIZE)), now)]
            _write(path, grown, is_new=False)
            return _confirm(path, grown, allow_group_read)
    except OSError as exc:
        raise KeyRotationError(
            f"the new KEK version could not be written to {path}: {_reason(exc)}; every earlier version is still there"
        ) from None


def remove_version(
    path: str, number: int, *, now: datetime, superseded_for_s: float, allow_group_read: bool = False
) -> tuple[KekVersion, ...]:
    """Remove a version for ever and return the rest. The caller has made sure that no row names it.

    Raises:
        KeyNotFoundError: the file has no such version.
        KeyStateError: it is the newest, or the next one is younger than ``superseded_for_s``.
        KeyRotationError: the file could not be written.
    """
    path = os.path.realpath(path)
    read_kek_file(
        path, allow_group_read=allow_group_read
    )  # a file that is not there, or not readable, needs no lock to say so
    try:
        with _turn_to_write(path):
            versions = read_kek_file(path, allow_group_read=allow_group_read)
            rest = [version for version in versions if version.number != number]
            if len(rest) == len(versions):
                raise KeyNotFoundError(f"{path} has no version {number}")
            if number == versions[-1].number:
                raise KeyStateError(f"version {number} is the newest of {path}; rotate first, then retire it")
            follower = next(version for version in rest if version.number > number)
            if follower.created_at and now - follower.created_at < timedelta(seconds=superseded_for_s):
                raise KeyStateError(
                    f"version {number} was replaced less than {superseded_for_s:g} s ago; another process may still "
                    "be wrapping under it: try again later"
                )
            _write(path, rest, is_new=False)
            return _confirm(path, rest, allow_group_read)
    except OSError as exc:
        raise KeyRotationError(f"{path} could not be written: {_reason(exc)}; try again") from None


@contextmanager
def _turn_to_write(path: str) -> Iterator[None]:
    """Hold the lock that writers of this file share, in this process and in others."""
    import fcntl

    fd = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _give_to_owner(fd, path)
        patience = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise ProviderConnectionError(
                        f"another process has held {path}.lock for {LOCK_WAIT_S:g} s; nothing was changed"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def _write(path: str, versions: Sequence[KekVersion], *, is_new: bool) -> None:
    staged = path + ".new"
    with suppress(FileNotFoundError):
        os.unlink(staged)  # left by a writer that was killed; nothing was ever wrapped under it
    try:
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _give_to_owner(fd, path)
            if not is_new:
                _give_to_group(fd, path)
            rest = memoryview(_format(versions))
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if is_new:
            _publish_new(staged, path)
        else:
            os.replace(staged, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(staged)
        raise
    sync_folder(Path(path).parent)


def _publish_new(staged: str, path: str) -> None:
    """Give ``staged`` its name unless the name is taken."""
    try:
        os.link(staged, path)
    except OSError as exc:
        if exc.errno not in _NO_HARD_LINKS:
            raise
        # A file system without hard links: our lock keeps other writers of ours away between look and rename.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.replace(staged, path)
        return
    os.unlink(staged)


def _confirm(path: str, written: Sequence[KekVersion], allow_group_read: bool = False) -> tuple[KekVersion, ...]:
    found = read_kek_file(path, allow_group_read=allow_group_read)
    if [(v.number, v.key) for v in found] != [(v.number, v.key) for v in written]:
        raise KeyRotationError(f"{path} does not read back as it was written; check the disk, then try again")
    return found


def _give_to_owner(fd: int, path: str) -> None:
    """Let a file that root makes belong to the owner of the KEK file, or of its folder, who must be able to read it."""
    if os.geteuid() != 0:
        return
    owner = os.stat(path if os.path.exists(path) else os.path.dirname(path) or ".")
    if (owner.st_uid, owner.st_gid) != (0, 0):
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _give_to_group(fd: int, path: str) -> None:
    """Let the group that may read the file at ``path`` read the one that replaces it; nobody else's group."""
    status = os.stat(path)
    if status.st_mode & stat.S_IRGRP:
        os.fchown(fd, -1, status.st_gid)
        os.fchmod(fd, 0o640)


def _read(fd: int, path: str, allow_group_read: bool) -> bytes:
    require_private(os.fstat(fd), path, "KEK file", allow_group_read=allow_group_read)
    # A version that another process has renamed into place may not be on disk yet; it is before we wrap under it.
    with suppress(OSError):
        os.fsync(fd)
        sync_folder(Path(path).parent)
    return read_content(fd, _MAX_FILE_SIZE)


def _format(versions: Sequence[KekVersion]) -> bytes:
    lines = [_FIRST_LINE, _NOTICE]
    for version in versions:
        created = utc_text(version.created_at or datetime.now(UTC))
        lines.append(f"{version.number} {created} {base64.b64encode(version.key).decode()}")
    body = "".join(f"{line}\n" for line in lines).encode()
    return body + f"sha256 {hashlib.sha256(body).hexdigest()}\n".encode()


class _LaterFormatError(Exception):
    """The file begins as a KEK file of a later format does."""


def _parse(content: bytes) -> tuple[KekVersion, ...]:
    """Raise only what ``read_kek_file`` replaces: these frames hold keys, and error trackers show frames."""
    body, _, check = content.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n"
    first, *lines = body.decode("ascii", "replace").splitlines()
    if first != _FIRST_LINE and first.startswith("keystead-kek-file "):
        raise _LaterFormatError
    if first != _FIRST_LINE or check.decode("ascii") != f"sha256 {hashlib.sha256(body).hexdigest()}":
        raise ValueError
    versions = tuple(_parse_version(line) for line in lines if not line.startswith("#"))
    numbers = [version.number for version in versions]
    if not numbers or numbers != sorted(set(numbers)):
        raise ValueError
    return versions


def _parse_version(line: str) -> KekVersion:
    number, created, key = line.split(" ")
    raw = base64.b64decode(key, validate=True)
    if len(raw) != KEY_SIZE or not (number.isdecimal() and 0 < int(number) <= MAX_VERSION):
        raise ValueError
    return KekVersion(int(number), SecretBytes(raw), datetime.fromisoformat(created).astimezone(UTC))


def _reason(exc: OSError) -> str:
    return exc.strerror or type(exc).__name__
