"""Where a local KEK comes from: a derivation made once, a variable, or a file that other processes may change.

All sources answer two questions: ``find`` at once from memory, ``load`` with I/O, off the event loop.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from keystead.errors import ConfigurationError, KeyNotFoundError, RotationNotSupportedError
from keystead.ports import Clock, Random
from keystead.providers.key_sources import FileSource, State, VariableSource
from keystead.providers.local.kek import LocalKek
from keystead.providers.local.kek_file import add_version, create_kek_file, is_kek_file, read_kek_file, remove_version
from keystead.providers.local.kek_material import kek_of, kek_of_key
from keystead.runtime import fork

log = logging.getLogger("keystead.providers")


class KekSource(Protocol):
    """Gives the KEK. ``version`` None means: to wrap under, so it must be what the source holds now."""

    def find(self, version: int | None) -> LocalKek | None:
        """Return the KEK if it can be told without I/O."""

    def load(self, version: int | None) -> LocalKek:
        """Return the KEK, reading or deriving it; blocks."""

    def peek(self) -> LocalKek:
        """Return the KEK as it is now, making nothing; blocks."""

    def rotate(self) -> LocalKek:
        """Add a version and return the KEK with it; blocks."""

    def retire(self, version: int, *, superseded_for_s: float) -> None:
        """Remove a version for ever; blocks."""

    def wipe(self) -> None:
        """Overwrite what is in memory; the next ``load`` begins anew; may block."""


class DerivedKek:
    """A KEK of one version, from a function that is called at the first need and blocks for as long as it takes."""

    def __init__(self, name: str, derive: Callable[[], bytes], *, kek: LocalKek | None = None) -> None:
        self._name = name
        self._derive = derive
        self._kek = kek
        self._renew_lock()
        fork.in_child(self._renew_lock)

    def find(self, version: int | None) -> LocalKek | None:
        """Return the KEK if it has been derived."""
        return self._kek

    def load(self, version: int | None) -> LocalKek:
        """Return the KEK, deriving it once however many threads ask."""
        with self._lock:
            if self._kek is None:
                self._kek = kek_of_key(self._derive())
            return self._kek

    def peek(self) -> LocalKek:
        """Return the KEK."""
        return self.load(None)

    def rotate(self) -> LocalKek:
        """Refuse: there is nowhere to keep a second version."""
        raise RotationNotSupportedError(
            f"{self._name} has one version and cannot be rotated; use a KEK file (`keystead init`, or "
            "LocalKMSConfig(path=...)), or move to another KEK by rewrap"
        )

    def retire(self, version: int, *, superseded_for_s: float) -> None:
        """Refuse: the one version is the newest."""
        raise RotationNotSupportedError(f"{self._name} has one version, which is in use")

    def wipe(self) -> None:
        """Overwrite the key."""
        kek, self._kek = self._kek, None
        if kek is not None:
            kek.wipe()

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


class VariableKek:
    """The keys in a variable of the environment, which the process itself may change."""

    def __init__(self, source: VariableSource) -> None:
        self._source = source
        self._state: State = None
        self._kek: LocalKek | None = None
        self._read: list[LocalKek] = []
        self._renew_lock()
        fork.in_child(self._renew_lock)

    def find(self, version: int | None) -> LocalKek | None:
        """Return the KEK unless the variable has changed; what was read once still decrypts."""
        if version is not None and (read := _find_version(version, self._read)) is not None:
            return read
        return self._kek if self._kek is not None and self._source.look() == self._state else None

    def load(self, version: int | None) -> LocalKek:
        """Return the KEK, reading the variable if it changed."""
        with self._lock:
            kek = self.find(version)
            if kek is not None:
                return kek
            reading = self._source.read()
            kek = kek_of(reading.keys)
            _note_change(self._kek, kek, self._source.name)
            self._read.append(kek)
            self._kek, self._state = kek, reading.state
            return kek

    def peek(self) -> LocalKek:
        """Return the KEK as the variable has it now."""
        return self.load(None)

    def rotate(self) -> LocalKek:
        """Refuse: the variable is somebody else's to change."""
        raise _somebody_elses(self._source.name)

    def retire(self, version: int, *, superseded_for_s: float) -> None:
        """Refuse: the variable is somebody else's to change."""
        raise _somebody_elses(self._source.name)

    def wipe(self) -> None:
        """Overwrite every KEK that was read."""
        with self._lock:
            read, self._read, self._kek, self._state = self._read, [], None, None
        for kek in read:
            kek.wipe()

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


