from __future__ import annotations

from collections import Counter

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keystead.devices.pairs import Algorithm, OpenKey
from keystead.errors import DecryptionError
from keystead.ports import PairKind
from tests.crypto.vectors import load


@pytest.mark.parametrize(
    ("name", "kind", "algorithm", "counts"),
    [
        (
            "2048_sha1_mgf1sha1",
            PairKind.RSA_2048,
            Algorithm.RSA_OAEP_SHA1,
            {"valid": 10, "invalid": 19, "with a label": 7},
        ),
        (
            "2048_sha256_mgf1sha256",
            PairKind.RSA_2048,
            Algorithm.RSA_OAEP_SHA256,
            {"valid": 10, "invalid": 19, "with a label": 8},
        ),
        (
            "3072_sha256_mgf1sha256",
            PairKind.RSA_3072,
            Algorithm.RSA_OAEP_SHA256,
            {"valid": 10, "invalid": 19, "with a label": 8},
        ),
    ],
)
def test_a_key_opens_what_wycheproof_calls_valid_and_nothing_else(
    name: str, kind: PairKind, algorithm: Algorithm, counts: dict[str, int]
) -> None:
    seen: Counter[str] = Counter()
    for group in load(f"third_party/wycheproof/rsa_oaep_{name}_test.json")["testGroups"]:
        key = OpenKey(kind, bytes.fromhex(group["privateKeyPkcs8"]))
        for case in group["tests"]:
            ciphertext = bytes.fromhex(case["ct"])
            if case["result"] == "valid" and not case["label"]:
                assert key.open(ciphertext, algorithm) == bytes.fromhex(case["msg"]), case["tcId"]
                seen["valid"] += 1
            else:
                with pytest.raises(DecryptionError, match=r"^Failed to decrypt data$"):
                    key.open(ciphertext, algorithm)
                seen["with a label" if case["label"] else "invalid"] += 1
    assert seen == counts


def test_a_key_comes_to_the_secrets_of_rfc_9180() -> None:
    published = load("third_party/hpke/rfc9180.json")
    vector = {name: bytes.fromhex(published[name]) for name in ("skRm", "key", "base_nonce", "enc", "info")}
    private = X25519PrivateKey.from_private_bytes(vector["skRm"])
    key = OpenKey(PairKind.X25519, private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    sealed = AESGCM(vector["key"]).encrypt(vector["base_nonce"], b"a secret", b"")
    assert key.open(vector["enc"] + sealed, Algorithm.HPKE_X25519, vector["info"]) == b"a secret"
