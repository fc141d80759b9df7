"""Compute the files of ``testvectors/`` from primitives alone.

Nothing of ``src/keystead`` is imported: each format is written here a second time, straight from its page in
``docs/spec/``, so that a mistake would have to be made twice. ``python -m scripts.gen_vectors`` writes the files;
a test compares what they hold with what this script computes.
"""

from __future__ import annotations

import hmac
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from scripts.gen_vectors_approvals import approval_file
from scripts.gen_vectors_audit import audit_file
from scripts.gen_vectors_azure import azure_wrap_file
from scripts.gen_vectors_client_keys import client_keys_file
from scripts.gen_vectors_erasure import erasure_file
from scripts.gen_vectors_fields import field_file
from scripts.gen_vectors_imported import imported_file
from scripts.gen_vectors_key_material import key_material_file
from scripts.gen_vectors_kms import (
    Case,
    encrypted_data_file,
    header_bytes,
    hkdf_sha256,
    known_bytes,
    legacy_file,
    root_key_file,
    text_form,
    u32,
)
from scripts.gen_vectors_kubernetes import kubernetes_file
from scripts.gen_vectors_local_kek import local_kek_file
from scripts.gen_vectors_log import log_file
from scripts.gen_vectors_multi import multi_kek_file
from scripts.gen_vectors_pkcs11 import pkcs11_file
from scripts.gen_vectors_roles import role_file
from scripts.gen_vectors_secret_hash import secret_hash_file
from scripts.gen_vectors_sessions import session_file
from scripts.gen_vectors_signatures import signatures_file
from scripts.gen_vectors_tokens import token_file
from scripts.gen_vectors_transit import transit_file

FOLDER = Path(__file__).resolve().parent.parent / "testvectors"


def encode_context(pairs: list[list[str]]) -> bytes:
    """Context v1."""
    raw = sorted((key.encode(), value.encode()) for key, value in pairs)
    return b"".join(u32(key) + u32(value) for key, value in raw)


CONTEXTS: list[tuple[str, list[list[str]]]] = [
    ("empty", []),
    ("one pair", [["table", "users"]]),
    ("sorted by key", [["table", "users"], ["column", "email"], ["row", "42"]]),
    ("empty key and value", [["", ""]]),
    ("a boundary that shifts, first", [["ab", "c"]]),
    ("a boundary that shifts, second", [["a", "bc"]]),
    ("sorted by UTF-8 bytes, not by UTF-16 units", [["\U0001f511", "1"], ["\uffee", "2"], ["z", "3"]]),
    ("composed, kept as given", [["name", "caf\u00e9"]]),
    ("decomposed, kept as given", [["name", "cafe\u0301"]]),
    ("reserved keys, as Keystead itself seals them", [["keystead.purpose", "wrap"], ["keystead.version", "1"]]),
]


def context_file() -> Case:
    """Return ``context-v1.json``."""
    tests = [
        {"comment": comment, "pairs": pairs, "encoded": encode_context(pairs).hex()} for comment, pairs in CONTEXTS
    ]
    invalid: list[Case] = [
        {"comment": "lone surrogate in a value", "pairs": [["a", "\ud800"]]},
        {"comment": "lone surrogate in a key", "pairs": [["\udfff", "a"]]},
    ]
    return {"spec": "docs/spec/context-v1.md", "tests": tests, "invalid": invalid}


def envelope_case(comment: str, suite: int, plaintext: bytes, pairs: list[list[str]], *, key_id: int) -> Case:
    """Return one valid envelope with every value on the way to it."""
    data_key, salt, nonce = known_bytes("data key"), known_bytes(f"salt {comment}", 16), known_bytes(comment, 12)
    header = header_bytes(suite, key_id, salt)
    cipher_key = hkdf_sha256(data_key, b"keystead v1" + bytes([suite]) + salt, 16 if suite == 0x04 else 32)
    aad = header + encode_context(pairs)
    cipher = ChaCha20Poly1305(cipher_key) if suite == 0x05 else AESGCM(cipher_key)
    blob = header + nonce + cipher.encrypt(nonce, plaintext, aad)
    return {
        "comment": comment,
        "suite": suite,
        "data_key": data_key.hex(),
        "data_key_id": str(key_id),
        "salt": salt.hex(),
        "nonce": nonce.hex(),
        "context": pairs,
        "cipher_key": cipher_key.hex(),
        "aad": aad.hex(),
        "plaintext": plaintext.hex(),
        "envelope": blob.hex(),
        "text": text_form("ks1.", blob),
    }


