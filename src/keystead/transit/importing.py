"""Key material from outside: unwrapped as it comes, and made a version of a key.

It is wrapped twice: a key of AES-256 by RSA-OAEP under the engine's public key, and the material by AES key wrap with
padding (RFC 5649) under that.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_public_key,
)

from keystead.crypto.keyring import Keyring
from keystead.crypto.private_keys import SEED_SIZE, PrivateKey, PublicKey, from_outside, read_pair
from keystead.errors import InvalidInputError
from keystead.lifecycle.creation import NewKey
from keystead.lifecycle.wrap_keyrings import BROUGHT_IN, ORIGIN
from keystead.model import TransitType
from keystead.ports import Random
from keystead.transit import base64_text
from keystead.transit.kinds import LARGEST_HMAC_KEY, SMALLEST_HMAC_KEY

WRAPPING_ALGORITHM: Final = "RSA-4096"
_WRAPPED_SIZE: Final = 512
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "SHA1": hashes.SHA1(),  # noqa: S303 -- what some clients wrap with; OAEP does not need it to resist collisions
    "SHA224": hashes.SHA224(),
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}
_SIZES: Final = {TransitType.AES_128: 16, TransitType.AES_256: 32, TransitType.CHACHA20: 32}
_CURVES: Final = {
    TransitType.ECDSA_P256: ec.SECP256R1,
    TransitType.ECDSA_P384: ec.SECP384R1,
    TransitType.ECDSA_P521: ec.SECP521R1,
}
_RSA_BYTES: Final = {TransitType.RSA_2048: 256, TransitType.RSA_3072: 384, TransitType.RSA_4096: 512}
_GO_NAMES: Final = (
    (rsa.RSAPrivateKey, "*rsa.PrivateKey"),
    (ec.EllipticCurvePrivateKey, "*ecdsa.PrivateKey"),
    (ed25519.Ed25519PrivateKey, "ed25519.PrivateKey"),
    (rsa.RSAPublicKey, "*rsa.PublicKey"),
    (ec.EllipticCurvePublicKey, "*ecdsa.PublicKey"),
    (ed25519.Ed25519PublicKey, "ed25519.PublicKey"),
)


def wrapping_key_text(ring: Keyring) -> str:
    """Return the public key that material is wrapped by, in PEM."""
    public = read_pair(bytes(ring.get_active().key)).public
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def require_hash(name: str) -> hashes.HashAlgorithm:
    """Return the hash of OAEP by its name, in any case.

    Raises:
        InvalidInputError: there is none.
    """
    found = _HASHES.get(name.upper())
    if found is None:
        raise InvalidInputError(f"unknown hash function: {name}")
    return found


def unwrapped(ring: Keyring, text: str, algorithm: hashes.HashAlgorithm) -> bytes:
    """Return key material that was wrapped for the engine; takes milliseconds.

    Raises:
        InvalidInputError: it was wrapped otherwise.
    """
    blob = base64_text.decode(text)
    if len(blob) <= _WRAPPED_SIZE:
        raise InvalidInputError("provided ciphertext is too short")
    private = read_pair(bytes(ring.get_active().key)).private
    assert isinstance(private, rsa.RSAPrivateKey)  # noqa: S101 -- what the keyring's algorithm says
    try:
        key = private.decrypt(blob[:_WRAPPED_SIZE], padding.OAEP(padding.MGF1(algorithm), algorithm, None))
    except ValueError:
        raise InvalidInputError("crypto/rsa: decryption error") from None
    try:
        return aes_key_unwrap_with_padding(key, blob[_WRAPPED_SIZE:])
    except (InvalidUnwrap, ValueError):
        raise InvalidInputError("the key material does not unwrap: it is not wrapped by RFC 5649, or altered") from None


def material_of(kind: TransitType, data: bytes, random: Random) -> NewKey:
    """Return key material as the data key of a version.

    Raises:
        InvalidInputError: it is no key of that type.
    """
    if kind.is_symmetric:
        if len(data) != _SIZES[kind]:
            raise InvalidInputError(f"invalid key size {len(data)} bytes for key type {kind}")
        return NewKey(random(SEED_SIZE) + data, {ORIGIN: BROUGHT_IN})
    if kind is TransitType.HMAC:
        if not SMALLEST_HMAC_KEY <= len(data) <= LARGEST_HMAC_KEY:
            raise InvalidInputError(f"invalid key size {len(data)} bytes for key type {kind}")
        return NewKey(data)
    return NewKey(from_outside(_private(kind, data), random(SEED_SIZE)))


def public_material(kind: TransitType, pem: str, random: Random) -> NewKey:
    """Return a public key as the data key of a version, which then has no private half.

    Raises:
        InvalidInputError: it is no public key of that type.
    """
    require_public_kind(kind)
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError:
        raise InvalidInputError("error parsing public key: not in PEM format") from None
    return NewKey(from_outside(_checked(kind, key), random(SEED_SIZE)))


def require_public_kind(kind: TransitType) -> None:
    """Raise ``InvalidInputError`` for a type whose keys have no public half."""
    if not kind.is_pair:
        raise InvalidInputError("provided type does not support public_key import")


def completed(kind: TransitType, held: bytes, data: bytes) -> bytes:
    """Return the data key of a version that has its public half alone, with the private half that belongs to it.

    Raises:
        InvalidInputError: it belongs to another.
    """
    private, pair = _private(kind, data), read_pair(held)
    if private.public_key() != pair.public:
        raise InvalidInputError("cannot import key, key pair does not match")
    return from_outside(private, pair.secret)


def _private(kind: TransitType, data: bytes) -> PrivateKey:
    try:
        key = load_der_private_key(data, None)
    except (ValueError, TypeError):
        raise InvalidInputError("error parsing asymmetric key: it is not PKCS #8 in DER") from None
    checked = _checked(kind, key)
    assert isinstance(checked, PrivateKey)  # noqa: S101
    return checked


def _checked(kind: TransitType, key: object) -> PrivateKey | PublicKey:
    got = next((name for each, name in _GO_NAMES if isinstance(key, each)), type(key).__name__)
    if kind.is_rsa and isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        if key.key_size // 8 != _RSA_BYTES[kind]:
            size = f"expected {_RSA_BYTES[kind]} bytes, got {key.key_size // 8} bytes"
            raise InvalidInputError(f"invalid key size: {size}")
        return key
    if kind.is_ecdsa and isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        if isinstance(key.curve, _CURVES[kind]):
            return key
        got = key.curve.name
    if kind is TransitType.ED25519 and isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return key
    raise InvalidInputError(f"invalid key type: expected {kind}, got {got}")
