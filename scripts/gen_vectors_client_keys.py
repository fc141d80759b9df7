"""Vectors of client keys: pairs, ciphertexts, payloads, signed keys. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPrivateNumbers,
    RSAPublicNumbers,
    rsa_crt_dmp1,
    rsa_crt_dmq1,
    rsa_crt_iqmp,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from scripts.gen_vectors_kms import Case, known_bytes, u32

EnvelopeCase = Callable[..., Case]

E = 65537
PRIMES = {2048: (156, 3852), 3072: (990, 1438)}
"""How far the primes of the test keys are behind the numbers that their labels give."""

KEY_ID = "key_1893456000000_00112233445566778899aabb"
DEVICE_ID = "device-1234"
STORE_ID = "0123456789abcdef0123456789abcdef"
GIVEN = [
    ["keystead.device", DEVICE_ID],
    ["keystead.tenant", "north"],
    ["keystead.owner", "ada"],
    ["keystead.expires", "2030-01-31T00:00:00.000000Z"],
]
"""What a private half is bound to once its pair is given to a device."""
NOW_MS = 1_893_456_000_000
SECRETS: list[tuple[str, str]] = [
    ("documented example", "123456"),
    ("empty", ""),
    ("beyond ASCII", "p\u00e4ssw\u00f6rd \U0001f511"),
    ("not in NFC", "cafe\u0301"),
]


def prime(label: str, bits: int, offset: int) -> int:
    """Return a prime of a test key."""
    return (int.from_bytes(known_bytes(label, bits // 8), "big") | (3 << (bits - 2)) | 1) + offset


def rsa_key(bits: int) -> RSAPrivateKey:
    """Return the test key of a size."""
    p, q = (prime(f"client key {name}", bits // 2, offset) for name, offset in zip("pq", PRIMES[bits], strict=True))
    d = pow(E, -1, (p - 1) * (q - 1))
    public = RSAPublicNumbers(E, p * q)
    return RSAPrivateNumbers(p, q, d, rsa_crt_dmp1(d, p), rsa_crt_dmq1(d, q), rsa_crt_iqmp(p, q), public).private_key()


def mgf1(seed: bytes, size: int, hash_name: str) -> bytes:
    """RFC 8017, appendix B.2.1."""
    blocks = (hashlib.new(hash_name, seed + pack(">I", count)).digest() for count in range(size // 20 + 1))
    return b"".join(blocks)[:size]


def xor(one: bytes, other: bytes) -> bytes:
    """Return two strings of one length, added without carry."""
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def oaep(key: RSAPrivateKey, message: bytes, hash_name: str, seed: bytes) -> bytes:
    """RFC 8017, section 7.1.1, with a seed that is known."""
    numbers = key.public_key().public_numbers()
    size = key.key_size // 8
    empty = hashlib.new(hash_name, b"").digest()
    seed = seed[: len(empty)]
    block = empty + bytes(size - len(message) - 2 * len(empty) - 2) + b"\x01" + message
    masked = xor(block, mgf1(seed, len(block), hash_name))
    encoded = b"\x00" + xor(seed, mgf1(masked, len(seed), hash_name)) + masked
    return pow(int.from_bytes(encoded, "big"), E, numbers.n).to_bytes(size, "big")


def extract(salt: bytes, suite: bytes, label: bytes, material: bytes) -> bytes:
    """LabeledExtract of RFC 9180, section 4."""
    return hmac.digest(salt, b"HPKE-v1" + suite + label + material, "sha256")


def expand(secret: bytes, suite: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """LabeledExpand of RFC 9180, section 4, for up to 32 bytes."""
    return hmac.digest(secret, pack(">H", size) + b"HPKE-v1" + suite + label + info + b"\x01", "sha256")[:size]


def hpke(public: X25519PublicKey, message: bytes, info: bytes, ephemeral: X25519PrivateKey) -> bytes:
    """RFC 9180, base mode, with an ephemeral key that is known."""
    sent, receiver = ephemeral.public_key().public_bytes_raw(), public.public_bytes_raw()
    kem, suite = b"KEM" + pack(">H", 0x20), b"HPKE" + pack(">HHH", 0x20, 0x01, 0x02)
    secret = extract(b"", kem, b"eae_prk", ephemeral.exchange(public))
    shared = expand(secret, kem, b"shared_secret", sent + receiver, 32)
    schedule = b"\x00" + extract(b"", suite, b"psk_id_hash", b"") + extract(b"", suite, b"info_hash", info)
    secret = extract(shared, suite, b"secret", b"")
    key, nonce = (expand(secret, suite, label, schedule, size) for label, size in ((b"key", 32), (b"base_nonce", 12)))
    return sent + AESGCM(key).encrypt(nonce, message, b"")


def binding(key_id: str, device_id: str, purpose: str) -> bytes:
    """Return the info of HPKE."""
    return b"keystead client key v1\x00" + b"".join(u32(part.encode()) for part in (key_id, device_id, purpose))


def ciphertexts(keys: dict[str, Any]) -> list[Case]:
    """Return a ciphertext of each algorithm and secret."""
    made = []
    for kind, key in keys.items():
        algorithms = ["HPKE_X25519"] if kind == "X25519" else ["RSA_OAEP_SHA1", "RSA_OAEP_SHA256"]
        for algorithm in algorithms:
            for comment, secret in SECRETS:
                label = f"{kind} {algorithm} {comment}"
                info = binding(KEY_ID, DEVICE_ID, "passcode")
                if kind == "X25519":
                    ephemeral = X25519PrivateKey.from_private_bytes(known_bytes(label))
                    raw = hpke(key.public_key(), secret.encode(), info, ephemeral)
                else:
                    raw = oaep(key, secret.encode(), algorithm[9:].lower(), known_bytes(label))
                made.append(
                    {
                        "comment": comment,
                        "kind": kind,
                        "algorithm": algorithm,
                        "info": info.hex() if kind == "X25519" else "",
                        "ciphertext": raw.hex(),
                        "plaintext": secret.encode().hex(),
                    }
                )
    return made


def texts() -> Case:
    """Return forms of base64 that are taken, and some that are not."""
    raw = b"\xfb\xef\xbe\xff"
    valid = {
        "padded": "++++/w==",
        "not padded": "++++/w",
        "URL-safe": "----_w==",
        "URL-safe, not padded": "----_w",
        "white space within": " ++\r\n++\t/w==\n",
    }
    invalid = {
        "both alphabets": "++--/w==",
        "one character too many": "++++/",
        "padding too short": "++++/w=",
        "padding too long": "++++/w===",
        "padding where none is due": "+++/=",
        "padding in the midst": "++==++/w",
        "spare bits": "++++/x==",
        "another character": "++++/w\u00e4",
        "another white space": "++++\u00a0/w==",
    }
    return {
        "decoded": raw.hex(),
        "valid": [{"comment": comment, "text": text} for comment, text in valid.items()],
        "invalid": [{"comment": comment, "text": text} for comment, text in invalid.items()],
    }


def payloads() -> Case:
    """Return payloads of version 2, for the operation verifyUserPasscode and the key id of this file."""
    good: Case = {
        "v": 2,
        "op": "verifyUserPasscode",
        "aud": KEY_ID,
        "nonce": "0123456789abcdef",
        "ts": NOW_MS,
        "secret": "123456",
    }

    def text(**changes: Any) -> str:
        return json.dumps(good | changes, separators=(",", ":"))

    valid = {
        "as it should be": text(),
        "at the earliest": text(ts=NOW_MS - 120_000),
        "at the latest": text(ts=NOW_MS + 120_000),
        "the longest nonce": text(nonce="A" * 64),
        "another order, and white space": " " + json.dumps(dict(reversed(good.items())), indent=1) + "\n",
    }
    invalid = {
        "too early": text(ts=NOW_MS - 120_001),
        "too late": text(ts=NOW_MS + 120_001),
        "another operation": text(op="setTransactionPin"),
        "another key": text(aud=KEY_ID[:-1] + "c"),
        "another version": text(v=1),
        "a version that is true": text(v=True),
        "a version that is no integer": text(v=2.0),
        "a time that is no integer": text(ts=float(NOW_MS)),
        "a nonce that is too short": text(nonce="0123456789abcde"),
        "a nonce that is too long": text(nonce="A" * 65),
        "a nonce of other characters": text(nonce="0123456789abcde\n"),
        "a secret that is no text": text(**{"secret": 123456}),
        "half of a surrogate pair": text(**{"secret": "\ud800"}),
        "a member too few": json.dumps({name: value for name, value in good.items() if name != "nonce"}),
        "a member too many": text(more=1),
        "a member twice": text()[:-1] + ',"secret":"123456"}',
        "no object": "[2]",
        "no JSON": "123456",
        "a number that JSON has not": text(ts=float("nan")),
    }
    return {
        "operation": good["op"],
        "key_id": KEY_ID,
        "now_ms": NOW_MS,
        "secret": good["secret"],
        "valid": [{"comment": comment, "payload": payload} for comment, payload in valid.items()],
        "invalid": [{"comment": comment, "payload": payload} for comment, payload in invalid.items()],
    }


def statements(publics: dict[str, bytes]) -> list[Case]:
    """Return signed public keys."""
    signer = Ed25519PrivateKey.from_private_bytes(known_bytes("service key"))
    made = []
    for kind, algorithm in (("RSA_2048", "RSA_OAEP_SHA1"), ("X25519", "HPKE_X25519")):
        parts = (KEY_ID.encode(), DEVICE_ID.encode(), publics[kind], b"2030-01-31T00:00:00.000Z", algorithm.encode())
        statement = b"keystead client key signature v1\x00" + b"".join(map(u32, parts))
        made.append(
            {
                "key_id": KEY_ID,
                "device_id": DEVICE_ID,
                "public": publics[kind].hex(),
                "expires_at": "2030-01-31T00:00:00.000Z",
                "algorithm": algorithm,
                "statement": statement.hex(),
                "service_public_key": signer.public_key().public_bytes_raw().hex(),
                "signature": base64.b64encode(signer.sign(statement)).decode(),
            }
        )
    return made


def names() -> Case:
    """Return device ids with what they are taken as, and some that are refused."""
    taken = {
        "a": "a",
        DEVICE_ID: DEVICE_ID,
        "cafe\u0301": "caf\u00e9",
        " a b ": " a b ",
        "\U0001f511" * 128: "\U0001f511" * 128,
    }
    refused = ["", " ", "a" * 129, "a\n", "a\u0000", "a\u200b", "a\u2028", "a\ue000", "\ud800"]
    return {"taken": [{"given": given, "name": name} for given, name in taken.items()], "refused": refused}


def client_keys_file(envelope_case: EnvelopeCase) -> Case:
    """Return ``client-keys-v1.json``."""
    keys: dict[str, Any] = {
        "RSA_2048": rsa_key(2048),
        "RSA_3072": rsa_key(3072),
        "X25519": X25519PrivateKey.from_private_bytes(known_bytes("client key X25519")),
    }
    der = {kind: key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) for kind, key in keys.items()}
    publics = {
        kind: key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for kind, key in keys.items()
    }
    pems = {
        kind: key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for kind, key in keys.items()
    }
    stored = [
        envelope_case(
            f"{kind}, {'of a device' if is_given else 'not given yet'}",
            0x01,
            der[kind],
            [
                ["keystead.purpose", "device"],
                ["keystead.store", STORE_ID],
                ["keystead.client_key", KEY_ID],
                ["keystead.algorithm", kind],
                ["keystead.created", "2030-01-01T00:00:00.000000Z"],
                ["keystead.public", hashlib.sha256(pems[kind]).hexdigest()],
                *(GIVEN if is_given else []),
            ],
            key_id=11,
        )
        for kind in keys
        for is_given in (True, False)
    ]
    return {
        "spec": "docs/spec/client-keys-v1.md",
        "keys": [{"kind": kind, "private": der[kind].hex(), "public": publics[kind].hex()} for kind in keys],
        "stored": stored,
        "ciphertexts": ciphertexts(keys),
        "texts": texts(),
        "payloads": payloads(),
        "statements": statements(publics),
        "device_ids": names(),
    }