def envelope_file() -> Case:
    """Return ``envelope-v1.json``."""
    users = CONTEXTS[2][1]
    tests = [
        envelope_case("empty plaintext, no context", 0x01, b"", [], key_id=1),
        envelope_case("short text", 0x01, b"sensitive data", [], key_id=0x0123456789ABCDEF),
        envelope_case("with context", 0x01, b"sensitive data", users, key_id=0x0123456789ABCDEF),
        envelope_case("largest id", 0x01, b"\x00", [], key_id=2**63 - 1),
        envelope_case("several blocks", 0x01, known_bytes("several blocks", 1000), users, key_id=7),
        envelope_case("AES-128-GCM", 0x04, b"sensitive data", users, key_id=8),
        envelope_case("ChaCha20-Poly1305", 0x05, b"sensitive data", users, key_id=9),
    ]
    good = bytes.fromhex(tests[1]["envelope"])
    body = tests[1]["text"][4:]
    headers = {
        "empty": b"",
        "one byte short of the smallest": bytes.fromhex(tests[0]["envelope"])[:-1],
        "header only": good[:26],
        "another magic": b"\xaf" + good[1:],
        "suite 0": good[:1] + b"\x00" + good[2:],
        "reserved suite AES-256-GCM-SIV": good[:1] + b"\x02" + good[2:],
        "reserved suite XAES-256-GCM": good[:1] + b"\x03" + good[2:],
        "unknown suite": good[:1] + b"\xff" + good[2:],
        "id 0": good[:2] + bytes(8) + good[10:],
        "id with its top bit set": good[:2] + b"\x80" + good[3:],
    }
    # 68 bytes need 91 characters, the last of which carries two spare bits.
    texts = {
        "no prefix": body,
        "another prefix": "ks2." + body,
        "padding": "ks1." + body + "=",
        "spare bits that are not zero": "ks1." + body[:-1] + chr(ord(body[-1]) + 1),
        "an impossible length": "ks1." + body[:89],
        "the other base64 alphabet": "ks1." + body.replace("-", "+").replace("_", "/"),
        "white space": "ks1." + body[:40] + "\n" + body[40:],
        "a character outside ASCII": "ks1." + body[:-1] + "\u00e9",
    }
    return {
        "spec": "docs/spec/envelope-v1.md",
        "tests": tests,
        "invalid_headers": [{"comment": comment, "envelope": blob.hex()} for comment, blob in headers.items()],
        "invalid_texts": [{"comment": comment, "text": text} for comment, text in texts.items()],
    }


