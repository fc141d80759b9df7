"""Vectors of the Transit engine, computed from primitives; see ``gen_vectors``."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from scripts.gen_vectors_kms import Case, header_bytes, hkdf_sha256, known_bytes

KEY_ID = 6_711_000_000_000_000_018
_CHACHA = (0x05, 0x08)


def transit_file() -> Case:
    """Return ``transit-v1.json``."""
    tests = []
    for suite, name in ((0x01, "aes256-gcm96"), (0x04, "aes128-gcm96"), (0x05, "chacha20-poly1305")):
        for context in (b"", b"tenant 1"):
            for aad in (b"", b"row 7"):
                tests.append(_random(suite, name, context, aad))
                if context:
                    tests.append(_convergent(suite, name, context, aad))
    foreign = [_foreign(*case) for case in ((0x01, 32, b""), (0x04, 16, b""), (0x05, 32, b""), (0x01, 32, b"tenant 1"))]
    return {
        "spec": "docs/spec/transit-v1.md",
        "tests": tests,
        "foreign": foreign,
        "macs": [_mac(secret) for secret in (known_bytes("data key"), b"\x30" * 1200)],
        "derived_signers": [_signer(context) for context in (b"tenant 1", b"\x00")],
    }


def _case(comment: str, suite: int, name: str, context: bytes, aad: bytes) -> dict[str, Any]:
    return {
        "comment": f"{name}, {comment}" + (", derived" if context else "") + (", associated data" if aad else ""),
        "type": name,
        "suite": suite,
        "data_key": known_bytes("data key").hex(),
        "data_key_id": str(KEY_ID),
        "context": context.hex(),
        "associated_data": aad.hex(),
    }


def _key(context: bytes) -> bytes:
    data_key = known_bytes("data key")
    return hkdf_sha256(data_key, b"keystead transit" + context, 32) if context else data_key


def _envelope(suite: int, key: bytes, salt: bytes, nonce: bytes, plaintext: bytes, *, aad: bytes) -> bytes:
    header = header_bytes(suite, KEY_ID, salt)
    cipher_key = hkdf_sha256(key, b"keystead v1" + bytes([suite]) + salt, 16 if suite in (0x04, 0x07) else 32)
    cipher = ChaCha20Poly1305(cipher_key) if suite in _CHACHA else AESGCM(cipher_key)
    return header + nonce + cipher.encrypt(nonce, plaintext, header + b"\xff" + aad)


def _random(suite: int, name: str, context: bytes, aad: bytes) -> Case:
    case, plaintext = _case("random", suite, name, context, aad), b"the quick brown fox"
    salt, nonce = known_bytes(f"salt {case['comment']}", 16), known_bytes(case["comment"], 12)
    blob = _envelope(suite, _key(context), salt, nonce, plaintext, aad=aad)
    return {**case, "convergent": False, "plaintext": plaintext.hex(), "text": _text(blob)}


def _convergent(suite: int, name: str, context: bytes, aad: bytes) -> Case:
    convergent = {0x01: 0x06, 0x04: 0x07, 0x05: 0x08}[suite]
    plaintext, key = b"the quick brown fox", _key(context)
    message = len(aad).to_bytes(8, "big") + aad + plaintext
    drawn = hmac.digest(hkdf_sha256(key, b"keystead convergent", 32), message, hashlib.sha256)
    blob = _envelope(convergent, key, drawn[:16], drawn[16:28], plaintext, aad=aad)
    case = _case("convergent", convergent, name, context, aad)
    return {**case, "convergent": True, "plaintext": plaintext.hex(), "text": _text(blob)}


def _foreign(suite: int, size: int, context: bytes) -> Case:
    outside = known_bytes("outside")[:size]
    key = outside
    if context:
        key = hmac.digest(outside, bytes(4) + context + (256).to_bytes(4, "big"), hashlib.sha256)[:size]
    cipher = ChaCha20Poly1305(key) if suite in _CHACHA else AESGCM(key)
    nonce = known_bytes(f"foreign {suite} {len(context)}", 12)
    blob = nonce + cipher.encrypt(nonce, b"the quick brown fox", b"row 7")
    return {
        "comment": f"suite {suite}" + (", derived" if context else ""),
        "suite": suite,
        "outside": outside.hex(),
        "context": context.hex(),
        "associated_data": b"row 7".hex(),
        "plaintext": b"the quick brown fox".hex(),
        "text": _text(blob),
    }


def _mac(secret: bytes) -> Case:
    key = hkdf_sha256(secret, b"hmac", 32)
    digest = hmac.digest(key, b"the quick brown fox", hashlib.sha256)
    return {"secret": secret.hex(), "key": key.hex(), "input": b"the quick brown fox".hex(), "hmac": digest.hex()}


def _signer(context: bytes) -> Case:
    secret = known_bytes("data key")
    signer = Ed25519PrivateKey.from_private_bytes(hkdf_sha256(secret, b"keystead transit" + context, 32))
    return {
        "secret": secret.hex(),
        "context": context.hex(),
        "public_key": signer.public_key().public_bytes_raw().hex(),
        "input": b"the quick brown fox".hex(),
        "signature": signer.sign(b"the quick brown fox").hex(),
    }


def _text(blob: bytes) -> str:
    return "vault:v1:" + base64.b64encode(blob).decode("ascii")
