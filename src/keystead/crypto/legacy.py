"""Readers of what the reference implementations wrote. Nothing here writes these forms.

The Go KMS (kratos-boilerplate): ``version:algorithm:hex`` text, the JSON of an encrypted field, the older
``01.nonce.ciphertext`` text, and data keys wrapped by the root key. FraiseQL: locally encrypted
bytes, and the context bytes its providers sent. Spec: docs/spec/legacy-forms.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import permutations
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError, KeyDecryptionFailError
from keystead.model import SecretBytes

NONCE_SIZE: Final = 12
OVERHEAD: Final = NONCE_SIZE + 16
WRAPPED_KEY_SIZE: Final = 32 + OVERHEAD
MOST_REORDERED: Final = 6
"""Contexts of up to so many pairs are tried in every order: 720 of them at most."""

_VERSION: Final = re.compile(r"v[0-9]{1,19}|[1-9][0-9]{0,18}")
_ALGORITHM: Final = re.compile(r"[A-Za-z0-9-]{1,50}")
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")
_FAILED: Final = "decryption failed: wrong key or altered bytes"


@dataclass(frozen=True, slots=True)
class LegacyField:
    """A field as the Go reference stored it.

    ``value`` is ``nonce (12) || ciphertext || tag (16)``. ``algorithm`` is a label the reference wrote and never
    read: the bytes are AES-GCM whatever it says.
    """

    version: str
    algorithm: str
    value: bytes


@dataclass(frozen=True, slots=True)
class LegacyKey:
    """A row of the Go reference's key table, in either layout.

    ``wrapped_key`` and ``exposed_key`` (the column ``key_data``, a data key in clear) are empty where the column is
    absent, null or blanked. Times are aware, or None where they are absent or cannot be read.
    """

    version: str
    wrapped_key: bytes
    exposed_key: bytes = field(default=b"", repr=False)
    created_at: datetime | None = None
    expires_at: datetime | None = None
    is_revoked: bool = False


def is_version(text: str) -> bool:
    """Return whether ``text`` is a legacy key version: ``v`` and up to 19 digits, or a positive decimal integer."""
    return _VERSION.fullmatch(text) is not None


def parse_text(text: str) -> LegacyField:
    """Read ``version:algorithm:hex``.

    Raises:
        InvalidCiphertextError: not three parts, another version grammar, upper-case or odd hex, or too short.
    """
    parts = text.split(":")
    if len(parts) != 3 or not _HEX.fullmatch(parts[2]):
        raise InvalidCiphertextError('not a legacy field: it reads "version:algorithm:hex" in lower-case hex')
    return _field(parts[0], parts[1], bytes.fromhex(parts[2]))


def parse_field(source: str | Mapping[str, object]) -> LegacyField:
    """Read the JSON of an encrypted field, or the object it parses to: ``value`` in base64, version, algorithm.

    Raises:
        InvalidCiphertextError: not that JSON, or a member is malformed.
    """
    try:
        members = json.loads(source) if isinstance(source, str) else source
        version, algorithm, value = members["version"], members["algorithm"], members["value"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidCiphertextError("not a legacy field: JSON with value, version and algorithm") from None
    if not (isinstance(version, str) and isinstance(algorithm, str) and isinstance(value, str)):
        raise InvalidCiphertextError("not a legacy field: value, version and algorithm are strings")
    return _field(version, algorithm, _base64(value))


def decrypt_field(data_key: bytes, field: LegacyField) -> bytes:
    """Return the plaintext of a legacy field.

    Raises:
        DecryptionError: another key, or altered bytes.
    """
    return decrypt_value(data_key, field.value)


def decrypt_value(data_key: bytes, value: bytes, aad: bytes | None = None) -> bytes:
    """Open ``nonce (12) || ciphertext || tag (16)`` under AES-GCM.

    The form of the Go reference's field values and of FraiseQL's ``local_encrypt``, without associated data, and of
    FraiseQL's local KMS, with the bytes of ``fraiseql_local_aads``.

    Raises:
        InvalidCiphertextError: shorter than 28 bytes.
        DecryptionError: another key, or altered bytes.
    """
    if len(value) < OVERHEAD:
        raise InvalidCiphertextError("the legacy ciphertext is truncated")
    try:
        return AESGCM(data_key).decrypt(value[:NONCE_SIZE], value[NONCE_SIZE:], aad)
    except (InvalidTag, ValueError):
        raise DecryptionError(_FAILED) from None


def decrypt_old_text(data_key: bytes, text: str) -> bytes:
    """Open the older ``01.<base64 nonce>.<base64 ciphertext and tag>`` text.

    Raises:
        InvalidCiphertextError: another form; ``02.`` texts are hashes, which nothing can turn back.
        DecryptionError: another key, or altered bytes.
    """
    parts = text.split(".")
    if parts[0] == "02":
        raise InvalidCiphertextError('a "02." text is an SM3 hash: there is no plaintext in it')
    if len(parts) != 3 or parts[0] != "01":
        raise InvalidCiphertextError('not an old legacy text: it reads "01.nonce.ciphertext"')
    nonce, sealed = _base64(parts[1]), _base64(parts[2])
    if len(nonce) != NONCE_SIZE:
        raise InvalidCiphertextError("the nonce of an old legacy text is 12 bytes")
    return decrypt_value(data_key, nonce + sealed)


def unwrap_key(root_key: bytes, wrapped_key: bytes) -> SecretBytes:
    """Return the 32-byte data key in a legacy wrapped key (60 bytes, no associated data).

    Raises:
        KeyDecryptionFailError: another length, another root key, or altered bytes.
    """
    if len(wrapped_key) != WRAPPED_KEY_SIZE:
        raise KeyDecryptionFailError(f"a legacy wrapped key is {WRAPPED_KEY_SIZE} bytes")
    try:
        return SecretBytes(decrypt_value(root_key, wrapped_key))
    except DecryptionError:
        raise KeyDecryptionFailError(
            "the wrapped key does not open: check seed, salt, iterations and key_length, or the row was altered"
        ) from None


def hash_field(value: bytes) -> str:
    """Return the reference's unkeyed field hash: SHA-256 in lower-case hex. For finding old rows only."""
    return hashlib.sha256(value).hexdigest()


