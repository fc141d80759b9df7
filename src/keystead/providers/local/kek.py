"""The local KEK in memory: numbered versions of a 256-bit key, and the ciphertexts sealed under them.

Spec: docs/spec/local-kek-v1.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from struct import Struct
from typing import TYPE_CHECKING, Final

from keystead.crypto.context import encode_context
from keystead.errors import DecryptionError, InvalidInputError, SystemShutdownError
from keystead.model import SecretBytes
from keystead.ports import Random
from keystead.providers.inputs import require_plaintext

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ALGORITHM: Final = "aes256-gcm96"
KEY_SIZE: Final = 32
MAX_PLAINTEXT_SIZE: Final = 64 * 1024 * 1024
MAX_VERSION: Final = 2**32 - 1

_MAGIC: Final = b"\xad\x01"
_HEADER_SIZE: Final = 6
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_MAX_CIPHERS: Final = 256

_u32 = Struct(">I")


@dataclass(frozen=True, slots=True)
class KekVersion:
    """One version of a KEK. ``created_at`` is aware UTC, or None where nothing records it."""

    number: int
    key: SecretBytes = field(repr=False)
    created_at: datetime | None = None


class LocalKek:
    """The versions of one KEK; ``newest`` (by default the highest) encrypts, all decrypt. Immutable until ``wipe``.

    Each key id has a key of its own under each version: HKDF-SHA256(version's key, info = ``keystead local kek`` ||
    key id). Under one version and key id at most 2^32 messages should be encrypted (random 96-bit nonces).
    """

    def __init__(self, versions: Iterable[KekVersion], *, newest: int | None = None) -> None:
        self._keys: dict[int, bytearray] = {}
        self.created: dict[int, datetime | None] = {}
        for version in versions:
            self._keys[version.number] = bytearray(version.key)
            self.created[version.number] = version.created_at
        self.newest = max(self._keys) if newest is None else newest
        self._ciphers: dict[tuple[int, str], AESGCM] = {}
        self._is_wiped = False

    def __repr__(self) -> str:
        return f"LocalKek(versions {sorted(self.created)}, keys hidden)"

    def __contains__(self, version: int) -> bool:
        return version in self._keys

    def is_same_as(self, other: LocalKek) -> bool:
        """Whether both have the same versions, and encrypt under the same one."""
        return self.newest == other.newest and self._keys == other._keys

    def conflicts_with(self, other: LocalKek) -> bool:
        """Whether a version that both have is not the same key in both."""
        return any(self._keys[number] != other._keys[number] for number in self._keys.keys() & other._keys.keys())

    def seal(self, plaintext: bytes, key_id: str, context: Mapping[str, str] | None, *, random: Random) -> bytes:
        """Return ``plaintext`` encrypted under the newest version of ``key_id``'s key, ``context`` bound to it.

        Raises:
            InvalidInputError: not bytes-like, over 64 MiB, or a key id or context that cannot be encoded.
        """
        require_plaintext(plaintext)
        content = plaintext if isinstance(plaintext, bytes) else SecretBytes(plaintext)
        if len(content) > MAX_PLAINTEXT_SIZE:
            raise InvalidInputError("a local KEK encrypts at most 64 MiB at once; encrypt the data under a data key")
        header = _MAGIC + _u32.pack(self.newest)
        aad = _aad(header, encode_key_id(key_id), context)
        nonce = random(_NONCE_SIZE)
        return header + nonce + self._cipher(self.newest, key_id).encrypt(nonce, content, aad)

    def open(self, ciphertext: bytes, key_id: str, context: Mapping[str, str] | None) -> bytes:
        """Return what ``seal`` was given.

        Raises:
            DecryptionError: another KEK, key id or context, or altered bytes.
            InvalidInputError: a context that cannot be encoded.
        """
        from cryptography.exceptions import InvalidTag

        version = version_of(ciphertext)
        if version not in self._keys:
            raise DecryptionError(
                f"decryption failed: the ciphertext names KEK version {version}, which this KEK does not have; "
                "if the KEK was restored from a backup, restore the newest one"
            )
        body = _HEADER_SIZE + _NONCE_SIZE
        try:
            aad = _aad(ciphertext[:_HEADER_SIZE], key_id.encode(), context)
            return self._cipher(version, key_id).decrypt(ciphertext[_HEADER_SIZE:body], ciphertext[body:], aad)
        except (InvalidTag, UnicodeEncodeError):
            raise DecryptionError("decryption failed") from None

    def open_unversioned(self, ciphertext: bytes, aads: Iterable[bytes]) -> bytes:
        """Return what another system sealed as ``nonce || ciphertext || tag`` under a version's key itself.

        Each version is tried with each of ``aads``. Spec: docs/spec/legacy-forms.md, section 8.

        Raises:
            DecryptionError: none of them opens it.
        """
        from keystead.crypto.legacy import decrypt_value

        for aad in aads:
            for key in self._keys.values():
                with contextlib.suppress(DecryptionError):
                    return decrypt_value(bytes(key), ciphertext, aad)
        raise DecryptionError("decryption failed")

    def wipe(self) -> None:
        """Overwrite the keys and drop the ciphers; nothing is encrypted or decrypted afterwards."""
        self._is_wiped = True
        for key in self._keys.values():
            key[:] = bytes(len(key))
        self._ciphers.clear()

    def _cipher(self, version: int, key_id: str) -> AESGCM:
        cipher = self._ciphers.get((version, key_id))
        if cipher is None:
            cipher = self._derive(version, key_id)
        # Asked after the derivation: a key wiped in the middle of it, by another thread, must never encrypt.
        if self._is_wiped:
            raise SystemShutdownError("the provider was closed during the call")
        if len(self._ciphers) >= _MAX_CIPHERS:
            self._ciphers.clear()
        self._ciphers[version, key_id] = cipher
        return cipher

    def _derive(self, version: int, key_id: str) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        hkdf = HKDF(SHA256(), KEY_SIZE, salt=None, info=b"keystead local kek" + key_id.encode())
        return AESGCM(hkdf.derive(bytes(self._keys[version])))


def version_of(ciphertext: bytes) -> int:
    """Return the KEK version a ciphertext names.

    Raises:
        DecryptionError: it is no ciphertext of a local KEK, or truncated.
    """
    if len(ciphertext) < _HEADER_SIZE + _NONCE_SIZE + _TAG_SIZE or ciphertext[:2] != _MAGIC:
        raise DecryptionError("decryption failed")
    (version,) = _u32.unpack_from(ciphertext, 2)
    return int(version)


def encode_key_id(key_id: str) -> bytes:
    """Return the UTF-8 bytes of a key id.

    Raises:
        InvalidInputError: it is empty, not text, or holds a lone surrogate.
    """
    if not isinstance(key_id, str) or not key_id:
        raise InvalidInputError("a key id is a text that is not empty, such as 'default'")
    try:
        return key_id.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("the key id has a lone surrogate, which UTF-8 cannot encode") from None


def _aad(header: bytes, key_id: bytes, context: Mapping[str, str] | None) -> bytes:
    return header + _u32.pack(len(key_id)) + key_id + encode_context(context)
