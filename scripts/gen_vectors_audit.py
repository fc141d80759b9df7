"""Compute the vectors of the audit trail; see ``gen_vectors.py``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from scripts.gen_vectors_kms import Case, known_bytes, text_form, u32
from scripts.gen_vectors_log import b64, root_of, subtree_roots

STORE = known_bytes("audit store", 16).hex()
SESSION = known_bytes("audit session", 16).hex()
NODE = "node-1"
BEGUN = 1_900_000_000_000
SESSION_KEY = known_bytes("audit session key")
WRAP_KEY, WRAP_KEY_ID = known_bytes("audit WRAP key"), 0x0123456789ABCDEF
STATE_KEY, STATE_KEY_ID = known_bytes("audit data key"), 0x0FEDCBA987654321
STREAM = f"keystead/audit/{STORE}/00c0ffee"


def canonical(value: object) -> bytes:
    """Return the one form of a value in JSON."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def unpadded(content: bytes) -> str:
    """Return standard base64 without padding."""
    return b64(content).rstrip("=")


def code_of(entry: bytes, key: bytes = SESSION_KEY) -> bytes:
    """Return the code of an entry."""
    message = b"keystead audit v1 entry\n" + u32(STORE.encode()) + entry
    return hmac.digest(key, message, "sha256")


def session() -> Case:
    """Return a session: its key, and the wrapped form of that with every value on the way to it."""
    context = [
        ["keystead.purpose", "audit-session"],
        ["keystead.store", STORE],
        ["keystead.session", SESSION],
        ["keystead.node", NODE],
        ["keystead.begun", str(BEGUN)],
    ]
    raw = sorted((name.encode(), value.encode()) for name, value in context)
    encoded = b"".join(u32(name) + u32(value) for name, value in raw)
    salt, nonce = known_bytes("audit salt", 16), known_bytes("audit nonce", 12)
    header = pack(">BBQ", 0xAE, 0x01, WRAP_KEY_ID) + salt
    pseudorandom = hmac.digest(bytes(32), WRAP_KEY, "sha256")
    cipher_key = hmac.digest(pseudorandom, b"keystead v1\x01" + salt + b"\x01", "sha256")
    wrapped = header + nonce + AESGCM(cipher_key).encrypt(nonce, SESSION_KEY, header + encoded)
    return {
        "store": STORE,
        "session": SESSION,
        "node": NODE,
        "begun": BEGUN,
        "key": SESSION_KEY.hex(),
        "context": context,
        "wrap_key_id": str(WRAP_KEY_ID),
        "wrap_key": WRAP_KEY.hex(),
        "wrapped_key": wrapped.hex(),
        "text": text_form("ks1.", wrapped),
    }


def entry(comment: str, number: int, action: str, **members: Any) -> Case:
    """Return an entry, its code, and the payload of its record."""
    told = {
        "id": f"01ba5c0e-8400-7{number:03x}-8000-{number:012x}",
        "session": SESSION,
        "n": number,
        "ok": number,
        "node": NODE,
        "time": "2030-03-17T17:46:40.000000Z",
        "action": action,
        **members,
    }
    content = canonical(told)
    code = code_of(content)
    payload = b'{"entry":' + content + b',"mac":"' + unpadded(code).encode() + b'"}'
    return {
        "comment": comment,
        "members": told,
        "entry": content.hex(),
        "code": code.hex(),
        "payload": payload.hex(),
    }


def entries(begun: Case, keys: list[Case]) -> list[Case]:
    """Return entries of every form."""
    details = {"key": begun["text"], "begun": BEGUN, "host": "h", "pid": 1, "release": "1.0"}
    told = [
        {name: key["columns"][name] for name in ("id", "keyring", "version", "state")} | {"row": key["row"]}
        for key in keys
    ]
    hard: Case = {"text": '"\\/\b\f\n\r\t\x01\x1f\x7f\u2028\u00e9\U0001f511', "list": [True, False, None, {}, []]}
    return [
        entry("the first of a session", 0, "audit.session", details=details),
        entry("nothing but what there has to be", 1, "audit.checkpoint"),
        entry(
            "a key that was rotated",
            2,
            "key.rotate",
            keyring="default",
            key_id=told[1]["id"],
            actor="user:17",
            epoch=7,
            keys=told,
            details={"version": 2},
        ),
        entry("characters that are escaped, and those that are not", 3, "order.refund", details=hard),
        entry("the largest numbers", 4, "order.refund", details={"a": 2**53 - 1, "b": -(2**53) + 1}),
        entry("names in the order of their code points", 5, "order.refund", details={"b": 1, "B": 2, "_": 3, "1": 4}),
        entry("some before it were rolled back", 9, "order.paid", ok=9, undone=[[6, 6], [8, 8]]),
        entry("others have not ended", 12, "order.paid", ok=10),
    ]


def rejections() -> list[Case]:
    """Return what becomes of what is no entry."""
    found = []
    contents = {"code": b"{}", "malformed": b"", "session": b"\xff\n", "duplicate": b"[]", "archived": b"{}"}
    for reason, content in contents.items():
        row = known_bytes(f"audit row {reason}", 17 if reason == "archived" else 16)
        told = {
            "reason": reason,
            "row": row.hex() if len(row) <= 16 else hashlib.sha256(row).hexdigest(),
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
        }
        payload = canonical({"rejected": told})
        found.append({"reason": reason, "row": row.hex(), "entry": content.hex(), "payload": payload.hex()})
    return found


