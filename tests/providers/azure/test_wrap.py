"""The format: docs/spec/azure-wrap-v1.md, against vectors that were computed without Keystead."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keystead.crypto.signatures import ecdsa_der, verify_signature
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidSignatureError
from keystead.model import KeyReference, PublicKey, SignatureAlgorithm
from keystead.providers.azure.wrap import (
    AES_CAPACITY,
    RSA_CAPACITIES,
    AesSeal,
    RsaWrap,
    Signer,
    context_hash,
    frame,
    one_spelling,
    open_sealed,
    parse,
    unframe,
)
from tests.crypto.vectors import cases, context_of, load

FILE = "azure-wrap-v1.json"
NAMES = {
    "ES256": SignatureAlgorithm.ECDSA_SHA_256,
    "ES384": SignatureAlgorithm.ECDSA_SHA_384,
    "ES512": SignatureAlgorithm.ECDSA_SHA_512,
    "PS256": SignatureAlgorithm.RSA_PSS_SHA_256,
}
CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
RSA_CASES = cases(FILE, "rsa")
SIGNED = [case for case in RSA_CASES if case["signature_algorithm"] != "none"]


def blob(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["ciphertext"])


def private_key() -> rsa.RSAPrivateKey:
    given = load(FILE)["rsa_key"]
    p, q, e = int(given["p"], 16), int(given["q"], 16), given["e"]
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()


def signer_of(case: dict[str, Any]) -> PublicKey:
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey = private_key().public_key()
    if (curve := CURVES.get(case["signature_algorithm"])) is not None:
        x, y = int(case["signer_x"], 16), int(case["signer_y"], 16)
        key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(der, KeyReference("azure", case["signer"]), (NAMES[case["signature_algorithm"]],))


@pytest.mark.parametrize("case", RSA_CASES, ids=lambda case: case["comment"])
def test_an_rsa_wrap_is_read_into_its_parts_and_written_again(case: dict[str, Any]) -> None:
    parsed = parse(blob(case))
    assert isinstance(parsed, RsaWrap)
    assert parsed.wrapped.hex() == case["wrapped"]
    assert parsed.signature.hex() == case.get("signature", "")
    assert (parsed.signer and parsed.signer.key_id) == case.get("signer")
    assert parsed.to_bytes() == blob(case)


@pytest.mark.parametrize("case", RSA_CASES, ids=lambda case: case["comment"])
def test_what_an_rsa_key_unwraps_opens_under_its_context_only(case: dict[str, Any]) -> None:
    parsed = parse(blob(case))
    assert isinstance(parsed, RsaWrap)
    sealed = private_key().decrypt(parsed.wrapped, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))
    assert open_sealed(sealed, context_hash(context_of(case))).hex() == case["plaintext"]
    with pytest.raises(DecryptionError):
        open_sealed(sealed, context_hash({"another": "context"}))


@pytest.mark.parametrize("case", [*RSA_CASES, *cases(FILE, "aes")], ids=lambda case: case["plaintext"][:8] or "empty")
def test_the_context_hash_is_the_specified_one(case: dict[str, Any]) -> None:
    assert context_hash(context_of(case)).hex() == case["context_hash"]


@pytest.mark.parametrize("case", SIGNED, ids=lambda case: case["signature_algorithm"])
def test_the_signature_is_of_the_specified_message(case: dict[str, Any]) -> None:
    parsed = parse(blob(case))
    assert isinstance(parsed, RsaWrap)
    message = parsed.message(case["kek"], context_hash(context_of(case)))
    assert message.hex() == case["message"]
    signature = ecdsa_der(parsed.signature) if case["signature_algorithm"] in CURVES else parsed.signature
    verify_signature(signer_of(case), message, signature, algorithm=NAMES[case["signature_algorithm"]])


@pytest.mark.parametrize("case", cases(FILE, "aes"), ids=lambda case: case["plaintext"][:8] or "empty")
def test_an_aes_ciphertext_is_read_into_its_parts_and_opens(case: dict[str, Any]) -> None:
    parsed = parse(blob(case))
    assert isinstance(parsed, AesSeal)
    assert parsed.nonce.hex() == case["nonce"]
    aad = context_hash(context_of(case))
    framed = AESGCM(bytes.fromhex(case["key"])).decrypt(parsed.nonce, parsed.sealed + parsed.tag, aad)
    assert unframe(framed).hex() == case["plaintext"]
    assert frame(bytes.fromhex(case["plaintext"])) == framed
    assert parsed.to_bytes() == blob(case)


@pytest.mark.parametrize("case", cases(FILE, "invalid"), ids=lambda case: case["comment"])
def test_what_no_writer_writes_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidCiphertextError):
        parse(blob(case))


@pytest.mark.parametrize("case", RSA_CASES, ids=lambda case: case["comment"])
def test_an_rsa_wrap_is_refused_at_every_shorter_length(case: dict[str, Any]) -> None:
    for length in range(len(blob(case))):
        with pytest.raises(InvalidCiphertextError):
            parse(blob(case)[:length])


@pytest.mark.parametrize("case", SIGNED, ids=lambda case: case["signature_algorithm"])
def test_no_bit_of_a_signed_wrap_can_be_flipped(case: dict[str, Any]) -> None:
    original, public_key, hashed = blob(case), signer_of(case), context_hash(context_of(case))
    # One bit of each byte for the slow curves.
    bits = range(8) if case["signature_algorithm"] == "ES256" else (0,)
    for position, bit in itertools.product(range(len(original)), bits):
        altered = bytearray(original)
        altered[position] ^= 1 << bit
        with pytest.raises((InvalidCiphertextError, InvalidSignatureError)):
            check(parse(bytes(altered)), public_key, case["kek"], hashed)


def check(parsed: RsaWrap | AesSeal, public_key: PublicKey, kek: str, hashed: bytes) -> None:
    if not isinstance(parsed, RsaWrap) or parsed.signer is None:
        raise InvalidSignatureError("not signed")
    is_ecdsa = parsed.signer.algorithm.value.startswith("ECDSA")
    signature = ecdsa_der(parsed.signature) if is_ecdsa else parsed.signature
    verify_signature(public_key, parsed.message(kek, hashed), signature, algorithm=parsed.signer.algorithm)


def test_capacities_are_what_oaep_leaves() -> None:
    assert {str(bits): size for bits, size in RSA_CAPACITIES.items()} == load(FILE)["capacities"]
    assert all(size == bits // 8 - 2 * 32 - 2 - 32 for bits, size in RSA_CAPACITIES.items())
    assert len(frame(bytes(AES_CAPACITY))) == 4096


@pytest.mark.parametrize("case", [case for case in SIGNED if case["signature_algorithm"] in CURVES])
def test_the_other_signature_that_verifies_is_turned_into_the_one_that_is_written(case: dict[str, Any]) -> None:
    algorithm = NAMES[case["signature_algorithm"]]
    low = bytes.fromhex(case["signature"])
    half, order = len(low) // 2, CURVES[case["signature_algorithm"]].group_order
    high = low[:half] + (order - int.from_bytes(low[half:], "big")).to_bytes(half, "big")
    verify_signature(signer_of(case), bytes.fromhex(case["message"]), ecdsa_der(high), algorithm=algorithm)
    assert one_spelling(high, algorithm) == low == one_spelling(low, algorithm)
    parsed = parse(blob(case))
    assert isinstance(parsed, RsaWrap)
    with pytest.raises(InvalidCiphertextError):
        parse(RsaWrap(parsed.wrapped, parsed.signer, high).to_bytes())


def test_a_wrap_that_lost_its_signature_is_still_the_same_wrap() -> None:
    """Which is why a reader that has signing keys never takes it."""
    parsed = parse(blob(SIGNED[0]))
    assert isinstance(parsed, RsaWrap)
    stripped = parse(RsaWrap(parsed.wrapped).to_bytes())
    assert isinstance(stripped, RsaWrap)
    assert (stripped.wrapped, stripped.signer) == (parsed.wrapped, None)


def test_signer_and_key_are_part_of_what_is_signed() -> None:
    one = Signer("https://a.vault.azure.net/keys/s/1", SignatureAlgorithm.ECDSA_SHA_256)
    other = Signer("https://a.vault.azure.net/keys/s/2", SignatureAlgorithm.ECDSA_SHA_256)
    hashed = context_hash({})
    messages = {
        RsaWrap(bytes(256), one).message("https://a.vault.azure.net/keys/k/1", hashed),
        RsaWrap(bytes(256), other).message("https://a.vault.azure.net/keys/k/1", hashed),
        RsaWrap(bytes(256), one).message("https://a.vault.azure.net/keys/k/2", hashed),
        RsaWrap(bytes(256), one).message("https://a.vault.azure.net/keys/k/1", context_hash({"a": ""})),
    }
    assert len(messages) == 4


@pytest.mark.parametrize("framed", [b"", b"\x00", b"\x02value"])
def test_what_another_program_encrypted_under_the_same_aes_key_is_no_plaintext(framed: bytes) -> None:
    with pytest.raises(DecryptionError):
        unframe(framed)
