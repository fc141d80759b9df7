"""Keys of the Transit engine: their types, and the names of the keyrings that hold their versions."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

TRANSIT_PREFIX: Final = "keystead.transit/"
"""What the names of keyrings of Transit keys begin with; see docs/spec/transit-v1.md."""
TRANSIT_WRAPPING_KEYRING: Final = "keystead.transit-wrapping"
"""The keyring of the key pair that key material is wrapped by when it is brought in."""


def is_of_transit(keyring: str) -> bool:
    """Whether a keyring, by its name, is that of a Transit key."""
    return keyring.startswith(TRANSIT_PREFIX)


class TransitType(StrEnum):
    """What a Transit key is, as Vault spells it."""

    AES_128 = "aes128-gcm96"
    AES_256 = "aes256-gcm96"
    CHACHA20 = "chacha20-poly1305"
    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    ECDSA_P521 = "ecdsa-p521"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    HMAC = "hmac"

    @property
    def is_symmetric(self) -> bool:
        """Whether it encrypts with associated data under one secret key."""
        return self in _SYMMETRIC

    @property
    def is_rsa(self) -> bool:
        """Whether it is an RSA key pair."""
        return self in _RSA

    @property
    def is_ecdsa(self) -> bool:
        """Whether it is a key pair of a NIST curve."""
        return self in _ECDSA

    @property
    def is_pair(self) -> bool:
        """Whether it has a public half."""
        return self.is_rsa or self.is_ecdsa or self is TransitType.ED25519

    @property
    def encrypts(self) -> bool:
        """Whether it encrypts and decrypts."""
        return self.is_symmetric or self.is_rsa

    @property
    def signs(self) -> bool:
        """Whether it signs."""
        return self.is_pair

    @property
    def derives(self) -> bool:
        """Whether a key of its own can be derived for each context."""
        return self.is_symmetric or self is TransitType.ED25519


_SYMMETRIC: Final = frozenset({TransitType.AES_128, TransitType.AES_256, TransitType.CHACHA20})
_RSA: Final = frozenset({TransitType.RSA_2048, TransitType.RSA_3072, TransitType.RSA_4096})
_ECDSA: Final = frozenset({TransitType.ECDSA_P256, TransitType.ECDSA_P384, TransitType.ECDSA_P521})
