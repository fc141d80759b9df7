"""Vectors of one plaintext under several KEKs, its wraps made by local KEKs. Imports nothing of ``src/keystead``."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from scripts.gen_vectors_kms import Case, known_bytes, u32
from scripts.gen_vectors_local_kek import WRAP_CONTEXT

Hkdf = Callable[[bytes, bytes, int], bytes]
ContextEncoder = Callable[[list[list[str]]], bytes]
Member = tuple[str, str, int]

UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@"
ARN = "arn:aws:kms:eu-west-1:111122223333:key/0000"

CASES: list[tuple[str, str, list[Member], list[list[str]], bytes]] = [
    ("one member, no context, empty plaintext", "default", [("home", "default", 1)], [], b""),
    (
        "a WRAP key under its row's context",
        "default",
        [("cloud", ARN, 7), ("home", "default", 2)],
        WRAP_CONTEXT,
        known_bytes("multi wrap key"),
    ),
    (
        "names beyond ASCII, sorted by their bytes, and what is percent-encoded",
        "schl\u00fcssel",
        [("B", "a,b=c", 1), ("a", "{x}%", 2), ("z\u00fcrich 1", "schl\u00fcssel", 2**32 - 1)],
        [["ort", "Z\u00fcrich"]],
        b"\0\xff",
    ),
]


def multi_kek_file(hkdf: Hkdf, encode_context: ContextEncoder) -> Case:
    """Return ``multi-kek-v1.json``."""
    tests = [_case(hkdf, encode_context, case) for case in CASES]
    return {"spec": "docs/spec/multi-kek-v1.md", "tests": tests, "invalid": _invalid()}


def _case(
    hkdf: Hkdf, encode_context: ContextEncoder, case: tuple[str, str, list[Member], list[list[str]], bytes]
) -> Case:
    comment, asked, members, pairs, plaintext = case
    key, nonce = known_bytes(f"multi content {comment}"), known_bytes(f"multi nonce {comment}", 12)
    commitment, cipher_key = hkdf(key + plaintext, b"keystead commit", 16), hkdf(key, b"keystead multi v1", 32)
    bound = encode_context([*pairs, ["keystead.commitment", commitment.hex()]])
    wraps = [_wrap(hkdf, member, key, bound) for member in members]
    header = _header(commitment, asked, [_wrap_bytes(wrap) for wrap in wraps])
    body = nonce + AESGCM(cipher_key).encrypt(nonce, plaintext, header + encode_context(pairs))
    return {
        "comment": comment,
        "content_key": key.hex(),
        "commitment": commitment.hex(),
        "cipher_key": cipher_key.hex(),
        "key_id_asked_for": asked,
        "context": pairs,
        "wraps": wraps,
        "nonce": nonce.hex(),
        "plaintext": plaintext.hex(),
        "ciphertext": (header + u32(body)).hex(),
        "key_id": _names([(wrap["name"], wrap["key_id"]) for wrap in wraps]),
        "key_version": _names([(wrap["name"], wrap["key_version"]) for wrap in wraps]),
    }


def _wrap(hkdf: Hkdf, member: Member, key: bytes, bound: bytes) -> Case:
    """Return a wrap by a local KEK: docs/spec/local-kek-v1.md."""
    name, key_id, version = member
    kek, nonce = known_bytes(f"multi kek {name}"), known_bytes(f"multi wrap nonce {name}", 12)
    header = b"\xad\x01" + pack(">I", version)
    aad = header + u32(key_id.encode()) + bound
    sealed = AESGCM(hkdf(kek, b"keystead local kek" + key_id.encode(), 32)).encrypt(nonce, key, aad)
    return {
        "name": name,
        "key_id": key_id,
        "key_version": str(version),
        "algorithm": "aes256-gcm96",
        "wrapped_key": (header + nonce + sealed).hex(),
        "kek": kek.hex(),
    }


def _wrap_bytes(wrap: Case) -> bytes:
    texts = [wrap[member].encode() for member in ("name", "key_id", "key_version", "algorithm")]
    return b"".join(u32(text) for text in texts) + u32(bytes.fromhex(wrap["wrapped_key"]))


def _header(commitment: bytes, asked: str, wraps: list[bytes]) -> bytes:
    return b"\xac\x01" + commitment + u32(asked.encode()) + bytes([len(wraps)]) + b"".join(wraps)


def _names(pairs: list[tuple[str, str]]) -> str:
    def told(text: str) -> str:
        return "".join(chr(byte) if byte in UNRESERVED else f"%{byte:02X}" for byte in text.encode())

    return "{" + ",".join(f"{told(name)}={told(value)}" for name, value in pairs) + "}"


def _invalid() -> list[Case]:
    def wrap(name: bytes = b"a", key_id: bytes = b"k", wrapped: bytes = b"w") -> bytes:
        return u32(name) + u32(key_id) + u32(b"1") + u32(b"x") + u32(wrapped)

    commitment, body = bytes(16), u32(bytes(28))

    def whole(*wraps: bytes, asked: str = "k", rest: bytes = body) -> str:
        return (_header(commitment, asked, list(wraps)) + rest).hex()

    good = whole(wrap())
    cases = {
        "nothing": "",
        "another magic": "ad" + good[2:],
        "another version": "ac02" + good[4:],
        "no wraps": whole(),
        "too many wraps": whole(*(wrap(b"%02d" % number) for number in range(17))),
        "the count says less than there is": whole(wrap(b"a"), wrap(b"b")).replace("0000016b02", "0000016b01"),
        "the same name twice": whole(wrap(), wrap()),
        "names out of order": whole(wrap(b"b"), wrap(b"a")),
        "a name with a colon": whole(wrap(b"a:b")),
        "an empty name": whole(wrap(b"")),
        "an empty key id": whole(wrap(key_id=b"")),
        "an empty wrapped key": whole(wrap(wrapped=b"")),
        "a name that is no UTF-8": whole(wrap(b"\xff")),
        "a surrogate in UTF-8": whole(wrap(b"\xed\xa0\x80")),
        "no key id asked for": whole(wrap(), asked=""),
        "a body too short for nonce and tag": whole(wrap(), rest=u32(bytes(27))),
        "a length beyond the end": whole(wrap(), rest=u32(bytes(28))[:-1]),
        "bytes after the end": whole(wrap(), rest=body + b"\0"),
    }
    return [{"comment": comment, "ciphertext": ciphertext} for comment, ciphertext in cases.items()]
