"""Hash functions by the names that clients of Vault know."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

from cryptography.hazmat.primitives import hashes

from keystead.errors import InvalidInputError

NO_HASH: Final = "none"


class Hash(StrEnum):
    """A hash function."""

    SHA1 = "sha1"
    SHA2_224 = "sha2-224"
    SHA2_256 = "sha2-256"
    SHA2_384 = "sha2-384"
    SHA2_512 = "sha2-512"
    SHA3_224 = "sha3-224"
    SHA3_256 = "sha3-256"
    SHA3_384 = "sha3-384"
    SHA3_512 = "sha3-512"

    @property
    def of_hashlib(self) -> str:
        """Its name in ``hashlib``."""
        return self.value.replace("sha2-", "sha").replace("-", "_")

    @property
    def algorithm(self) -> hashes.HashAlgorithm:
        """The same, for signatures."""
        return _ALGORITHMS[self]

    def digest(self, data: bytes) -> bytes:
        """Return the hash of ``data``."""
        return hashlib.new(self.of_hashlib, data, usedforsecurity=False).digest()


_ALGORITHMS: Final[dict[Hash, hashes.HashAlgorithm]] = {
    Hash.SHA1: hashes.SHA1(),  # noqa: S303 -- asked for by name, never by default
    Hash.SHA2_224: hashes.SHA224(),
    Hash.SHA2_256: hashes.SHA256(),
    Hash.SHA2_384: hashes.SHA384(),
    Hash.SHA2_512: hashes.SHA512(),
    Hash.SHA3_224: hashes.SHA3_224(),
    Hash.SHA3_256: hashes.SHA3_256(),
    Hash.SHA3_384: hashes.SHA3_384(),
    Hash.SHA3_512: hashes.SHA3_512(),
}


def hash_of(name: str) -> Hash | None:
    """Return the hash function of a name; None for ``none``.

    Raises:
        InvalidInputError: there is none of that name.
    """
    if name == NO_HASH:
        return None
    try:
        return Hash(name)
    except ValueError:
        raise InvalidInputError(f'invalid hash algorithm "{name}"') from None
