"""Algorithms of signatures and MACs, by Keystead's names."""

from __future__ import annotations

from enum import StrEnum


class SignatureAlgorithm(StrEnum):
    """How a MAC or signature is made. Each provider maps its service's own spelling to these."""

    HMAC_SHA_256 = "HMAC-SHA-256"
    HMAC_SHA_384 = "HMAC-SHA-384"
    HMAC_SHA_512 = "HMAC-SHA-512"
    ED25519 = "Ed25519"
    ECDSA_SHA_256 = "ECDSA-SHA-256"
    ECDSA_SHA_384 = "ECDSA-SHA-384"
    ECDSA_SHA_512 = "ECDSA-SHA-512"
    RSA_PSS_SHA_256 = "RSA-PSS-SHA-256"
    RSA_PSS_SHA_384 = "RSA-PSS-SHA-384"
    RSA_PSS_SHA_512 = "RSA-PSS-SHA-512"
    RSA_PKCS1_SHA_256 = "RSA-PKCS1-SHA-256"
    RSA_PKCS1_SHA_384 = "RSA-PKCS1-SHA-384"
    RSA_PKCS1_SHA_512 = "RSA-PKCS1-SHA-512"

    @property
    def is_mac(self) -> bool:
        """Whether whoever verifies could have made it as well."""
        return self.value.startswith("HMAC")

    @property
    def hash_name(self) -> str | None:
        """The hash of the message that is signed, by hashlib's name; None for Ed25519, which takes the message."""
        return None if self is SignatureAlgorithm.ED25519 else f"sha{self.value[-3:]}"
