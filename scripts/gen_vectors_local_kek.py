"""Vectors of the local KEK: ciphertexts, expanded root keys, and a KEK file. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from struct import pack

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from scripts.gen_vectors_kms import Case, known_bytes, u32

Hkdf = Callable[[bytes, bytes, int], bytes]
ContextEncoder = Callable[[list[list[str]]], bytes]

WRAP_CONTEXT = [
    ["keystead.purpose", "wrap"],
    ["keystead.version", "1"],
    ["keystead.store", "00112233445566778899aabbccddeeff"],
]

LocalKekCase = tuple[str, int, str, list[list[str]], bytes]

CASES: list[LocalKekCase] = [
    ("empty plaintext, no context", 1, "default", [], b""),
    ("a WRAP key under its row's context", 2, "default", WRAP_CONTEXT, known_bytes("local kek wrap key")),
    ("highest version, beyond ASCII", 2**32 - 1, "schl\u00fcssel:1", [["ort", "Z\u00fcrich"], ["a", ""]], b"\0\xff"),
]

FILE_VERSIONS = [(1, "2030-01-01T00:00:00.000000Z"), (3, "2030-02-01T12:30:00.250000Z")]


def local_kek_file(hkdf: Hkdf, encode_context: ContextEncoder) -> Case:
    """Return ``local-kek-v1.json``."""
    root_key = known_bytes("local kek root key", 24)
    tests = [_case(hkdf, encode_context, case) for case in CASES]
    keys = [(number, created, known_bytes(f"local kek file {number}")) for number, created in FILE_VERSIONS]
    body = "keystead-kek-file v1\n# a test file\n" + "".join(
        f"{number} {created} {base64.b64encode(key).decode()}\n" for number, created, key in keys
    )
    return {
        "spec": "docs/spec/local-kek-v1.md",
        "tests": tests,
        "root_keys": [{"root_key": root_key.hex(), "kek": hkdf(root_key, b"keystead local root key", 32).hex()}],
        "files": [
            {
                "content": body + f"sha256 {hashlib.sha256(body.encode()).hexdigest()}\n",
                "versions": [{"number": n, "created_at": created, "kek": key.hex()} for n, created, key in keys],
            }
        ],
    }


def _case(hkdf: Hkdf, encode_context: ContextEncoder, case: LocalKekCase) -> Case:
    comment, version, key_id, pairs, plaintext = case
    kek, nonce = known_bytes(f"local kek {comment}"), known_bytes(f"local kek nonce {comment}", 12)
    cipher_key = hkdf(kek, b"keystead local kek" + key_id.encode(), 32)
    header = b"\xad\x01" + pack(">I", version)
    aad = header + u32(key_id.encode()) + encode_context(pairs)
    return {
        "comment": comment,
        "version": version,
        "kek": kek.hex(),
        "key_id": key_id,
        "nonce": nonce.hex(),
        "context": pairs,
        "cipher_key": cipher_key.hex(),
        "aad": aad.hex(),
        "plaintext": plaintext.hex(),
        "ciphertext": (header + nonce + AESGCM(cipher_key).encrypt(nonce, plaintext, aad)).hex(),
    }
