"""What a KMS signs with, and what it gives to check that: signatures, public keys."""

from __future__ import annotations

from dataclasses import dataclass

from keystead.model.algorithms import SignatureAlgorithm
from keystead.model.kms import KeyReference


@dataclass(frozen=True, slots=True)
class Signature:
    """A MAC or signature, and the key version that made it.

    Attributes:
        value: as the algorithm defines it: ECDSA in DER, RSA-PSS with a salt as long as the hash, Ed25519 64 bytes.
        key_reference: identity and version as the service answered them.
    """

    value: bytes
    key_reference: KeyReference
    algorithm: SignatureAlgorithm


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of one key version, enough to verify without the service.

    Attributes:
        der: SubjectPublicKeyInfo.
        algorithms: what the service signs with under this key, its default first.
    """

    der: bytes
    key_reference: KeyReference
    algorithms: tuple[SignatureAlgorithm, ...]