def key_row(comment: str, **columns: Any) -> Case:
    """Return a data key's row and its digest."""
    wrapped = columns.pop("wrapped_key", None)
    told = {
        "id": "1",
        "keyring": "default",
        "version": 1,
        "purpose": "encrypt",
        "state": "active",
        "algorithm": "AES-256-GCM",
        "created": "2030-01-01T00:00:00.000000Z",
        "context": {},
        "wrapped_by": str(WRAP_KEY_ID),
        **dict.fromkeys(("kek_provider", "kek_key_id", "kek_version", "kek_algorithm", "legacy_version")),
        **dict.fromkeys(("activated_at", "rotate_after", "expires_at", "destroy_after")),
        **columns,
    }
    hashed = {**told, "wrapped_key": None if wrapped is None else hashlib.sha256(wrapped).hexdigest()}
    digest = hashlib.sha256(canonical(hashed)).digest()
    return {
        "comment": comment,
        "columns": told,
        "wrapped_key": None if wrapped is None else wrapped.hex(),
        "row": unpadded(digest),
    }


def key_rows() -> list[Case]:
    """Return rows of data keys."""
    wrapped = known_bytes("audit wrapped", 86)
    times = dict.fromkeys(("activated_at", "rotate_after", "expires_at"), "2030-04-01T00:00:00.000000Z")
    kek = {"kek_provider": "aws", "kek_key_id": "alias/app", "kek_version": "3", "kek_algorithm": "SYMMETRIC_DEFAULT"}
    wrap = {"purpose": "wrap", "keyring": "keystead.wrap", "wrapped_by": None, "context": {"service": "caf\u00e9"}}
    return [
        key_row("a version that only decrypts", id="11", state="decrypt-only", wrapped_key=wrapped, **times),
        key_row("its successor", id="12", version=2, wrapped_key=wrapped, **times),
        key_row("a WRAP key", id=str(2**63 - 1), wrapped_key=wrapped, **wrap, **kek),
        key_row("a tombstone", id="13", version=3, state="destroyed", destroy_after="2030-05-01T00:00:00.000000Z"),
        key_row("a key of an older system", id="14", version=4, legacy_version="v1700000000", wrapped_key=wrapped),
    ]


def state(comment: str, size: int, **members: Any) -> Case:
    """Return the state of a log of ``size`` records, and its code."""
    leaves = [hashlib.sha256(b"\x00" + b"record %d" % number).digest() for number in range(size)]
    told = {
        "stream": STREAM,
        "size": size,
        "roots": [b64(root) for root in subtree_roots(leaves)],
        "tag": b64(known_bytes(f"audit tag {size}") if size else bytes(32)),
        "time": BEGUN if size else 0,
        "file": 1 if size else 0,
        "first": 0,
        "begun": BEGUN if size else 0,
        "ends": None,
        "since": 12,
        "over": None,
        "horizon": 0,
        **members,
    }
    content = canonical(told)
    message = b"keystead audit v1 state\n" + u32(STORE.encode()) + content
    return {
        "comment": comment,
        "state": content.hex(),
        "size": size,
        "root": root_of(leaves).hex(),
        "code": hmac.digest(STATE_KEY, message, "sha256").hex(),
    }


def signer() -> Case:
    """Return the key that signs checkpoints, and a checkpoint that it has signed."""
    seed = hmac.digest(STATE_KEY, b"keystead audit v1 checkpoint key\n" + u32(STREAM.encode()), "sha256")
    private = Ed25519PrivateKey.from_private_bytes(seed)
    typed = b"\x01" + private.public_key().public_bytes_raw()
    key_id = hashlib.sha256(STREAM.encode() + b"\n" + typed).digest()[:4]
    text = f"{STREAM}\n3\n{b64(known_bytes('a root'))}\n"
    line = base64.b64encode(key_id + private.sign(text.encode())).decode()
    return {
        "data_key": STATE_KEY.hex(),
        "data_key_id": str(STATE_KEY_ID),
        "stream": STREAM,
        "seed": seed.hex(),
        "vkey": f"{STREAM}+{key_id.hex()}+{b64(typed)}",
        "text": text,
        "note": f"{text}\n\u2014 {STREAM} {line}\n",
    }


def audit_file() -> Case:
    """Return ``audit-v1.json``."""
    begun, rows = session(), key_rows()
    return {
        "spec": "docs/spec/audit-v1.md",
        "sessions": [begun],
        "entries": entries(begun, rows[:2]),
        "rejections": rejections(),
        "rows": rows,
        "states": [
            state("before the first record", 0),
            state("seven records", 7),
            state("closed", 8, ends=0),
            state("the next file has not begun", 100_003 % 11, file=2, first=1, ends=3),
            state("sessions that began before are over", 9, horizon=BEGUN - 1),
            state("the trail has been ended", 9, over=2**53 - 1),
            state("no trail has begun on it yet", 0, since=0),
            state("of an ended trail, imported", 0, since=0, over=7),
        ],
        "signers": [signer()],
    }
