"""Keys that sign, and what others read of them."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keystead.crypto.private_keys import PublicKey
from keystead.model import TransitType
from keystead.transit import base64_text
from keystead.transit.opened import OpenKey
from keystead.transit.public_keys import public_text
from keystead.transit.signature_options import Marshaling, Options
from tests.transit.made import key_of

ECDSA = [TransitType.ECDSA_P256, TransitType.ECDSA_P384, TransitType.ECDSA_P521]
SIGNERS = [*ECDSA, TransitType.ED25519, TransitType.RSA_2048]
SIZES = {TransitType.ECDSA_P256: 32, TransitType.ECDSA_P384: 48, TransitType.ECDSA_P521: 66}
FOX = b"the quick brown fox"
JWS = Options(marshaling=Marshaling.JWS)
KEYS = {kind: key_of(kind) for kind in SIGNERS}
"""One key of each type, for tests that only use it."""


def raw_of(text: str) -> bytes:
    return base64.b64decode(text.rpartition(":")[2])


def from_url(text: str) -> bytes:
    body = text.rpartition(":")[2]
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


def text_of(raw: bytes) -> str:
    return f"vault:v1:{base64_text.encode(raw)}"


def told_public(key: OpenKey) -> PublicKey:
    """Return the public key as a client reads it out of what is told of a key."""
    told = public_text(key, key.versions[1])
    if key.record.type is TransitType.ED25519:
        return ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(told))
    public = load_pem_public_key(told.encode())
    assert isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return public
