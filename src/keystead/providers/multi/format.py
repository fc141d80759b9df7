"""One plaintext under several KEKs, as bytes: the container, its commitment and the names of a set of KEKs.

Spec: docs/spec/multi-kek-v1.md.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from struct import Struct
from typing import Final
from urllib.parse import quote

from keystead.crypto.context import encode_context
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from keystead.model import SecretBytes

ALGORITHM: Final = "multi-v1"
COMMITMENT_KEY: Final = "keystead.commitment"
"""The reserved context key under which each member authenticates the commitment."""
CONTENT_KEY_SIZE: Final = 32
MAX_PLAINTEXT: Final = 64 * 1024 * 1024
MAX_WRAPS: Final = 16

_MARK: Final = b"\xac\x01"
_COMMITMENT_SIZE: Final = 16
NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_SAFE: Final = "/:@"
_NOT_COMMITTED: Final = "decryption failed: not what was committed to, another context, or altered bytes"
_u32: Final = Struct(">I")


@dataclass(frozen=True, slots=True)
class Wrap:
    """The content key as one member wrapped it; ``key_version`` is empty where the member told none."""

    name: str
    key_id: str
    key_version: str
    algorithm: str
    wrapped_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Content:
    """A content key and the plaintext under it, with what both are committed to by."""

    key: SecretBytes
    plaintext: bytes = field(repr=False)
    commitment: bytes

    @classmethod
    def of(cls, key: bytes, plaintext: bytes) -> Content:
        """Commit to a content key and a plaintext.

        To the plaintext too, because every member gets to know the content key, and could seal another plaintext under
        the same wraps.
        """
        commitment = _expand(b"".join((key, plaintext)), b"keystead commit", _COMMITMENT_SIZE)
        return cls(SecretBytes(key), plaintext, commitment)


@dataclass(frozen=True, slots=True)
class Container:
    """A ciphertext taken apart. ``asked`` is the key id that was asked for, ``body`` nonce, ciphertext and tag."""

    commitment: bytes
    asked: str
    wraps: tuple[Wrap, ...]
    body: bytes = field(repr=False)

    @classmethod
    def parse(cls, blob: bytes) -> Container:
        """Read ``to_bytes``'s form, and nothing else: there is one spelling of each container.

        Raises:
            InvalidCiphertextError: another magic or version, a truncation, or another spelling.
        """
        if blob[:2] != _MARK:
            raise InvalidCiphertextError("not a ciphertext under several KEKs of version 1 (it begins with 0xAC 0x01)")
        reader = _Reader(blob, len(_MARK))
        commitment = reader.take(_COMMITMENT_SIZE)
        asked = reader.text()
        wraps = tuple(
            Wrap(reader.text(), reader.text(), reader.text(), reader.text(), reader.sized())
            for _ in range(reader.take(1)[0])
        )
        parsed = cls(commitment, asked, wraps, reader.sized())
        reader.require_end()
        parsed._check()
        return parsed

    @property
    def header(self) -> bytes:
        """Every byte before the body, which authenticates them."""
        parts = [_MARK, self.commitment, _sized(self.asked.encode()), bytes((len(self.wraps),))]
        for wrap in self.wraps:
            parts += (_sized(text.encode()) for text in (wrap.name, wrap.key_id, wrap.key_version, wrap.algorithm))
            parts.append(_sized(wrap.wrapped_key))
        return b"".join(parts)

    @property
    def key_id(self) -> str:
        """The set of KEKs that wrap this."""
        return set_text((wrap.name, wrap.key_id) for wrap in self.wraps)

    @property
    def key_version(self) -> str:
        """The version of each KEK that wraps this."""
        return set_text((wrap.name, wrap.key_version) for wrap in self.wraps)

    def by_name(self) -> Mapping[str, Wrap]:
        """Return the wraps by their members' names."""
        return {wrap.name: wrap for wrap in self.wraps}

    def to_bytes(self) -> bytes:
        """Return the bytes that are stored."""
        return self.header + _sized(self.body)

    def open(self, key: bytes, context: Mapping[str, str] | None) -> Content:
        """Return what ``key`` opens this to.

        Raises:
            DecryptionError: another content key, plaintext or context than was committed to, or altered bytes.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce, sealed = self.body[:NONCE_SIZE], self.body[NONCE_SIZE:]
        if len(key) != CONTENT_KEY_SIZE:
            raise DecryptionError(_NOT_COMMITTED)
        try:
            plaintext = AESGCM(_cipher_key(key)).decrypt(nonce, sealed, self.header + encode_context(context))
        except InvalidTag:
            raise DecryptionError(_NOT_COMMITTED) from None
        content = Content.of(key, plaintext)
        if not hmac.compare_digest(content.commitment, self.commitment):
            raise DecryptionError(_NOT_COMMITTED)
        return content

    def _check(self) -> None:
        names = [wrap.name.encode() for wrap in self.wraps]
        is_canonical = (
            1 <= len(names) <= MAX_WRAPS
            and all(earlier < later for earlier, later in pairwise(names))
            and all(is_name(wrap.name) and wrap.key_id and wrap.wrapped_key for wrap in self.wraps)
            and self.asked
            and len(self.body) >= NONCE_SIZE + _TAG_SIZE
        )
        if not is_canonical:
            raise InvalidCiphertextError("malformed ciphertext under several KEKs")


def seal(
    content: Content, asked: str, wraps: Iterable[Wrap], context: Mapping[str, str] | None, *, nonce: bytes
) -> Container:
    """Return ``content``'s plaintext sealed under its key, which ``wraps`` hold. ``nonce`` is 12 new bytes."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    in_order = tuple(sorted(wraps, key=lambda wrap: wrap.name.encode()))
    empty = Container(content.commitment, asked, in_order, b"")
    cipher = AESGCM(_cipher_key(content.key))
    sealed = cipher.encrypt(nonce, content.plaintext, empty.header + encode_context(context))
    return Container(content.commitment, asked, in_order, nonce + sealed)


