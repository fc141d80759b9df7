"""Where key material is kept: a variable of the environment, a file, or a folder of files that somebody else changes.

Spec: docs/spec/key-material-v1.md, sections 4 to 6. Reading a file blocks: it belongs in a worker thread.
"""

from __future__ import annotations

import os
import stat
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Protocol, TypeAlias

from keystead.errors import ConfigurationError, KeyNotFoundError, KMSError, ProviderConnectionError
from keystead.providers.key_material import (
    HOW_TO_MAKE_ONE,
    MAX_CONTENT_SIZE,
    Decoded,
    KeyMaterial,
    decode,
    distinct,
    newest_first,
)
from keystead.providers.local.kek_file import begins_kek_file
from keystead.providers.private_file import read_content, require_private

MAX_FILES: Final = 256
_ATTEMPTS: Final = 5
_LONGEST_STEP_NS: Final = 50_000_000

State: TypeAlias = object
"""What a source looked like; equal while nothing changed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The keys a source held, the newest first, and what it looked like."""

    keys: tuple[KeyMaterial, ...]
    state: State


class MaterialSource(Protocol):
    """Gives keys, and tells whether they may have changed."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def is_instant(self) -> bool:
        """Whether looking and reading take no I/O."""

    def look(self) -> State:
        """Return what the source looks like now; blocks unless it is instant."""

    def read(self) -> Reading:
        """Return the keys; blocks unless it is instant."""


class VariableSource:
    """A variable of the environment, the process's own unless another mapping is given.

    Raises:
        ConfigurationError: at reading: it is not set or holds no key, or what looks like a password in production.
    """

    is_instant = True

    def __init__(self, variable: str, *, environ: Mapping[str, str] | None = None, production: bool = False) -> None:
        self.name = f"the environment variable {variable}"
        self._variable = variable
        self._environ = environ
        self._doubts = _Doubts(production)

    def __repr__(self) -> str:
        return f"VariableSource({self._variable})"

    def look(self) -> _Text:
        """Return the variable's value, hidden."""
        # It holds the credential that the configuration names; settings are config.py's to read.
        return _Text((os.environ if self._environ is None else self._environ).get(self._variable))

    def read(self) -> Reading:
        """Return the keys in the variable."""
        state = self.look()
        decoded = _decode_text(state)
        if decoded.problem is not None:
            raise ConfigurationError(f"{self.name} holds no key ({decoded.problem}); put {HOW_TO_MAKE_ONE}, in it")
        self._doubts.weigh(decoded, self.name)
        return Reading(decoded.keys, state)


