"""Vectors of erasures: hashes of subjects, lines of the log, receipts. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scripts.gen_vectors_kms import Case, known_bytes, u32

STORE = known_bytes("erasure store", 16).hex()
TIME = "2030-01-01T00:00:00.000000Z"
BACKUPS = (
    "Backups of the store that are older than this erasure hold these keys, wrapped. Whoever holds such a backup and "
    "may unwrap under the versions in keks can read what was encrypted, until those versions are destroyed in the KMS."
)


def erasure_file() -> Case:
    """Return ``erasure-v1.json``."""
    return {
        "spec": "docs/spec/erasure-v1.md",
        "store": STORE,
        "subjects": _subjects(),
        "log": _log(),
        "receipt": _receipt(),
    }


def _json(members: dict[str, Any]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")


def _subjects() -> Case:
    key = known_bytes("subject key")
    names = ["a", "user-4711", "zo\u00eb", "\U0001f511", "x" * 1000]
    tests = [
        {
            "subject": name,
            "id": hmac.digest(key, b"keystead subject v1\x00" + u32(name.encode()), "sha256").hex(),
        }
        for name in names
    ]
    return {"key": key.hex(), "tests": tests}


def _log() -> Case:
    keys = {1: known_bytes("erasure key 1"), 2: known_bytes("erasure key 2")}
    told = [
        (1, "", []),
        (1, "keystead.subject." + known_bytes("subject a", 16).hex(), [7]),
        (1, "keystead.subject." + known_bytes("subject b", 16).hex(), [9, 10, 2**62]),
        (2, "keystead.subject." + known_bytes("subject c", 16).hex(), [3]),
    ]
    lines, prev, tests = [], bytes(32), []
    for number, (version, keyring, ids) in enumerate(told, start=1):
        members: dict[str, Any] = {
            "key": version,
            "keyring": keyring,
            "keys": [str(each) for each in ids],
            "n": number,
            "prev": prev.hex(),
            "store": STORE,
            "time": TIME,
        }
        code = hmac.digest(keys[version], b"keystead erasure log v1\x00" + _json(members), "sha256")
        lines.append(_json(members | {"code": code.hex()}))
        prev = hashlib.sha256(lines[-1]).digest()
        told_keys = [str(each) for each in ids]
        tests.append({"line": lines[-1].decode(), "keyring": keyring, "keys": told_keys, "head": prev.hex()})
    first, second = lines[0].decode(), json.loads(lines[1])
    turned = dict(reversed(second.items()))
    invalid = [
        {"comment": "another keyring", "line": _json(second | {"keyring": "keystead.subject." + "0" * 32}).decode()},
        {"comment": "another key", "line": _json(second | {"keys": ["8"]}).decode()},
        {"comment": "a key more", "line": _json(second | {"keys": ["7", "8"]}).decode()},
        {"comment": "another time", "line": _json(second | {"time": "2031-01-01T00:00:00.000000Z"}).decode()},
        {"comment": "a version that is not there", "line": _json(second | {"key": 3}).decode()},
        {"comment": "another version", "line": _json(second | {"key": 2}).decode()},
        {"comment": "another number", "line": _json(second | {"n": 3}).decode()},
        {"comment": "another line before it", "line": _json(second | {"prev": "00" * 32}).decode()},
        {"comment": "another store", "line": _json(second | {"store": "00" * 16}).decode()},
        {"comment": "the first line again", "line": first},
        {"comment": "a member more", "line": _json(second | {"more": 1}).decode()},
        {"comment": "a member less", "line": _json({k: v for k, v in second.items() if k != "time"}).decode()},
        {"comment": "white space", "line": json.dumps(second, sort_keys=True)},
        {"comment": "white space behind it", "line": _json(second).decode() + " "},
        {"comment": "members in another order", "line": json.dumps(turned, separators=(",", ":"))},
        {"comment": "no JSON", "line": "erased"},
        {"comment": "no object", "line": "[]"},
        {"comment": "nothing", "line": ""},
        {"comment": "a code in upper case", "line": _json(second | {"code": second["code"].upper()}).decode()},
    ]
    return {"keys": {str(number): key.hex() for number, key in keys.items()}, "tests": tests, "invalid_second": invalid}


def _receipt() -> Case:
    seed = known_bytes("receipt seed")
    body: dict[str, Any] = {
        "v": 1,
        "store": STORE,
        "keyring": "keystead.subject." + known_bytes("subject b", 16).hex(),
        "keys": ["9", "10", str(2**62)],
        "time": TIME,
        "log": {"count": 3, "head": known_bytes("head").hex()},
        "keks": [
            {"provider": "aws", "key_id": "arn:aws:kms:eu-central-1:000000000000:key/test", "version": "v1"},
            {"provider": "local", "key_id": "default", "version": None},
        ],
        "nodes": {"seen": 3, "unseen": 0},
        "indexes": "remaining",
        "remaining": ["people.email"],
        "backups": BACKUPS,
    }
    signer = Ed25519PrivateKey.from_private_bytes(seed)
    signature = signer.sign(b"keystead erasure receipt v1\x00" + _json(body))
    public = signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    return {
        "seed": seed.hex(),
        "public": public,
        "receipt": body | {"signature": base64.b64encode(signature).decode("ascii")},
    }
