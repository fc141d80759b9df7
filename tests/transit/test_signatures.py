"""Signatures are those that every verifier knows, and nothing else is taken for one."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from keystead.crypto.private_keys import from_outside, read_pair
from keystead.errors import InvalidInputError
from keystead.model import TransitType
from keystead.transit import base64_text
from keystead.transit.digests import Hash
from keystead.transit.opened import OpenKey
from keystead.transit.public_keys import public_text
from keystead.transit.signature_options import PKCS1, PSS, SALT_OF_HASH, Marshaling, Options, options_of
from keystead.transit.signatures import sign, verify
from tests.crypto.vectors import load
from tests.transit.made import key_of
from tests.transit.replay.recordings import scenario
from tests.transit.signing import ECDSA, FOX, JWS, KEYS, SIGNERS, SIZES, from_url, raw_of, text_of, told_public

MADE = {kind: sign(key, FOX) for kind, key in KEYS.items()}
MADE_AS_JWS = {kind: sign(key, FOX, JWS) for kind, key in KEYS.items()}
"""One signature of each, for tests that change it."""


@pytest.mark.parametrize("kind", SIGNERS)
@pytest.mark.parametrize("marshaling", Marshaling)
def test_what_is_signed_verifies_and_another_message_does_not(kind: TransitType, marshaling: Marshaling) -> None:
    options = Options(marshaling=marshaling)
    made = sign(KEYS[kind], FOX, options)
    assert (made.version, made.public_key) == (1, "")
    assert verify(KEYS[kind], FOX, made.text, options)
    assert not verify(KEYS[kind], b"other", made.text, options)


@pytest.mark.parametrize("function", Hash)
@pytest.mark.parametrize("kind", [TransitType.ECDSA_P256, TransitType.ECDSA_P521])
def test_ecdsa_verifies_elsewhere_by_the_public_key_told(kind: TransitType, function: Hash) -> None:
    made, public = sign(KEYS[kind], FOX, Options(function)), told_public(KEYS[kind])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(raw_of(made.text), FOX, ec.ECDSA(function.algorithm))
    of_others = read_pair(bytes(KEYS[kind].versions[1].key)).private
    assert isinstance(of_others, ec.EllipticCurvePrivateKey)
    theirs = of_others.sign(FOX, ec.ECDSA(function.algorithm))
    assert verify(KEYS[kind], FOX, text_of(theirs), Options(function))


@pytest.mark.parametrize("function", Hash)
def test_rsa_verifies_elsewhere_by_the_public_key_told(function: Hash) -> None:
    key, public = KEYS[TransitType.RSA_2048], told_public(KEYS[TransitType.RSA_2048])
    assert isinstance(public, rsa.RSAPublicKey)
    longest = padding.PSS(padding.MGF1(function.algorithm), padding.PSS.MAX_LENGTH)
    public.verify(raw_of(sign(key, FOX, Options(function)).text), FOX, longest, function.algorithm)
    as_hash = padding.PSS(padding.MGF1(function.algorithm), padding.PSS.DIGEST_LENGTH)
    made = sign(key, FOX, Options(function, salt_length=SALT_OF_HASH))
    public.verify(raw_of(made.text), FOX, as_hash, function.algorithm)
    older = sign(key, FOX, Options(function, scheme=PKCS1))
    public.verify(raw_of(older.text), FOX, padding.PKCS1v15(), function.algorithm)
    assert verify(key, FOX, older.text, Options(function, scheme=PKCS1))
    assert not verify(key, FOX, older.text, Options(function))
    assert not verify(key, FOX, made.text, Options(function, scheme=PKCS1))


def test_ed25519_verifies_elsewhere_and_hashes_whatever_is_asked_never() -> None:
    key = KEYS[TransitType.ED25519]
    made, public = sign(key, FOX), told_public(key)
    assert isinstance(public, ed25519.Ed25519PublicKey)
    public.verify(raw_of(made.text), FOX)
    for options in (Options(Hash.SHA2_512), Options(is_prehashed=True), Options(None), Options(scheme="other")):
        assert sign(key, FOX, options).text == made.text
        assert verify(key, FOX, made.text, options)


@pytest.mark.parametrize("kind", [kind for kind in SIGNERS if kind is not TransitType.ED25519])
def test_openssl_verifies_by_the_public_key_told(kind: TransitType, tmp_path: Path) -> None:
    key = KEYS[kind]
    (tmp_path / "public.pem").write_text(public_text(key, key.versions[1]))
    (tmp_path / "signature").write_bytes(raw_of(sign(key, FOX, Options(scheme=PKCS1)).text))
    (tmp_path / "message").write_bytes(FOX)
    files = ["-verify", "public.pem", "-signature", "signature", "message"]
    run = subprocess.run(["openssl", "dgst", "-sha256", *files], cwd=tmp_path, capture_output=True, check=False)
    assert run.stdout == b"Verified OK\n", run.stderr


@pytest.mark.parametrize("exchange", [34, 35])
def test_known_answers_of_imported_keys(exchange: int) -> None:
    exchanges = {each.index: each for each in scenario("import").exchanges}
    recorded = exchanges[exchange]
    name = recorded.path.rpartition("/")[2]
    wrapped: Any = next(each.body for each in exchanges.values() if each.path.endswith(f"/{name}/import"))
    material = base64.b64decode(wrapped["ciphertext"]["$byok"]["target_key_base64"])
    assert isinstance(recorded.body, dict)
    private: Any = load_der_private_key(material, None)
    key = key_of(TransitType(name[2:]), from_outside(private, bytes(32)))
    options = Options(scheme=recorded.body.get("signature_algorithm", PSS))
    assert sign(key, FOX, options).text == recorded.recorded.body["data"]["signature"]


@pytest.mark.parametrize("kind", ECDSA)
def test_jws_is_both_numbers_at_full_length_in_the_base64_of_urls(kind: TransitType) -> None:
    for _ in range(20):
        made = sign(KEYS[kind], FOX, JWS)
        assert not set(made.text[9:]) & set("+/=")
        assert len(from_url(made.text)) == 2 * SIZES[kind]
        assert verify(KEYS[kind], FOX, made.text, JWS)


@pytest.mark.parametrize("kind", ECDSA)
def test_each_form_of_ecdsa_is_refused_as_the_other(kind: TransitType) -> None:
    size = SIZES[kind]
    der = raw_of(sign(KEYS[kind], FOX).text)
    raw = b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(der))
    assert verify(KEYS[kind], FOX, f"vault:v1:{base64_text.encode_url(raw)}", JWS)
    assert not verify(KEYS[kind], FOX, f"vault:v1:{base64_text.encode_url(der)}", JWS)
    with pytest.raises(InvalidInputError, match=r"^supplied signature is invalid$"):
        verify(KEYS[kind], FOX, text_of(raw))


@pytest.mark.parametrize("kind", SIGNERS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_changed_signature_never_verifies(kind: TransitType, data: st.DataObject) -> None:
    raw = raw_of(MADE[kind].text)
    kept, added = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.binary(min_size=1, max_size=80))
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    flipped = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
    for wrong in (raw[:kept], raw + added, added + raw, flipped):
        assert not _verifies(KEYS[kind], text_of(wrong), Options())
        assert not _verifies(KEYS[kind], f"vault:v1:{base64_text.encode_url(wrong)}", JWS)


@pytest.mark.parametrize("kind", ECDSA)
@settings(max_examples=40)
@given(data=st.data())
def test_a_changed_jws_never_verifies(kind: TransitType, data: st.DataObject) -> None:
    raw = from_url(MADE_AS_JWS[kind].text)
    kept, added = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.binary(min_size=1, max_size=80))
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    flipped = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
    padded = bytes(1) + raw[: len(raw) // 2] + bytes(1) + raw[len(raw) // 2 :]
    for wrong in (raw[:kept], raw + added, added + raw, flipped, padded):
        assert not verify(KEYS[kind], FOX, f"vault:v1:{base64_text.encode_url(wrong)}", JWS)


def _verifies(key: OpenKey, text: str, options: Options, message: bytes = FOX) -> bool:
    try:
        return verify(key, message, text, options)
    except InvalidInputError:
        return False


def test_more_behind_der_is_told_apart_from_what_is_none() -> None:
    key = KEYS[TransitType.ECDSA_P521]
    raw = raw_of(sign(key, FOX).text)
    with pytest.raises(InvalidInputError, match=r"^supplied signature contains extra data$"):
        verify(key, FOX, text_of(raw + b"\x00"))
    inside = bytes([raw[0], raw[1], raw[2] + 2]) + raw[3:] + b"\x05\x00"
    for wrong in (b"", b"\x30", b"\x30\x00", raw[1:], raw[:-1], inside):
        with pytest.raises(InvalidInputError, match=r"^supplied signature is invalid$"):
            verify(key, FOX, text_of(wrong))


@pytest.mark.parametrize("kind", ECDSA)
@pytest.mark.parametrize("size", [1, 5, 20, 32, 48, 64, 65, 66, 67, 200])
def test_ecdsa_takes_a_hash_of_any_length(kind: TransitType, size: int) -> None:
    digest, options = os.urandom(size), Options(is_prehashed=True)
    made = sign(KEYS[kind], digest, options)
    assert verify(KEYS[kind], digest, made.text, options)
    assert not verify(KEYS[kind], bytes([digest[0] ^ 1]) + digest[1:], made.text, options)


def test_ecdsa_of_a_short_hash_is_that_of_the_same_number() -> None:
    key = KEYS[TransitType.ECDSA_P256]
    made, public = sign(key, b"short", Options(is_prehashed=True)), told_public(key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(raw_of(made.text), b"short".rjust(32, b"\0"), ec.ECDSA(Prehashed(SHA256())))


@pytest.mark.parametrize("kind", ECDSA)
def test_an_empty_hash_is_neither_signed_nor_verified(kind: TransitType) -> None:
    options = Options(is_prehashed=True)
    with pytest.raises(InvalidInputError, match=r"^ecdsa: hash cannot be empty$"):
        sign(KEYS[kind], b"", options)
    assert not verify(KEYS[kind], b"", sign(KEYS[kind], b"\0", options).text, options)


@pytest.mark.parametrize("kind", [kind for kind in SIGNERS if kind is not TransitType.ED25519])
def test_a_hash_that_is_given_is_not_hashed_again(kind: TransitType) -> None:
    digest, options = hashlib.sha256(FOX).digest(), Options(is_prehashed=True)
    made = sign(KEYS[kind], digest, options)
    assert verify(KEYS[kind], FOX, made.text)
    assert verify(KEYS[kind], digest, made.text, options)
    assert not verify(KEYS[kind], digest, made.text)


@pytest.mark.parametrize(("scheme", "told"), [(PSS, "with given hash"), (PKCS1, "message")])
def test_rsa_takes_a_hash_of_its_length_alone(scheme: str, told: str) -> None:
    key, options = KEYS[TransitType.RSA_2048], Options(scheme=scheme, is_prehashed=True)
    with pytest.raises(InvalidInputError, match=f"^crypto/rsa: input must be hashed {told}$"):
        sign(key, b"short", options)
    assert not verify(key, b"short", sign(key, bytes(32), options).text, options)


@pytest.mark.parametrize("size", [1, 32, 245])
def test_rsa_signs_without_the_name_of_a_hash(size: int) -> None:
    key = KEYS[TransitType.RSA_2048]
    given, options = os.urandom(size), Options(None, is_prehashed=True, scheme=PKCS1)
    made = sign(key, given, options)
    assert verify(key, given, made.text, options)
    assert not verify(key, given + b"\0", made.text, options)
    assert not verify(key, given[:-1], made.text, options)


def test_rsa_without_the_name_of_a_hash_is_no_other_signature() -> None:
    key, digest = KEYS[TransitType.RSA_2048], hashlib.sha256(FOX).digest()
    bare = Options(None, is_prehashed=True, scheme=PKCS1)
    assert not verify(key, FOX, sign(key, digest, bare).text, Options(scheme=PKCS1))
    assert not verify(key, digest, sign(key, FOX, Options(scheme=PKCS1)).text, bare)
    for wrong, told in ((b"", "hash cannot be empty"), (bytes(246), "message too long for RSA key size")):
        with pytest.raises(InvalidInputError, match=f"^crypto/rsa: {told}$"):
            sign(key, wrong, bare)
        assert not verify(key, wrong, sign(key, b"x", bare).text, bare)


def test_a_salt_verifies_at_its_length_and_at_any() -> None:
    key = KEYS[TransitType.RSA_2048]
    lengths = {"auto": 222, "hash": 32, "20": 20, "32": 32, "222": 222}
    for signed, length in lengths.items():
        made = sign(key, FOX, _salted(signed))
        for read, wanted in lengths.items():
            assert verify(key, FOX, made.text, _salted(read)) is (read == "auto" or length == wanted)


def test_a_salt_that_does_not_fit_is_refused() -> None:
    key = KEYS[TransitType.RSA_2048]
    made = sign(key, FOX)
    for call in (lambda: sign(key, FOX, _salted("223")), lambda: verify(key, FOX, made.text, _salted("223"))):
        with pytest.raises(InvalidInputError, match=r"^requested salt length 223 is invalid$"):
            call()


def _salted(text: str) -> Options:
    return options_of(TransitType.RSA_2048, salt_length=text)


WYCHEPROOF = [
    ("ecdsa_secp256r1_sha256_test", TransitType.ECDSA_P256, Options(), 174),
    ("ecdsa_secp256r1_sha256_p1363_test", TransitType.ECDSA_P256, JWS, 173),
    ("ed25519_test", TransitType.ED25519, Options(), 88),
    ("rsa_pss_2048_sha256_mgf1_32_test", TransitType.RSA_2048, Options(salt_length=32), 63),
    ("rsa_signature_2048_sha256_test", TransitType.RSA_2048, Options(scheme=PKCS1), 9),
]


@pytest.mark.parametrize(("name", "kind", "options", "valid"), WYCHEPROOF, ids=[each[0] for each in WYCHEPROOF])
def test_wycheproof(name: str, kind: TransitType, options: Options, valid: int) -> None:
    counts: Counter[str] = Counter()
    for group in load(f"third_party/wycheproof/{name}.json")["testGroups"]:
        public: Any = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
        key = key_of(kind, from_outside(public, bytes(32)))
        for case in group["tests"]:
            raw = bytes.fromhex(case["sig"])
            encoded = base64_text.encode_url(raw) if options is JWS else base64_text.encode(raw)
            found = _verifies(key, f"vault:v1:{encoded}", options, bytes.fromhex(case["msg"]))
            assert found is (case["result"] == "valid"), case
            counts[case["result"]] += found
    assert counts["valid"] == valid
