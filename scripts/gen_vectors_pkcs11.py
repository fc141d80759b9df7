"""Vectors of PKCS#11 ciphertexts. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from scripts.gen_vectors_kms import Case, known_bytes, u32
from scripts.gen_vectors_local_kek import WRAP_CONTEXT

ContextEncoder = Callable[[list[list[str]]], bytes]
GCM, KEY_WRAP = 1, 2
ALGORITHMS = {GCM: "CKM_AES_GCM", KEY_WRAP: "CKM_AES_KEY_WRAP"}

WrapCase = tuple[str, int, str, list[list[str]], bytes]

CASES: list[WrapCase] = [
    ("empty plaintext, no context", GCM, "01", [], b""),
    ("a WRAP key under its row's context", GCM, "0000000217a3c0de", WRAP_CONTEXT, known_bytes("pkcs11 wrap key")),
    ("the longest id, beyond ASCII", GCM, "ff" * 255, [["ort", "Z\u00fcrich"], ["a", ""]], b"\0\xff"),
    ("wrapped: empty plaintext, no context", KEY_WRAP, "01", [], b""),
    ("wrapped: a WRAP key", KEY_WRAP, "0000000217a3c0de", WRAP_CONTEXT, known_bytes("pkcs11 wrap key")),
    ("wrapped: four bytes need no padding", KEY_WRAP, "00", [["a", "b"]], b"four"),
    ("wrapped: five bytes need seven", KEY_WRAP, "ff" * 255, [["a", "b"]], b"five5"),
]
NEXT_IDS = ["01", "ffffffff", "0000000217a3c0de", "ffffffffffffffff", "00" * 20, "ab" * 20, "ff" * 20]


def pkcs11_file(encode_context: ContextEncoder) -> Case:
    """Return ``pkcs11-wrap-v1.json``."""
    random = known_bytes("pkcs11 next id", 4)
    return {
        "spec": "docs/spec/pkcs11-wrap-v1.md",
        "tests": [_case(encode_context, case) for case in CASES],
        "next_ids": [{"newest": each, "random": random.hex(), "next": _next_id(each, random)} for each in NEXT_IDS],
        "newest_last": ["00", "01", "0001", "02", "ff", "0000000117a3c0de", "0000000200000000", "ab" * 20],
    }


def _case(encode_context: ContextEncoder, case: WrapCase) -> Case:
    comment, mechanism, key_id, pairs, plaintext = case
    key, random = known_bytes(f"pkcs11 {comment}"), known_bytes(f"pkcs11 random {comment}", 16)
    raw_id, context = bytes.fromhex(key_id), encode_context(pairs)
    header = b"\xaa\x01" + bytes((mechanism, len(raw_id))) + raw_id
    if mechanism == GCM:
        random = random[:12]
        body = random + AESGCM(key).encrypt(random, plaintext, header + context)
    else:
        binding = hashlib.sha256(b"keystead pkcs11 wrap v1\0" + header + context).digest()
        payload = random + binding + u32(plaintext)
        body = aes_key_wrap(key, payload + bytes(-len(payload) % 8))
    return {
        "comment": comment,
        "algorithm": ALGORITHMS[mechanism],
        "key": key.hex(),
        "cka_id": key_id,
        "random": random.hex(),
        "context": pairs,
        "plaintext": plaintext.hex(),
        "ciphertext": (header + body).hex(),
    }


def _next_id(newest: str, random: bytes) -> str:
    number = (int(newest, 16) // 2**32 + 1) * 2**32 + int.from_bytes(random, "big")
    digits = f"{number:x}"
    return digits.zfill(max(16, len(newest), len(digits) + len(digits) % 2))