class FileSource:
    """A file, or a folder whose files each hold keys.

    Args:
        allow_group_read: accept modes 0640 and 0440.
        production: refuse what looks like a password.
        or_else: what else the user might do where it holds no key.

    Raises:
        KeyNotFoundError: at reading: it is not there.
        ConfigurationError: others may read it, it holds no key, or what looks like a password in production.
        ProviderConnectionError: the disk failed, or it changes faster than it can be read.
    """

    is_instant = False

    def __init__(
        self, path: str, *, allow_group_read: bool = False, production: bool = False, or_else: str = ""
    ) -> None:
        self.name = path
        self._else = or_else
        self._path = path
        self._allow_group_read = allow_group_read
        self._doubts = _Doubts(production)

    def __repr__(self) -> str:
        return f"FileSource({self._path})"

    def look(self) -> tuple[_Identity, ...]:
        """Return device, inode, size and times of every file, and of the folder."""
        failure: KMSError = self._unsettled()
        for _ in range(_ATTEMPTS):
            try:
                return self._state()
            except FileNotFoundError as exc:
                # A file of the folder may have gone away meanwhile, or a link been replaced: look again.
                failure = _failure(self._path, exc)
            except OSError as exc:
                failure = _failure(self._path, exc)
                break
        raise failure

    def read(self) -> Reading:
        """Return the keys in the file or folder, none of them older than the state that is told with them."""
        for _ in range(_ATTEMPTS):
            before = self.look()
            try:
                decoded = self._decode()
            except FileNotFoundError:
                continue
            except OSError as exc:
                failure = _failure(self._path, exc)
                break
            if before == self.look():
                return self._checked(decoded, None if _is_recent(before) else before)
        else:
            failure = self._unsettled()
        raise failure

    def _unsettled(self) -> KMSError:
        return ProviderConnectionError(f"{self.name} changes faster than it can be read; try again")

    def _checked(self, decoded: Decoded, state: State) -> Reading:
        if decoded.problem is not None:
            raise ConfigurationError(
                f"{self.name} holds no key ({decoded.problem}); put {HOW_TO_MAKE_ONE}, in it{self._else}"
            )
        self._doubts.weigh(decoded, self.name)
        return Reading(decoded.keys, state)

    def _state(self) -> tuple[_Identity, ...]:
        status = os.stat(self._path)
        found = [_Identity.of(status)]
        if stat.S_ISDIR(status.st_mode):
            found += [_Identity.of(os.stat(path), path) for path in self._files()]
        return tuple(found)

    def _decode(self) -> Decoded:
        status = os.stat(self._path)
        if not stat.S_ISDIR(status.st_mode):
            return self._decode_file(self._path, None)
        found = []
        files = self._files()
        for path in files:
            decoded = self._decode_file(path, status)
            if decoded.problem is not None:
                return Decoded(problem=f"{os.path.basename(path)}: {decoded.problem}")
            found.append(decoded)
        merged = distinct(chain.from_iterable(decoded.keys for decoded in found))
        if merged.problem is not None:
            return merged
        return Decoded(merged.keys, looks_like_text=any(decoded.looks_like_text for decoded in found))

    def _files(self) -> list[str]:
        """Return the folder's files that count, the newest first."""
        names = newest_first(os.fsencode(entry) for entry in os.listdir(self._path) if not entry.startswith("."))
        paths = [os.path.join(self._path, os.fsdecode(name)) for name in names]
        files = [path for path in paths if not stat.S_ISDIR(os.stat(path).st_mode)]
        if len(files) > MAX_FILES:
            raise ConfigurationError(f"{self._path} has more than {MAX_FILES} files; is it a folder of keys?")
        return files

    def _decode_file(self, path: str, folder: os.stat_result | None) -> Decoded:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            require_private(status, path, "key file", allow_group_read=self._allow_group_read)
            if folder is not None and folder.st_mode & 0o002 and status.st_uid not in {folder.st_uid, os.geteuid()}:
                raise ConfigurationError(
                    f"{self._path} may be written to by everybody, and {path} does not belong to the folder's owner; "
                    f"run: chmod o-w {self._path}"
                )
            content = read_content(fd, MAX_CONTENT_SIZE)
        finally:
            os.close(fd)
        if begins_kek_file(content):
            return Decoded(problem="it is a KEK file, which holds a KEK and no key of this kind")
        return decode(content)


@dataclass(frozen=True, slots=True)
class _Text:
    """The value of a variable, which no repr and no frame of an exception shows."""

    value: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Identity:
    """One file as it is, and so unlike what replaces it."""

    path: str
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result, path: str = "") -> _Identity:
        return cls(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class _Doubts:
    """Says once that a key looks like a password; refuses it in production."""

    def __init__(self, production: bool) -> None:
        self._production = production
        self._has_warned = False

    def weigh(self, decoded: Decoded, name: str) -> None:
        """Warn of, or refuse, a key of 32 printable characters."""
        if not decoded.looks_like_text:
            return
        message = (
            f"{name} holds 32 printable characters, which looks like a password or like 16 bytes in hex, not like 32 "
            "random bytes. This is refused in production; a key of this kind that is in use is accepted in base64"
        )
        if self._production:
            raise ConfigurationError(message)
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(message, UserWarning, stacklevel=2)


def _is_recent(files: tuple[_Identity, ...]) -> bool:
    """Whether another change might leave no trace: file systems count time in steps of some milliseconds."""
    return time.time_ns() - max(each.changed_ns for each in files) < _LONGEST_STEP_NS


def _decode_text(text: _Text) -> Decoded:
    return Decoded(problem="not set") if text.value is None else decode(os.fsencode(text.value))


def _failure(path: str, exc: OSError) -> KMSError:
    if isinstance(exc, FileNotFoundError):
        return KeyNotFoundError(f"there is no key file {path}; put {HOW_TO_MAKE_ONE}, in it (mode 0600)")
    if isinstance(exc, PermissionError):
        return ConfigurationError(f"{path} cannot be read by this user; give it to the user, or to its group")
    return ProviderConnectionError(f"{path} could not be read: {exc.strerror or type(exc).__name__}")
