"""Signatures, checked by a public key alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.crypto.signatures import ecdsa_der, verify_signature
from keystead.errors import InvalidInputError, InvalidSignatureError
from keystead.model import KeyReference, PublicKey, SignatureAlgorithm

MESSAGE: Final = b"what is signed"
HASHES: Final = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
RSA: Final = rsa.generate_private_key(65537, 2048)
EC: Final = ec.generate_private_key(ec.SECP256R1())
ED: Final = ed25519.Ed25519PrivateKey.generate()
SIGNING: Final = [algorithm for algorithm in SignatureAlgorithm if not algorithm.is_mac]


def hash_of(algorithm: SignatureAlgorithm) -> hashes.HashAlgorithm:
    return HASHES[algorithm.hash_name or ""]


def signed(algorithm: SignatureAlgorithm, *, salt: int | object = padding.PSS.DIGEST_LENGTH) -> bytes:
    if algorithm is SignatureAlgorithm.ED25519:
        return ED.sign(MESSAGE)
    digest = hash_of(algorithm)
    if algorithm.startswith("ECDSA"):
        return EC.sign(MESSAGE, ec.ECDSA(digest))
    pss = padding.PSS(padding.MGF1(digest), salt)  # type: ignore[arg-type]  # a number, or what stands for one
    return RSA.sign(MESSAGE, pss if algorithm.startswith("RSA-PSS") else padding.PKCS1v15(), digest)


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> PublicKey:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(der, KeyReference("fake", "audit"), ())


def key_for(algorithm: SignatureAlgorithm) -> PublicKey:
    if algorithm is SignatureAlgorithm.ED25519:
        return public(ED)
    return public(EC if algorithm.startswith("ECDSA") else RSA)


@pytest.mark.parametrize("algorithm", SIGNING)
def test_a_signature_of_these_bytes_is_accepted_and_no_other(algorithm: SignatureAlgorithm) -> None:
    key, value = key_for(algorithm), signed(algorithm)
    verify_signature(key, MESSAGE, value, algorithm=algorithm)
    altered = [value[:-1], value + b"\x00", bytes((value[0] ^ 1,)) + value[1:], b"", bytes(len(value))]
    for message, signature in [(b"another", value), *((MESSAGE, each) for each in altered)]:
        with pytest.raises(InvalidSignatureError):
            verify_signature(key, message, signature, algorithm=algorithm)


@pytest.mark.parametrize("made_by", SIGNING)
@pytest.mark.parametrize("checked_as", SIGNING)
def test_a_signature_by_one_algorithm_is_none_by_another(
    made_by: SignatureAlgorithm, checked_as: SignatureAlgorithm
) -> None:
    if made_by is not checked_as:
        with pytest.raises(InvalidSignatureError):
            verify_signature(key_for(made_by), MESSAGE, signed(made_by), algorithm=checked_as)


def test_a_salt_of_pss_is_as_long_as_the_hash() -> None:
    algorithm = SignatureAlgorithm.RSA_PSS_SHA_256
    for salt in (0, 20, padding.PSS.MAX_LENGTH):
        with pytest.raises(InvalidSignatureError):
            verify_signature(public(RSA), MESSAGE, signed(algorithm, salt=salt), algorithm=algorithm)


def test_ecdsa_is_accepted_in_der_only_and_the_other_spelling_can_be_turned_into_it() -> None:
    algorithm = SignatureAlgorithm.ECDSA_SHA_256
    r, s = decode_dss_signature(signed(algorithm))
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    with pytest.raises(InvalidSignatureError):
        verify_signature(public(EC), MESSAGE, raw, algorithm=algorithm)
    verify_signature(public(EC), MESSAGE, ecdsa_der(raw), algorithm=algorithm)
    for malformed in (b"", raw[:-1]):
        with pytest.raises(InvalidSignatureError):
            ecdsa_der(malformed)


def test_a_mac_is_checked_by_no_public_key() -> None:
    with pytest.raises(InvalidInputError, match="no public key"):
        verify_signature(public(ED), MESSAGE, b"mac", algorithm=SignatureAlgorithm.HMAC_SHA_256)


P256: Final = bytes.fromhex("06082a8648ce3d030107")
UNREADABLE: Final[dict[str, Callable[[bytes], bytes]]] = {
    "empty": lambda der: b"",
    "truncated": lambda der: der[:-1],
    "longer": lambda der: der + b"\x00",
    "a curve that nobody knows": lambda der: der.replace(P256, P256[:-1] + b"\x7f"),
    "a kind that nobody knows": lambda der: der.replace(bytes.fromhex("06072a8648ce3d0201"), b"\x06\x07" + b"*" * 7),
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_public_key_that_cannot_be_read_says_nothing_of_the_signature(how: str) -> None:
    algorithm, key = SignatureAlgorithm.ECDSA_SHA_256, public(EC)
    with pytest.raises(InvalidInputError, match="public key") as caught:
        verify_signature(replace(key, der=UNREADABLE[how](key.der)), MESSAGE, signed(algorithm), algorithm=algorithm)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