def stream_case(comment: str, size: int, pairs: list[list[str]]) -> Case:
    """Return one stream; its C2SP part is built here chunk by chunk, with a salt of our choice."""
    data_key, salt = known_bytes("stream data key"), known_bytes(f"stream salt {comment}", 16)
    header = header_bytes(0x10, 77, salt)
    key = hkdf_sha256(data_key, b"keystead v1\x10" + salt, 32)
    context = header + encode_context(pairs)
    stream_salt = known_bytes(f"C2SP salt {comment}", 24)
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + stream_salt + context
    derived = HKDFExpand(SHA512(), 32 + 12 + 32, info).derive(key)
    chunk_key, base_nonce, commitment = derived[:32], int.from_bytes(derived[32:44], "big"), derived[44:]
    unit = b"Keystead stream "
    plaintext = unit * (size // len(unit)) + unit[: size % len(unit)]
    chunks = [plaintext[at : at + 16384] for at in range(0, size + 1, 16384)]
    sealed = [
        AESGCM(chunk_key).encrypt((base_nonce ^ index).to_bytes(12, "big"), chunk, None)
        for index, chunk in enumerate(chunks)
    ]
    return {
        "comment": comment,
        "data_key": data_key.hex(),
        "data_key_id": "77",
        "context": pairs,
        "cipher_key": key.hex(),
        "plaintext_unit": unit.hex(),
        "plaintext_size": size,
        "stream": (header + stream_salt + commitment + b"".join(sealed)).hex(),
    }


def stream_file() -> Case:
    """Return ``stream-v1.json``."""
    cases = [("empty", 0), ("one byte", 1), ("one short of a chunk", 16383), ("a chunk", 16384), ("more", 16400)]
    tests = [stream_case(comment, size, CONTEXTS[2][1]) for comment, size in cases]
    tests.append(stream_case("no context", 100, []))
    return {"spec": "docs/spec/envelope-v1.md", "tests": tests}


def codec_file() -> Case:
    """Return ``field-codec-v1.json``."""
    integers = {0: "00", 1: "01", -1: "ff", 127: "7f", 128: "0080", -128: "80", -129: "ff7f", 2**64: "01" + "00" * 8}
    cases: list[tuple[str, str, bytes]] = [
        ("bytes", "", b"\x00"),
        ("bytes", "00ff", b"\x00\x00\xff"),
        ("text", "", b"\x01"),
        ("text", "caf\u00e9 \U0001f511", b"\x01caf\xc3\xa9 \xf0\x9f\x94\x91"),
        ("json", "{}", b"\x02{}"),
        ("json", '{"b":[1,2.5,null,true],"a":"\u00e9"}', b'\x02{"b":[1,2.5,null,true],"a":"\xc3\xa9"}'),
        *[("integer", str(number), bytes.fromhex("03" + tail)) for number, tail in integers.items()],
        ("decimal", "0", b"\x040"),
        ("decimal", "-12.3400", b"\x04-12.3400"),
        ("decimal", "1.5E+30", b"\x041.5E+30"),
        ("datetime", "2026-01-31T12:30:45.000000Z", b"\x052026-01-31T12:30:45.000000Z"),
        ("datetime", "0001-01-01T00:00:00.000001Z", b"\x050001-01-01T00:00:00.000001Z"),
        ("date", "2024-02-29", b"\x062024-02-29"),
        ("uuid", "12345678-1234-5678-1234-567812345678", b"\x07" + bytes.fromhex("12345678" * 4)),
        ("bool", "true", b"\x08\x01"),
        ("bool", "false", b"\x08\x00"),
        ("float", "1.5", b"\x09" + bytes.fromhex("3ff8000000000000")),
        ("float", "-0.0", b"\x09" + bytes.fromhex("8000000000000000")),
        ("float", "Infinity", b"\x09" + bytes.fromhex("7ff0000000000000")),
        ("float", "NaN", b"\x09" + bytes.fromhex("7ff8000000000000")),
        ("null", "null", b"\x0a"),
    ]
    invalid = {
        "empty": b"",
        "unknown type": b"\x0b",
        "text that is not UTF-8": b"\x01\xff",
        "text with an encoded surrogate": b"\x01\xed\xa0\x80",
        "JSON cut short": b'\x02{"a":',
        "JSON with NaN": b"\x02NaN",
        "JSON with a number beyond a double": b"\x021e999",
        "JSON with a key twice": b'\x02{"a":1,"a":2}',
        "integer of no bytes": b"\x03",
        "integer with a needless zero byte": b"\x03\x00\x01",
        "integer with a needless ff byte": b"\x03\xff\xff",
        "decimal that is none": b"\x04abc",
        "decimal not finite": b"\x04NaN",
        "decimal with a lower-case exponent": b"\x041.5e+30",
        "decimal with a plus sign": b"\x04+1",
        "datetime without microseconds": b"\x052026-01-31T12:30:45Z",
        "datetime with another offset": b"\x052026-01-31T12:30:45.000000+01:00",
        "datetime that does not exist": b"\x052026-02-30T12:30:45.000000Z",
        "date in the basic format": b"\x0620240229",
        "uuid of 15 bytes": b"\x07" + bytes(15),
        "bool of 2": b"\x08\x02",
        "bool of two bytes": b"\x08\x01\x01",
        "float of 7 bytes": b"\x09" + bytes(7),
        "null with a byte": b"\x0a\x00",
    }
    return {
        "spec": "docs/spec/field-codec-v1.md",
        "tests": [{"type": kind, "value": value, "plaintext": data.hex()} for kind, value, data in cases],
        "invalid": [{"comment": comment, "plaintext": data.hex()} for comment, data in invalid.items()],
    }


def blind_index_file() -> Case:
    """Return ``blind-index-v1.json``. Normalised forms are written out by hand."""
    key = known_bytes("index key")
    cases: list[tuple[str, int, str, str]] = [
        ("exact", 0, "Ada@Example.org", "Ada@Example.org"),
        ("exact", 0, "", ""),
        ("normalised", 1, "  Ada \t LOVELACE\n", "ada lovelace"),
        ("normalised", 1, "Stra\u00dfe", "strasse"),
        ("normalised", 1, "\uff21\uff24\uff21", "ada"),
        ("normalised", 1, "cafe\u0301", "caf\u00e9"),
        ("normalised", 1, "\u1e9e \U0001f511", "\u1e9e \U0001f511"),
        ("normalised", 2, " Ada.Lovelace @Example.ORG ", "ada.lovelace@example.org"),
        ("normalised", 3, "+44 (0)20 7946-0958", "+442079460958"),
        ("normalised", 3, "0044 20 7946 0958", "+442079460958"),
        ("normalised", 3, "020 7946 0958", "02079460958"),
        ("normalised", 3, "\u0660\u0661\u0662", "012"),
        ("normalised", 3, "(+44) (0)20 7946 0958", "+442079460958"),
        ("normalised", 3, "tel. (0044) 20/79460958", "+442079460958"),
        ("normalised", 3, "\uff0b\u0664\u0664 20 7946 0958", "+442079460958"),
        ("normalised", 3, "(020) 7946+0958", "02079460958"),
        ("prefix", 3, "Ada Lovelace", "ada"),
        ("prefix", 5, "Ada", "ada"),
        ("token", 1, "Lovelace", "lovelace"),
    ]
    kinds = {"exact": 1, "normalised": 2, "prefix": 3, "token": 4}
    tests = []
    for kind, parameter, value, indexed in cases:
        for field_id, tenant in (("users.email", ""), ("users.email", "acme"), ("users.emaila", "cme")):
            data = u32(field_id.encode()) + u32(tenant.encode()) + bytes([kinds[kind], parameter]) + indexed.encode()
            tests.append(
                {
                    "key": key.hex(),
                    "field_id": field_id,
                    "tenant": tenant,
                    "kind": kind,
                    "parameter": parameter,
                    "value": value,
                    "indexed": indexed,
                    "index": hmac.digest(key, data, "sha256").hex(),
                }
            )
    words = [
        {"value": "Ada, Countess of Lovelace & ada!", "words": ["ada", "countess", "lovelace", "of"]},
        {"value": "\u00c5se 42", "words": ["42", "\u00e5se"]},
        {"value": " -- ", "words": []},
    ]
    return {"spec": "docs/spec/blind-index-v1.md", "tests": tests, "words": words}


def build() -> dict[str, str]:
    """Return every vector file's text by its name."""
    files = {
        "context-v1.json": context_file(),
        "envelope-v1.json": envelope_file(),
        "stream-v1.json": stream_file(),
        "field-codec-v1.json": codec_file(),
        "blind-index-v1.json": blind_index_file(),
        "field-v1.json": field_file(envelope_case),
        "encrypted-data-v1.json": encrypted_data_file(),
        "local-kek-v1.json": local_kek_file(hkdf_sha256, encode_context),
        "log-v1.json": log_file(),
        "audit-v1.json": audit_file(),
        "key-material-v1.json": key_material_file(),
        "azure-wrap-v1.json": azure_wrap_file(encode_context),
        "pkcs11-wrap-v1.json": pkcs11_file(encode_context),
        "multi-kek-v1.json": multi_kek_file(hkdf_sha256, encode_context),
        "signatures-v1.json": signatures_file(hkdf_sha256, encode_context),
        "client-keys-v1.json": client_keys_file(envelope_case),
        "secret-hash-v1.json": secret_hash_file(),
        "api-token-v1.json": token_file(),
        "access-role-v1.json": role_file(),
        "console-session-v1.json": session_file(),
        "approval-v1.json": approval_file(),
        "kubernetes-v1.json": kubernetes_file(envelope_case),
        "transit-v1.json": transit_file(),
        "erasure-v1.json": erasure_file(),
        "imported-forms.json": imported_file(),
        "legacy.json": legacy_file(),
        "root-key.json": root_key_file(),
    }
    return {name: json.dumps(content, indent=1) + "\n" for name, content in files.items()}


def main() -> int:
    """Write the files."""
    for name, text in build().items():
        (FOLDER / name).write_text(text, encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
