"""Vectors of signatures: statements, derived keys, data-key mode, trees. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from struct import pack

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scripts.gen_vectors_key_material import local_kek_version
from scripts.gen_vectors_kms import Case, known_bytes, u32

Hkdf = Callable[[bytes, bytes, int], bytes]
ContextEncoder = Callable[[list[list[str]]], bytes]

R = b"keystead signed\x00"
SESSION_MAGIC = bytes.fromhex("ac4b5301")
ITEM_MAGIC = bytes.fromhex("ac4b5302")

MESSAGES: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("one byte", b"a"),
    ("4096 bytes", known_bytes("signed message", 4096)),
    ("4097 bytes", known_bytes("signed message", 4097)),
    ("begins with R", R + b"\x01" + bytes(32)),
    ("begins as every statement of ours", b"keystead azure wrap v1\x00"),
    ("begins as a name of ours", b"keystead.example.org/log\n1\n"),
]
DERIVED: list[tuple[str, str, int]] = [
    ("sign", "", 0),
    ("record", "app/audit", 0),
    ("record", "app/audit", 1),
    ("recorda", "pp/audit", 0),
    ("manifest", "app/audit", 2**64 - 1),
    ("\u00fcbersicht", "Z\u00fcrich", 0),
]


def u16(data: bytes) -> bytes:
    """Return ``data`` behind its length in two bytes."""
    return pack(">H", len(data)) + data


def statement(message: bytes) -> bytes:
    """Return what is signed of a message."""
    if 1 <= len(message) <= 4096 and not message.startswith(b"keystead "):
        return message
    return R + b"\x01" + hashlib.sha256(R + b"\x01" + message).digest()


def derived(hkdf: Hkdf, key: bytes, purpose: str, stream: str, epoch: int) -> bytes:
    """Return the key of a purpose, stream and epoch."""
    return hkdf(key, b"keystead session v1" + u16(purpose.encode()) + u16(stream.encode()) + pack(">Q", epoch), 32)


def material_cases() -> list[Case]:
    """Return signatures by keys from the environment or a file."""
    key = known_bytes("signing key")
    private = Ed25519PrivateKey.from_private_bytes(key)
    return [
        {
            "comment": comment,
            "key": key.hex(),
            "message": message.hex(),
            "hmac_sha256": hmac.digest(key, statement(message), "sha256").hex(),
            "ed25519": private.sign(statement(message)).hex(),
        }
        for comment, message in MESSAGES
        if len(message) != 4096
    ]


def session_case(hkdf: Hkdf, encode_context: ContextEncoder, stream: str, message: bytes) -> Case:
    """Return a signature whose session key a local KEK has wrapped."""
    kek, session_key = known_bytes("signing kek"), known_bytes(f"session key {stream}")
    nonce, key_id = known_bytes(f"session nonce {stream}", 12), "audit"
    version = local_kek_version(kek)
    context = [["keystead.purpose", "session"], *([["keystead.stream", stream]] if stream else []), ["site", "north"]]
    header = b"\xad\x01" + pack(">I", version)
    aad = header + u32(key_id.encode()) + encode_context(context)
    cipher_key = hkdf(kek, b"keystead local kek" + key_id.encode(), 32)
    ciphertext = header + nonce + AESGCM(cipher_key).encrypt(nonce, session_key, aad)
    texts = ["local", key_id, "encrypt_decrypt", "", str(version), "", "aes256-gcm96", "2026-02-01T08:15:30+00:00"]
    wrapped = b"\xaf\x01" + u32(ciphertext) + b"".join(u32(text.encode()) for text in texts)
    head = SESSION_MAGIC + u16(wrapped)
    mac_key = derived(hkdf, session_key, "sign", stream, 0)
    return {
        "stream": stream,
        "context": context,
        "kek": kek.hex(),
        "key_id": key_id,
        "session_key": session_key.hex(),
        "wrapped": wrapped.hex(),
        "message": message.hex(),
        "signature": (head + hmac.digest(mac_key, head + statement(message), "sha256")).hex(),
    }


def leaf(message: bytes) -> bytes:
    """Return a leaf's hash."""
    return hashlib.sha256(b"\x00" + message).digest()


def root(leaves: list[bytes]) -> bytes:
    """Return MTH of RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """Return PATH of RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path(index, leaves[:split]), root(leaves[split:])]
    return [*path(index - split, leaves[split:]), root(leaves[:split])]


def tree_case(size: int) -> Case:
    """Return a batch that one signature covers."""
    private = Ed25519PrivateKey.from_private_bytes(known_bytes("tree key"))
    messages = [b"", *(known_bytes(f"tree message {number}", number * 9) for number in range(1, size))]
    leaves = [leaf(message) for message in messages]
    signed = R + b"\x02" + pack(">Q", size) + root(leaves)
    signature = private.sign(signed)
    items = []
    for index in range(size):
        proof = path(index, leaves)
        items.append(ITEM_MAGIC + pack(">QQB", index, size, len(proof)) + b"".join(proof) + u16(signature))
    return {
        "public_key": private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex(),
        "seed": known_bytes("tree key").hex(),
        "messages": [message.hex() for message in messages],
        "statement": signed.hex(),
        "items": [item.hex() for item in items],
    }


def signatures_file(hkdf: Hkdf, encode_context: ContextEncoder) -> Case:
    """Return ``signatures-v1.json``."""
    session_key = known_bytes("session key")
    value = known_bytes("vault signature", 64)
    return {
        "spec": "docs/spec/signatures-v1.md",
        "statements": [
            {"comment": comment, "message": message.hex(), "statement": statement(message).hex()}
            for comment, message in MESSAGES
        ],
        "material": material_cases(),
        "derived": [
            {
                "session_key": session_key.hex(),
                "purpose": purpose,
                "stream": stream,
                "epoch": str(epoch),
                "key": derived(hkdf, session_key, purpose, stream, epoch).hex(),
            }
            for purpose, stream, epoch in DERIVED
        ],
        "sessions": [
            session_case(hkdf, encode_context, stream, message)
            for stream, message in (("", b"a record"), ("app/audit", b"a record"), ("app/long", bytes(5000)))
        ],
        "trees": [tree_case(size) for size in (2, 3, 5, 8)],
        "vault": {"value": value.hex(), "version": "12", "text": f"vault:v12:{base64.b64encode(value).decode()}"},
    }
