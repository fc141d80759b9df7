from __future__ import annotations

from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_public_key

from keystead.devices.pairs import (
    ALGORITHMS,
    Algorithm,
    OpenKey,
    Pair,
    Purpose,
    binding,
    encrypt_to,
    make_pair,
    public_pem,
)
from keystead.errors import DecryptionError
from keystead.ports import PairKind
from tests.crypto.vectors import cases, load

KEYS = {case["kind"]: bytes.fromhex(case["private"]) for case in cases("client-keys-v1.json", "keys")}
CIPHERTEXTS = cases("client-keys-v1.json", "ciphertexts")
INFO = binding("key_1", "device", Purpose.PASSCODE)
EACH = [(kind, algorithm) for kind, algorithms in ALGORITHMS.items() for algorithm in algorithms]


@cache
def pair_of(kind: PairKind) -> Pair:
    return make_pair(kind)


@cache
def opened(kind: PairKind) -> OpenKey:
    return OpenKey(kind, pair_of(kind).private)


@pytest.mark.parametrize("case", CIPHERTEXTS, ids=lambda case: f"{case['algorithm']} {case['comment']}")
def test_what_another_implementation_encrypted_opens(case: dict[str, str]) -> None:
    key = OpenKey(PairKind(case["kind"]), KEYS[case["kind"]])
    plaintext = key.open(bytes.fromhex(case["ciphertext"]), Algorithm(case["algorithm"]), bytes.fromhex(case["info"]))
    assert plaintext == bytes.fromhex(case["plaintext"])


def test_the_binding_of_hpke_is_as_specified() -> None:
    (case, *_) = (case for case in CIPHERTEXTS if case["kind"] == "X25519")
    key_id = load("client-keys-v1.json")["payloads"]["key_id"]
    assert binding(key_id, "device-1234", Purpose.PASSCODE).hex() == case["info"]


@pytest.mark.parametrize(("kind", "algorithm"), EACH)
def test_what_is_encrypted_to_a_new_pair_opens(kind: PairKind, algorithm: Algorithm) -> None:
    sealed = encrypt_to(pair_of(kind).public, "\U0001f511 p\u00e4ss".encode(), algorithm, INFO)
    assert opened(kind).open(sealed, algorithm, INFO).decode() == "\U0001f511 p\u00e4ss"


@pytest.mark.parametrize(("kind", "algorithm"), EACH)
def test_a_flipped_bit_anywhere_does_not_open(kind: PairKind, algorithm: Algorithm) -> None:
    sealed = encrypt_to(pair_of(kind).public, b"secret", algorithm, INFO)
    for at in range(0, len(sealed) * 8, 7):
        altered = bytearray(sealed)
        altered[at // 8] ^= 1 << at % 8
        with pytest.raises(DecryptionError):
            opened(kind).open(bytes(altered), algorithm, INFO)


@pytest.mark.parametrize(("kind", "algorithm"), EACH)
def test_a_ciphertext_of_another_length_does_not_open(kind: PairKind, algorithm: Algorithm) -> None:
    sealed = encrypt_to(pair_of(kind).public, b"secret", algorithm, INFO)
    for length in [*range(0, len(sealed), 5), len(sealed) - 1]:
        with pytest.raises(DecryptionError):
            opened(kind).open(sealed[:length], algorithm, INFO)
    with pytest.raises(DecryptionError):
        opened(kind).open(sealed + b"\0", algorithm, INFO)


@pytest.mark.parametrize(("kind", "algorithm"), EACH)
def test_another_algorithm_does_not_open_and_is_not_tried(kind: PairKind, algorithm: Algorithm) -> None:
    sealed = encrypt_to(pair_of(kind).public, b"secret", algorithm, INFO)
    for other in set(Algorithm) - {algorithm}:
        with pytest.raises(DecryptionError, match=r"^Failed to decrypt data$"):
            opened(kind).open(sealed, other, INFO)


@pytest.mark.parametrize(
    "info",
    [
        binding("key_2", "device", Purpose.PASSCODE),
        binding("key_1", "other", Purpose.PASSCODE),
        binding("key_1", "device", Purpose.TRANSACTION_PIN),
        binding("key_1d", "evice", Purpose.PASSCODE),
        b"",
    ],
)
def test_hpke_opens_for_its_own_key_device_and_purpose_only(info: bytes) -> None:
    sealed = encrypt_to(pair_of(PairKind.X25519).public, b"secret", Algorithm.HPKE_X25519, INFO)
    with pytest.raises(DecryptionError):
        opened(PairKind.X25519).open(sealed, Algorithm.HPKE_X25519, info)


def test_what_openssl_says_does_not_travel_on() -> None:
    with pytest.raises(DecryptionError) as caught:
        opened(PairKind.RSA_2048).open(bytes(256), Algorithm.RSA_OAEP_SHA1)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_documented_limits_of_a_plaintext_hold() -> None:
    public = pair_of(PairKind.RSA_2048).public
    for algorithm, most in ((Algorithm.RSA_OAEP_SHA1, 214), (Algorithm.RSA_OAEP_SHA256, 190)):
        assert len(encrypt_to(public, bytes(most), algorithm)) == 256
        with pytest.raises(ValueError, match=r"[Ee]ncryption failed|too long"):
            encrypt_to(public, bytes(most + 1), algorithm)


@pytest.mark.parametrize(("kind", "bits"), [(PairKind.RSA_2048, 2048), (PairKind.RSA_3072, 3072)])
def test_a_pair_is_what_documented_clients_load(kind: PairKind, bits: int) -> None:
    pem = public_pem(pair_of(kind).public)
    assert pem.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert pem.endswith("-----END PUBLIC KEY-----\n")
    public = load_pem_public_key(pem.encode())
    assert isinstance(public, RSAPublicKey)
    assert (public.key_size, public.public_numbers().e) == (bits, 65537)
    private = load_der_private_key(pair_of(kind).private, None)
    assert private.public_key() == public


def test_a_pair_and_an_open_key_do_not_show_themselves() -> None:
    pair = pair_of(PairKind.X25519)
    assert "hidden" in repr(pair)
    assert pair.private.hex() not in repr(pair) + repr(opened(PairKind.X25519))
