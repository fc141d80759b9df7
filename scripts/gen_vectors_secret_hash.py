"""Vectors of secret hashes. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import base64
import hmac
from struct import pack

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from scripts.gen_vectors_kms import Case, known_bytes, u32

CASES: list[tuple[str, str, str, str, str, tuple[int, int, int]]] = [
    ("a passcode", "passcode", "", "user-1", "123456", (19_456, 2, 1)),
    ("a PIN of the same digits", "transaction_pin", "", "user-1", "123456", (19_456, 2, 1)),
    ("another user", "passcode", "", "user-2", "123456", (19_456, 2, 1)),
    ("of a tenant", "passcode", "north", "user-1", "123456", (19_456, 2, 1)),
    ("a boundary that shifts", "passcode", "northu", "ser-1", "123456", (19_456, 2, 1)),
    ("beyond ASCII", "passcode", "", "user-1", "p\u00e4ssw\u00f6rd \U0001f511", (1_024, 1, 2)),
    ("the least cost", "passcode", "", "user-1", "", (8, 1, 1)),
]


def b64(raw: bytes) -> str:
    """Return base64 without padding."""
    return base64.b64encode(raw).decode().rstrip("=")


def secret_hash_file() -> Case:
    """Return ``secret-hash-v1.json``."""
    pepper, pepper_id = known_bytes("pepper"), 0x0123456789ABCDEF
    tests = []
    for comment, kind, tenant, user, secret, (memory, iterations, lanes) in CASES:
        message = b"keystead secret v1\x00" + b"".join(u32(part.encode()) for part in (kind, tenant, user, secret))
        keyed, salt = hmac.digest(pepper, message, "sha256"), known_bytes(f"salt {comment}", 16)
        value = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory).derive(keyed)
        cost = f"m={memory},t={iterations},p={lanes},keyid={b64(pack('>Q', pepper_id))}"
        tests.append(
            {
                "comment": comment,
                "kind": kind,
                "tenant": tenant,
                "user": user,
                "secret": secret,
                "keyed": keyed.hex(),
                "salt": salt.hex(),
                "hash": f"$argon2id$v=19${cost}${b64(salt)}${b64(value)}",
            }
        )
    good = str(tests[0]["hash"])
    invalid = {
        "empty": "",
        "another function": good.replace("argon2id", "argon2i"),
        "another version": good.replace("v=19", "v=16"),
        "without a pepper": good.replace(",keyid=ASNFZ4mrze8", ""),
        "a number with a leading zero": good.replace("t=2", "t=02"),
        "too much memory": good.replace("m=19456", "m=1048577"),
        "too little memory": good.replace("m=19456", "m=7"),
        "no iteration": good.replace("t=2", "t=0"),
        "too many iterations": good.replace("t=2", "t=65"),
        "no lane": good.replace("p=1", "p=0"),
        "too many lanes": good.replace("p=1", "p=17"),
        "spare bits in the pepper's id": good.replace("ASNFZ4mrze8", "ASNFZ4mrze9"),
        "padding": good + "=",
        "a line end": good + "\n",
        "a short hash": good[:-1],
    }
    return {
        "spec": "docs/spec/secret-hash-v1.md",
        "pepper": pepper.hex(),
        "pepper_id": str(pepper_id),
        "tests": tests,
        "invalid": [{"comment": comment, "hash": text} for comment, text in invalid.items()],
    }
