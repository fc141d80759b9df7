"""Private keys as a data key's bytes: drawn here, and read again. Spec: docs/spec/transit-v1.md, 3.

An Ed25519 key that is drawn here is its 32 bytes. Every other key pair is one marked byte and then DER: PKCS #8 of the
private key; or 32 random bytes, from which its HMAC key is derived, and PKCS #8 or, where the private half is held by
somebody else alone, the SubjectPublicKeyInfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from keystead.errors import KeyDecryptionFailError
from keystead.ports import Random

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

SEED_SIZE: Final = 32
_DRAWN: Final = 0x01
_PUBLIC_ONLY: Final = 0x02
_GIVEN: Final = 0x03
_RSA_EXPONENT: Final = 65537
CURVES: Final[dict[str, ec.EllipticCurve]] = {"P256": ec.SECP256R1(), "P384": ec.SECP384R1(), "P521": ec.SECP521R1()}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key pair as it was read.

    Attributes:
        private: None where it is held by somebody else alone.
        secret: what its HMAC key is derived from; never told.
    """

    public: PublicKey
    private: PrivateKey | None
    secret: bytes

    def __repr__(self) -> str:
        return f"<KeyPair {type(self.public).__name__}>"


def draw_seed(random: Random) -> bytes:
    """Return the 32 bytes of a new Ed25519 key, or of a symmetric one."""
    return random(SEED_SIZE)


def draw_ec(curve: str) -> bytes:
    """Return a new private key of the curve ``P256``, ``P384`` or ``P521``."""
    return bytes((_DRAWN,)) + pkcs8(ec.generate_private_key(CURVES[curve]))


def draw_rsa(bits: int) -> bytes:
    """Return a new RSA private key; takes long."""
    return bytes((_DRAWN,)) + pkcs8(rsa.generate_private_key(_RSA_EXPONENT, bits))


def from_outside(key: PrivateKey | PublicKey, secret: bytes) -> bytes:
    """Return the bytes that keep a key made elsewhere; ``secret`` is 32 random bytes of its own."""
    if isinstance(key, PublicKey):
        return bytes((_PUBLIC_ONLY,)) + secret + key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return bytes((_GIVEN,)) + secret + pkcs8(key)


def read_pair(data: bytes) -> KeyPair:
    """Return the key pair that bytes keep.

    Raises:
        KeyDecryptionFailError: they keep none.
    """
    try:
        if len(data) == SEED_SIZE:
            seeded = ed25519.Ed25519PrivateKey.from_private_bytes(data)
            return KeyPair(seeded.public_key(), seeded, data)
        mark, rest = data[0], data[1:]
        if mark == _DRAWN:
            return _pair(load_der_private_key(rest, None), rest)
        secret, der = rest[:SEED_SIZE], rest[SEED_SIZE:]
        if mark == _GIVEN:
            return _pair(load_der_private_key(der, None), secret)
        if mark == _PUBLIC_ONLY:
            public = load_der_public_key(der)
            if isinstance(public, PublicKey):
                return KeyPair(public, None, secret)
    except (ValueError, IndexError, TypeError):
        pass
    raise KeyDecryptionFailError("a data key that should be a key pair is none; restore it from an export")


def _pair(private: object, secret: bytes) -> KeyPair:
    if isinstance(private, PrivateKey):
        return KeyPair(private.public_key(), private, secret)
    raise ValueError


def pkcs8(key: PrivateKey) -> bytes:
    """Return a private key in DER."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
