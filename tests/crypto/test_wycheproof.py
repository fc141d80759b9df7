"""The primitives Keystead is built on, against Project Wycheproof's cases."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from tests.crypto.vectors import load

Case = dict[str, Any]


def aes_gcm(case: Case) -> bytes:
    cipher = AESGCM(case["key"])
    opened = cipher.decrypt(case["iv"], case["ct"] + case["tag"], case["aad"])
    assert cipher.encrypt(case["iv"], case["msg"], case["aad"]) == case["ct"] + case["tag"]
    return opened


def hkdf(case: Case) -> bytes:
    return HKDF(SHA256(), case["size"], case["salt"], case["info"]).derive(case["ikm"])


def pbkdf2(case: Case) -> bytes:
    return PBKDF2HMAC(SHA256(), case["dkLen"], case["salt"], case["iterationCount"]).derive(case["password"])


def hmac_sha256(case: Case) -> bytes:
    mac = HMAC(case["key"], SHA256())
    mac.update(case["msg"])
    tag = mac.finalize()[: case["tagSize"] // 8]
    if tag != case["tag"]:
        raise InvalidSignature
    return tag


def stream(case: Case) -> bytes:
    decryptor = Cobblestone256Decryptor(case["key"], case["ctx"])
    return decryptor.update(zlib.decompress(case["ct"])) + decryptor.finalize()


BYTES = {"key", "iv", "aad", "msg", "ct", "tag", "ikm", "salt", "info", "okm", "password", "dk", "ctx"}


def _cases(name: str) -> Iterator[Case]:
    for group in load(f"third_party/wycheproof/{name}.json")["testGroups"]:
        for test in group["tests"]:
            case: Case = {**group, **test}
            yield {key: bytes.fromhex(value) if key in BYTES else value for key, value in case.items()}


def _outcome(run: Callable[[Case], bytes], case: Case) -> tuple[str, bytes]:
    try:
        return "valid", run(case)
    except (InvalidTag, InvalidSignature, ValueError):
        return "invalid", b""


@pytest.mark.parametrize(
    ("name", "run", "result", "counts"),
    [
        ("aes_gcm_test", aes_gcm, "msg", {"valid": 202, "invalid": 87, "refused nonce": 27}),
        ("hkdf_sha256_test", hkdf, "okm", {"valid": 83, "invalid": 3}),
        ("pbkdf2_hmacsha256_test", pbkdf2, "dk", {"valid": 60}),
        ("hmac_sha256_test", hmac_sha256, "tag", {"valid": 66, "invalid": 108}),
        ("c2sp_chunked_encryption_aes_256_gcm_test", stream, "msg", {"valid": 10, "invalid": 25}),
    ],
)
def test_a_primitive_agrees_with_every_wycheproof_case(
    name: str, run: Callable[[Case], bytes], result: str, counts: dict[str, int]
) -> None:
    seen: Counter[str] = Counter()
    for case in _cases(name):
        outcome, output = _outcome(run, case)
        if case["result"] == "valid" and not 64 <= case.get("ivSize", 96) <= 1024:
            assert outcome == "invalid"
            seen["refused nonce"] += 1
            continue
        assert outcome == case["result"], case["tcId"]
        if outcome == "valid" and "msgSha512" in case:
            assert (len(output), hashlib.sha512(output).hexdigest()) == (case["msgLength"], case["msgSha512"])
        elif outcome == "valid":
            assert output == case[result], case["tcId"]
        seen[outcome] += 1

    assert seen == counts
