"""Compute the vectors of encrypted data, legacy forms and root keys; see ``gen_vectors.py``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

Case = dict[str, Any]
COUNTING = bytes(range(32))


def known_bytes(label: str, size: int = 32) -> bytes:
    """Return bytes for tests that anybody can compute again: SHAKE-256 of a label."""
    return hashlib.shake_256(b"keystead test vector: " + label.encode()).digest(size)


def u32(data: bytes) -> bytes:
    """Return ``data`` behind its length in four bytes."""
    return pack(">I", len(data)) + data


def hkdf_sha256(key: bytes, info: bytes, size: int) -> bytes:
    """HKDF (RFC 5869) without salt, for up to 32 bytes of output."""
    pseudorandom = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(pseudorandom, info + b"\x01", "sha256")[:size]


def header_bytes(suite: int, key_id: int, salt: bytes) -> bytes:
    """Return the 26 header bytes of an envelope."""
    return pack(">BBQ", 0xAE, suite, key_id) + salt


def text_form(prefix: str, blob: bytes) -> str:
    """Return a prefix and unpadded base64url."""
    return prefix + base64.urlsafe_b64encode(blob).decode().rstrip("=")


def encrypted_data_file() -> Case:
    """Return ``encrypted-data-v1.json``."""
    arn = "arn:aws:kms:eu-west-1:111122223333:key/0000"
    context = {"table": "users", "column": "email"}
    ciphertext = known_bytes("ciphertext", 48)
    created, encrypted = "2026-01-31T12:00:00+00:00", "2026-02-01T08:15:30.123456+00:00"
    full = _encrypted_data(
        ciphertext, ["aws", arn, "encrypt_decrypt", "alias/app", "3", created], "SYMMETRIC_DEFAULT", encrypted, context
    )
    least = _encrypted_data(
        b"\x00", ["local", "default", "encrypt_decrypt", None, None, None], "aes256-gcm96", encrypted, {}
    )
    common = {"ciphertext": "00", "algorithm": "aes256-gcm96", "encrypted_at": encrypted, "context": context}
    flat = {**common, "key_id": f"aws:{arn}"}
    document = {**common, "key_reference": {"provider": "vault", "key_id": "app"}}
    return {
        "spec": "docs/spec/encrypted-data-v1.md",
        "tests": [{"comment": "every member", **full}, {"comment": "the least", **least}],
        "read_only": [
            {"comment": "flat key_id", "dict": flat, "provider": "aws", "key_id": arn},
            {"comment": "no version", "dict": document, "provider": "vault", "key_id": "app"},
        ],
    }


def _encrypted_data(
    ciphertext: bytes, reference: list[str | None], algorithm: str, encrypted_at: str, context: dict[str, str]
) -> Case:
    names = ("provider", "key_id", "purpose", "key_alias", "key_version", "created_at")
    texts = [text or "" for text in reference] + [algorithm, encrypted_at]
    texts += [text for pair in sorted(context.items()) for text in pair]
    blob = b"\xaf\x01" + u32(ciphertext) + b"".join(u32(text.encode()) for text in texts)
    members = {
        "version": 1,
        "ciphertext": ciphertext.hex(),
        "key_reference": dict(zip(names, reference, strict=True)),
        "algorithm": algorithm,
        "encrypted_at": encrypted_at,
        "context": context,
    }
    return {"dict": members, "bytes": blob.hex(), "text": text_form("ks2.", blob)}


def seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes | None = None) -> bytes:
    """Return nonce, ciphertext and tag of AES-GCM, one behind the other."""
    return nonce + AESGCM(key).encrypt(nonce, plaintext, aad)


def legacy_file() -> Case:
    """Return ``legacy.json``."""
    key, nonce, plaintext = COUNTING, COUNTING[:12], b"sensitive data"
    value = seal(key, nonce, plaintext)
    root = hashlib.pbkdf2_hmac("sha256", b"test-seed", b"test-salt", 10_000)
    encoded = base64.b64encode(value).decode()
    version = "v1700000000000000000"
    context = {"table": "users", "column": "caf\u00e9"}
    sorted_json = b'{"column": "caf\\u00e9", "table": "users"}'
    dict_text = "{'table': 'users', 'column': 'caf\u00e9'}".encode()
    return {
        "spec": "docs/spec/legacy-forms.md",
        "data_key": key.hex(),
        "plaintext": plaintext.hex(),
        "field": {
            "version": version,
            "value": value.hex(),
            "text": f"{version}:AES-256-GCM:{value.hex()}",
            "text_other_layout": f"7:AES-256-GCM:{value.hex()}",
            "json": json.dumps({"value": encoded, "version": version, "algorithm": "AES-256-GCM"}),
        },
        "old_text": f"01.{base64.b64encode(nonce).decode()}.{base64.b64encode(value[12:]).decode()}",
        "wrapped_key": {"root_key": root.hex(), "wrapped": seal(root, nonce, key).hex(), "key": key.hex()},
        "hashes": [
            {"value": text.encode().hex(), "hash": hashlib.sha256(text.encode()).hexdigest()}
            for text in ("", "test data")
        ],
        "fraiseql": {
            "context": context,
            "aad": {"vault": sorted_json.hex(), "gcp": sorted_json.hex(), "local": dict_text.hex()},
            "local": {"key": key.hex(), "ciphertext": seal(key, nonce, plaintext, dict_text).hex()},
            "records": _fraiseql_records(),
        },
    }


def _fraiseql_records() -> list[Case]:
    """Return what FraiseQL's ``to_dict`` gives for its local KMS, whose master key is ``COUNTING``."""
    cases: list[tuple[str, dict[str, str], bytes, str]] = [
        ("encrypt without a context", {}, b"sensitive data", "AES-256-GCM"),
        ("encrypt", {"table": "users", "column": "caf\u00e9"}, b"sensitive data", "AES-256-GCM"),
        ("a quote in the context", {"who": "it's"}, b"sensitive data", "AES-256-GCM"),
        ("encrypt_field of text", {"b": "2", "a": "1", "_encoding": "utf-8"}, "na\u00efve".encode(), "AES-256-GCM"),
        ("encrypt_field of bytes, with a prefix", {"service": "shop"}, b"\x00\xff", "AES-256-GCM"),
        ("the wrapped half of generate_data_key", {"purpose": "data_encryption"}, known_bytes("data key"), "data-key"),
    ]
    records = []
    for number, (comment, context, plaintext, algorithm) in enumerate(cases):
        # Python's text of a dict of text, written out: single quotes, or double ones around a single quote.
        quoted = [tuple(f'"{text}"' if "'" in text else f"'{text}'" for text in pair) for pair in context.items()]
        aad = f"{{{', '.join(f'{name}: {value}' for name, value in quoted)}}}".encode() if context else None
        ciphertext = seal(COUNTING, number.to_bytes(12, "big"), plaintext, aad)
        record = {
            "ciphertext": ciphertext.hex(),
            "key_id": "local:orders",
            "algorithm": algorithm,
            "encrypted_at": "2026-02-01T08:15:30.123456+00:00",
            "context": context,
        }
        records.append({"comment": comment, "plaintext": plaintext.hex(), "dict": record})
    return records


def root_key_file() -> Case:
    """Return ``root-key.json``."""
    cases = [("test-seed", "test-salt", 10_000), ("default-seed-value", "default-salt-value", 100_000)]
    pbkdf2 = [
        {
            "seed": seed,
            "salt": salt,
            "iterations": iterations,
            "key_length": size,
            "root_key": hashlib.pbkdf2_hmac("sha256", seed.encode(), salt.encode(), iterations, size).hex(),
        }
        for seed, salt, iterations in cases
        for size in (16, 24, 32)
    ]
    salt = known_bytes("Argon2id salt", 16)
    argon = Argon2id(salt=salt, length=32, iterations=2, lanes=1, memory_cost=19_456)
    argon2id = {
        "passphrase": "correct horse battery staple",
        "salt": salt.hex(),
        "memory_kib": 19_456,
        "iterations": 2,
        "lanes": 1,
        "root_key": argon.derive(b"correct horse battery staple").hex(),
    }
    return {"pbkdf2_hmac_sha256": pbkdf2, "argon2id": [argon2id]}
