"""ECDSA signatures of hashes (FIPS 186-5), in DER (RFC 3279, 2.2.3) or as in JSON Web Signatures (RFC 7518, 3.4)."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHAKE256

from keystead.crypto.signatures import ecdsa_der
from keystead.errors import InvalidInputError
from keystead.transit.signature_options import Marshaling

_SEQUENCE: Final = 0x30
_LONG: Final = 0x81


def sign(private: ec.EllipticCurvePrivateKey, digest: bytes, marshaling: Marshaling) -> bytes:
    """Return the signature of a hash of any length, of which the curve takes as many bits as it has.

    Raises:
        InvalidInputError: an empty hash, for which anybody could sign.
    """
    if not digest:
        raise InvalidInputError("ecdsa: hash cannot be empty")
    der = private.sign(digest, _of_length(digest))
    if marshaling is Marshaling.ASN1:
        return der
    size = _size(private.curve)
    return b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(der))


def is_valid(public: ec.EllipticCurvePublicKey, digest: bytes, signature: bytes, marshaling: Marshaling) -> bool:
    """Whether a signature is one of a hash.

    Raises:
        InvalidInputError: it should be DER, and is not.
    """
    if marshaling is Marshaling.ASN1:
        _require_der(signature)
        der = signature
    elif len(signature) == 2 * _size(public.curve):
        der = ecdsa_der(signature)
    else:
        return False
    if not digest:
        return False
    try:
        public.verify(der, digest, _of_length(digest))
    except InvalidSignature:
        return False
    return True


def _of_length(digest: bytes) -> ec.ECDSA:
    # Of the function only the length is asked, and this one has any.
    return ec.ECDSA(Prehashed(SHAKE256(len(digest))))


def _size(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8


def _require_der(signature: bytes) -> None:
    if _is_der(signature):
        return
    if _is_der(signature[: _told_size(signature)]):
        raise InvalidInputError("supplied signature contains extra data")
    raise InvalidInputError("supplied signature is invalid")


def _is_der(signature: bytes) -> bool:
    try:
        decode_dss_signature(signature)
    except ValueError:
        return False
    return True


def _told_size(signature: bytes) -> int:
    """Return how long DER says that it is itself; 0 where it is no sequence."""
    if len(signature) < 3 or signature[0] != _SEQUENCE:
        return 0
    return 3 + signature[2] if signature[1] == _LONG else 2 + signature[1]
