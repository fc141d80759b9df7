"""Checking signatures by a public key, without the service that made them; and the two spellings of ECDSA.

Sources: FIPS 186-5 (ECDSA, RSA), RFC 8017 (PSS, PKCS #1 v1.5), RFC 8032 (Ed25519), RFC 3279 section 2.2.3 (DER).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keystead.errors import InvalidInputError, InvalidSignatureError
from keystead.model import PublicKey, SignatureAlgorithm

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

INVALID: Final = "the signature is not of these bytes under this key"


def verify_signature(public_key: PublicKey, message: bytes, signature: bytes, *, algorithm: SignatureAlgorithm) -> None:
    """Return if ``signature`` is of ``message`` under ``public_key``.

    Raises:
        InvalidSignatureError: it is not, or the key is not one for ``algorithm``.
        InvalidInputError: ``algorithm`` is a MAC, or the public key cannot be read.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    if algorithm.is_mac:
        raise InvalidInputError(f"{algorithm} is a MAC, which no public key checks")
    try:
        key = load_der_public_key(public_key.der)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInputError(
            "the public key is no SubjectPublicKeyInfo in DER, or of a kind or curve that is not known here"
        ) from None
    kind = algorithm.value.partition("-")[0]
    try:
        if kind == "Ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
            return key.verify(signature, message)
        if kind == "ECDSA" and isinstance(key, ec.EllipticCurvePublicKey):
            return _verify_ecdsa(key, message, signature, algorithm)
        if kind == "RSA" and isinstance(key, rsa.RSAPublicKey):
            return _verify_rsa(key, message, signature, algorithm)
    except InvalidSignature:
        pass
    raise InvalidSignatureError(INVALID)


def ecdsa_der(raw: bytes) -> bytes:
    """Return an ECDSA signature in DER, given r and s of equal length one after the other.

    Raises:
        InvalidSignatureError: an odd length, or none.
    """
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    half = len(raw) // 2
    if not raw or len(raw) % 2:
        raise InvalidSignatureError(INVALID)
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def _verify_ecdsa(key: EllipticCurvePublicKey, message: bytes, signature: bytes, algorithm: SignatureAlgorithm) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    key.verify(signature, message, ec.ECDSA(_hash(algorithm)))


def _verify_rsa(key: RSAPublicKey, message: bytes, signature: bytes, algorithm: SignatureAlgorithm) -> None:
    from cryptography.hazmat.primitives.asymmetric import padding

    digest = _hash(algorithm)
    if algorithm.value.startswith("RSA-PSS"):
        key.verify(signature, message, padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH), digest)
    else:
        key.verify(signature, message, padding.PKCS1v15(), digest)


def _hash(algorithm: SignatureAlgorithm) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    known: tuple[HashAlgorithm, ...] = (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
    return next(each for each in known if each.name == algorithm.hash_name)