def fraiseql_aad(provider_kind: str, context: Mapping[str, str]) -> bytes:
    """Return the context bytes that FraiseQL's provider authenticated; an empty context is no bytes.

    ``vault`` (as the derivation context, before base64) and ``gcp``: JSON with sorted keys. ``local``: the text of
    the dict, so the order in which ``context`` was stored matters.

    Raises:
        InvalidInputError: ``aws``, which took the context as a map, or a kind FraiseQL did not have.
    """
    if provider_kind not in ("vault", "gcp", "local"):
        raise InvalidInputError("FraiseQL sent context bytes for vault, gcp and local; aws took the context as a map")
    if not context:
        return b""
    if provider_kind == "local":
        return str(dict(context)).encode()
    return json.dumps(dict(context), sort_keys=True).encode()


def fraiseql_local_aads(context: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the context bytes FraiseQL's local KMS may have authenticated: the order of ``context`` first, then others.

    Databases reorder the members of a JSON object (``jsonb``), so the stored order need not be the one that was sealed.
    Above ``MOST_REORDERED`` pairs only the stored order is given.
    """
    if len(context) > MOST_REORDERED:
        yield fraiseql_aad("local", context)
        return
    for pairs in permutations(context.items()):
        yield fraiseql_aad("local", dict(pairs))


def _field(version: str, algorithm: str, value: bytes) -> LegacyField:
    if not is_version(version):
        raise InvalidCiphertextError("not a legacy field: its version is neither v and digits nor an integer")
    if not _ALGORITHM.fullmatch(algorithm):
        raise InvalidCiphertextError("not a legacy field: malformed algorithm")
    if len(value) < OVERHEAD:
        raise InvalidCiphertextError("the legacy ciphertext is truncated")
    return LegacyField(version, algorithm, value)


def _base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidCiphertextError("malformed base64 in a legacy ciphertext") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise InvalidCiphertextError("malformed base64 in a legacy ciphertext")
    return raw
