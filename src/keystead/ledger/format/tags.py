"""Session keys that only go forward, and the tags that records are sealed with. Spec: docs/spec/log-v1.md, 3 and 4."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Final

from keystead.errors import InvalidInputError

if TYPE_CHECKING:
    from hashlib import _Hash

SESSION_KEY_SIZE: Final = 32
NO_TAG: Final = bytes(32)
"""What stands for the tag before a stream's first record."""
TAG_CHARS: Final = 43

_RECORD: Final = b"keystead log v1 record\n"
_END: Final = b"keystead log v1 end of epoch\n"
_EVOLVE: Final = b"keystead log v1 evolve"
_SEAL: Final = b"keystead log v1 seal"
_u32: Final = Struct(">I")
_u64: Final = Struct(">Q")
_BLOCK: Final = 64
_INNER: Final = bytes(number ^ 0x36 for number in range(256))
_OUTER: Final = bytes(number ^ 0x5C for number in range(256))


class Tagger:
    """Returns the tag of a record, given the tag before it and its head, one after the other.

    Attributes:
        inner, outer: return the two hashes that HMAC begins with (RFC 2104); ``outer`` is None where there is no key.
            Who seals many records goes through them without a call for each.
    """

    __slots__ = ("inner", "outer")

    def __init__(self, inner: Callable[[], _Hash], outer: Callable[[], _Hash] | None = None) -> None:
        self.inner = inner
        self.outer = outer

    def __repr__(self) -> str:
        return "Tagger(hidden)"

    def __call__(self, message: bytes) -> bytes:
        """Return the tag."""
        within = self.inner()
        within.update(message)
        if self.outer is None:
            return within.digest()
        around = self.outer()
        around.update(within.digest())
        return around.digest()


class SessionKey:
    """The key of one session, in the epoch it has come to. What is behind it is erased and cannot be had again.

    Raises:
        InvalidInputError: a key that is not 32 bytes, or an epoch below 0.
    """

    def __init__(self, key: bytes | bytearray, stream: str, *, epoch: int = 0) -> None:
        if len(key) != SESSION_KEY_SIZE or epoch < 0:
            raise InvalidInputError("a session key has 32 bytes, and its epochs count from 0")
        self._key = bytearray(key)
        self._stream = _text(stream)
        self.epoch = 0
        for _ in range(epoch):
            self._evolve()

    def __repr__(self) -> str:
        return f"SessionKey(epoch={self.epoch}, hidden)"

    def copy(self) -> SessionKey:
        """Return the key as it is now, to go forward apart from this one."""
        made = SessionKey.__new__(SessionKey)
        made._key, made._stream, made.epoch = bytearray(self._key), self._stream, self.epoch
        return made

    def tagger(self) -> Tagger:
        """Return what seals the records of this epoch."""
        return keyed_tagger(self._seal_key(), _RECORD + self._stream + _u64.pack(self.epoch))

    def end_epoch(self, number: int, tag: bytes) -> bytes:
        """End the epoch and erase its key; return what stands for the last tag from here on.

        Args:
            number: of the next record.
            tag: of the last record, or what an epoch that ended left in its place.
        """
        ended = _END + self._stream + _u64.pack(self.epoch) + _u64.pack(number) + tag
        folded = hmac.digest(self._seal_key(), ended, "sha256")
        self._evolve()
        return folded

    def wipe(self) -> None:
        """Overwrite the key."""
        self._key[:] = bytes(len(self._key))

    def _seal_key(self) -> bytes:
        return hmac.digest(self._key, _SEAL, "sha256")

    def _evolve(self) -> None:
        self._key[:] = hmac.digest(self._key, _EVOLVE, "sha256")
        self.epoch += 1


def keyed_tagger(key: bytes, prefix: bytes) -> Tagger:
    """Return HMAC-SHA256 under ``key`` of ``prefix`` and a message.

    From hashes that are begun once: for a record of some hundred bytes that takes less than half the time of
    ``hmac.digest``, which begins them anew.
    """
    padded = key.ljust(_BLOCK, b"\x00")
    return Tagger(sha256(padded.translate(_INNER) + prefix).copy, sha256(padded.translate(_OUTER)).copy)


def unkeyed_tagger(stream: str) -> Tagger:
    """Return what chains the records of a session without a key."""
    return Tagger(sha256(_RECORD + _text(stream) + _u64.pack(0)).copy)


def _text(text: str) -> bytes:
    content = text.encode()
    return _u32.pack(len(content)) + content