def with_commitment(context: Mapping[str, str] | None, commitment: bytes) -> dict[str, str]:
    """Return the context that each member wraps under.

    Raises:
        InvalidInputError: ``context`` has the commitment's own key.
    """
    if context and COMMITMENT_KEY in context:
        raise InvalidInputError(f"the context key {COMMITMENT_KEY!r} is the commitment's own; use another name")
    return {**(context or {}), COMMITMENT_KEY: commitment.hex()}


def set_text(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and what belongs to each in one line of ASCII: ``{cloud=alias/app,home=default}``."""
    ordered = sorted(pairs, key=lambda pair: pair[0].encode())
    return "{" + ",".join(f"{quote(name, _SAFE)}={quote(value, _SAFE)}" for name, value in ordered) + "}"


def is_name(name: object) -> bool:
    """Whether ``name`` can be a member's."""
    if not isinstance(name, str) or not name or ":" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Reader:
    """Takes fields off the front of a ciphertext."""

    def __init__(self, blob: bytes, at: int) -> None:
        self._blob = blob
        self._at = at

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._blob):
            raise InvalidCiphertextError("the ciphertext under several KEKs is truncated")
        taken, self._at = self._blob[self._at : end], end
        return bytes(taken)

    def sized(self) -> bytes:
        (size,) = _u32.unpack(self.take(_u32.size))
        return self.take(size)

    def text(self) -> str:
        try:
            return self.sized().decode()
        except UnicodeDecodeError:
            raise InvalidCiphertextError("malformed ciphertext under several KEKs") from None

    def require_end(self) -> None:
        if self._at != len(self._blob):
            raise InvalidCiphertextError("malformed ciphertext under several KEKs")


def _sized(data: bytes) -> bytes:
    return _u32.pack(len(data)) + data


def _cipher_key(key: bytes) -> SecretBytes:
    return SecretBytes(_expand(key, b"keystead multi v1", 32))


def _expand(key: bytes, info: bytes, size: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), size, salt=None, info=info).derive(key)