class FileKek:
    """A KEK file, or a file or folder of keys that somebody else keeps.

    Looked at before every wrap, so that nothing is wrapped under a version retired meanwhile. What was read stays
    usable for decrypting while the file is away; wrapping stops, since what is wrapped under a key that is on no disk
    is lost with the process. A key that somebody else replaced goes on decrypting here, so that what it wrapped can
    still be rewrapped; a version that was retired from a KEK file does not.
    """

    def __init__(
        self,
        path: str,
        *,
        create: bool,
        random: Random,
        clock: Clock,
        allow_group_read: bool = False,
        production: bool = False,
    ) -> None:
        self._path = path
        self._create = create
        self._random = random
        self._clock = clock
        self._allow_group_read = allow_group_read
        damaged = ", or restore it from its backup if it was a KEK file"
        self._material = FileSource(path, allow_group_read=allow_group_read, production=production, or_else=damaged)
        self._is_material = False
        self._kek: LocalKek | None = None
        self._was_there = False
        self._read: list[LocalKek] = []
        self._state: State = None
        self._renew_lock()
        fork.in_child(self._renew_lock)

    def find(self, version: int | None) -> LocalKek | None:
        """Return the KEK to decrypt with if it has the version; to wrap, the file has to be looked at."""
        if version is None or self._kek is None:
            return None
        return _find_version(version, self._read if self._is_material else [self._kek])

    def load(self, version: int | None) -> LocalKek:
        """Return the KEK, reading the file if it changed; makes it only to wrap, and only if it never was there."""
        with self._lock:
            kek = self.find(version)
            if kek is not None:
                return kek
            if version is None and self._create and not self._was_there and not os.path.lexists(self._path):
                self._make()
            return self._refresh()

    def peek(self) -> LocalKek:
        """Return the KEK as the file has it now."""
        with self._lock:
            return self._refresh()

    def rotate(self) -> LocalKek:
        """Add a version to the file."""
        with self._lock:
            self._refresh()
            if self._is_material:
                raise _somebody_elses(self._path)
            add_version(self._path, random=self._random, now=self._clock.now(), allow_group_read=self._allow_group_read)
            return self._refresh()

    def retire(self, version: int, *, superseded_for_s: float) -> None:
        """Remove a version from the file."""
        with self._lock:
            self._refresh()
            if self._is_material:
                raise _somebody_elses(self._path)
            remove_version(
                self._path,
                version,
                now=self._clock.now(),
                superseded_for_s=superseded_for_s,
                allow_group_read=self._allow_group_read,
            )
            self._refresh()

    def wipe(self) -> None:
        """Overwrite every KEK that was read."""
        with self._lock:
            read, self._read, self._kek, self._state = self._read, [], None, None
        for kek in read:
            kek.wipe()

    def _make(self) -> None:
        try:
            create_kek_file(self._path, random=self._random, now=self._clock.now())
        except ConfigurationError:
            if not os.path.lexists(self._path):  # otherwise another process was faster, and its file is as good
                raise

    def _refresh(self) -> LocalKek:
        try:
            state: State = self._material.look()
        except KeyNotFoundError:
            if not self._was_there:
                read_kek_file(self._path)
            raise KeyNotFoundError(
                f"the KEK file {self._path} is gone: put it back, or restore it from its backup; until then nothing "
                "is wrapped under it"
            ) from None
        if self._kek is not None and state == self._state:
            return self._kek
        is_material = os.path.isdir(self._path) or not is_kek_file(self._path)
        kek, state = self._read_material() if is_material else (self._read_file(), state)
        if self._kek is not None and kek.is_same_as(self._kek):
            # Read again for nothing: every KEK that was read is kept, and this may happen at each wrap.
            kek.wipe()
            kek = self._kek
        else:
            self._read.append(kek)
        self._kek, self._state, self._was_there, self._is_material = kek, state, True, is_material
        return kek

    def _read_file(self) -> LocalKek:
        kek = LocalKek(read_kek_file(self._path, allow_group_read=self._allow_group_read))
        if self._kek is not None and (kek.newest < self._kek.newest or kek.conflicts_with(self._kek)):
            kek.wipe()
            raise ConfigurationError(
                f"the KEK file {self._path} was replaced by an older one or by another KEK; restore the newest one"
            )
        return kek

    def _read_material(self) -> tuple[LocalKek, State]:
        reading = self._material.read()
        kek = kek_of(reading.keys)
        _note_change(self._kek, kek, self._path)
        return kek, reading.state

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


def _find_version(version: int, read: Sequence[LocalKek]) -> LocalKek | None:
    return next((kek for kek in reversed(read) if version in kek), None)


def _note_change(before: LocalKek | None, after: LocalKek, name: str) -> None:
    if before is not None and before.newest not in after:
        log.warning(
            "the key that wrapped until now is no longer there: what it wrapped opens only in processes that have read "
            "it, such as this one. Put it back behind the new one, or rewrap before they end",
            extra={"kek": name, "kek_version": before.newest},
        )


def _somebody_elses(name: str) -> RotationNotSupportedError:
    return RotationNotSupportedError(
        f"{name} holds keys that somebody else keeps: put a new key in front of the others there, then rewrap; when "
        "nothing names an old key any more, take it out. `keystead init` makes a KEK file, which rotates by itself"
    )
