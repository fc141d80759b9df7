"""HMACs by any version of any key. Spec: docs/spec/transit-v1.md.

A key of type ``hmac`` is the HMAC key itself. Of every other key one is derived: HKDF-SHA256 without a salt, info
``hmac``, 32 bytes, out of the data key, or of a key pair out of its secret. A key that derives for contexts has one
HMAC key all the same.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from keystead.crypto.snapshot import LoadedKey
from keystead.errors import InvalidInputError
from keystead.model import TransitType
from keystead.transit import base64_text
from keystead.transit.ciphers import HMAC_INFO, hkdf
from keystead.transit.digests import NO_HASH, Hash
from keystead.transit.opened import OpenKey, TooNewError
from keystead.transit.texts import PREFIX, parted, written

DEFAULT: Final = Hash.SHA2_256
_NO_HASH: Final = "algorithm cannot be none"
_UNKNOWN: Final = r"unsupported algorithm '\x00'"
_TOO_OLD: Final = "version is too old (disallowed by policy)"


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes HMACs by one version of a key and one hash function."""

    version: int
    function: Hash
    _key: bytes = field(repr=False)

    def make(self, message: bytes) -> str:
        """Return the HMAC of a message."""
        return written(self.version, hmac.digest(self._key, message, self.function.of_hashlib))


def maker(key: OpenKey, algorithm: str = DEFAULT, *, version: int = 0) -> Maker:
    """Return what makes HMACs by a version of a key; 0 for the latest.

    Raises:
        InvalidInputError: a soft-deleted key, a version that is not there or must not be used, or no such algorithm.
    """
    key.require_usable()
    chosen = _to_make(key, version)
    if algorithm == NO_HASH:
        raise InvalidInputError(_NO_HASH)
    try:
        function = Hash(algorithm)
    except ValueError:
        raise InvalidInputError(_UNKNOWN) from None
    return Maker(chosen.version, function, _mac_key(key, chosen))


class Checker:
    """Checks HMACs of a key, whatever version made them.

    Args:
        function: None stands for a hash that was named ``none``.

    Raises:
        InvalidInputError: there is no hash function.
    """

    def __init__(self, key: OpenKey, function: Hash | None = DEFAULT) -> None:
        if function is None:
            raise InvalidInputError(_NO_HASH)
        self._key = key
        self._function = function
        self._keys: dict[int, bytes] = {}

    def is_valid(self, message: bytes, text: str) -> bool:
        """Whether a text is the HMAC of a message.

        Raises:
            InvalidInputError: no HMAC, a version that is not there or must not be used, or a soft-deleted key.
        """
        if not text.startswith(PREFIX):
            raise InvalidInputError("invalid HMAC to verify: no prefix")
        version, rest = parted(text, "HMAC")
        try:
            given = base64_text.decode(rest)
        except InvalidInputError as exc:
            raise InvalidInputError(f"unable to decode verification HMAC as base64: {exc}") from None
        if version < self._key.record.min_decryption:
            raise InvalidInputError(f"cannot verify HMAC: {_TOO_OLD}")
        chosen = self._key.to_open(version, "HMAC")
        self._key.require_usable()
        mac_key = self._keys.get(version)
        if mac_key is None:
            mac_key = self._keys[version] = _mac_key(self._key, chosen)
        return hmac.compare_digest(given, hmac.digest(mac_key, message, self._function.of_hashlib))


def _to_make(key: OpenKey, version: int) -> LoadedKey:
    if version < 0:
        raise InvalidInputError("key version does not exist (cannot be negative)")
    if version > key.latest:
        raise TooNewError(f"key version does not exist; latest key version is {key.latest}")
    if 0 < version < key.record.min_encryption:
        raise InvalidInputError(f"cannot generate HMAC: {_TOO_OLD}")
    return key.to_protect(version)


def _mac_key(key: OpenKey, version: LoadedKey) -> bytes:
    if key.record.type is TransitType.HMAC:
        return bytes(key.ring.get(version.id).key)
    secret = key.pair(version).secret if key.record.type.is_pair else key.ring.get(version.id).key
    return hkdf(secret, HMAC_INFO)
