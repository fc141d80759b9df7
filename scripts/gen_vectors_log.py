"""Compute the vectors of the log; see ``gen_vectors.py``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts.gen_vectors_kms import Case, known_bytes, u32

START = 1_900_000_000_000
EPOCH_S = 900


def root_of(leaves: list[bytes]) -> bytes:
    """Return MTH of RFC 6962, section 2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def subtree_roots(leaves: list[bytes]) -> list[bytes]:
    """Return the roots of the complete subtrees over ``leaves``, the largest first."""
    roots, at = [], 0
    for bit in reversed(range(len(leaves).bit_length())):
        if len(leaves) >> bit & 1:
            roots.append(root_of(leaves[at : at + (1 << bit)]))
            at += 1 << bit
    return roots


def b64(content: bytes) -> str:
    """Return standard base64."""
    return base64.b64encode(content).decode()


class Writer:
    """A writer of one stream, straight from docs/spec/log-v1.md."""

    def __init__(self, stream: str, algorithm: str = "HMAC-SHA256") -> None:
        self.stream = stream
        self.algorithm = algorithm
        self.signing_key = Ed25519PrivateKey.from_private_bytes(known_bytes(f"log signer {stream}"))
        self.number = 0
        self.tag = bytes(32)
        self.leaves: list[bytes] = []
        self.records: list[Case] = []
        self.sessions: list[Case] = []
        self.files: list[bytes] = []
        self.session: dict[str, Any] = {}

    def begin_session(self, label: str, now: int) -> None:
        """Begin a session; its first record is still to be written."""
        identity = known_bytes(f"log session {label}", 16).hex()
        is_keyed = self.algorithm == "HMAC-SHA256"
        self.key = known_bytes(f"log session key {label}")
        wrapped = f"ks2.{base64.urlsafe_b64encode(known_bytes(f'wrapped {label}', 24)).decode().rstrip('=')}"
        self.session = {
            "id": identity,
            "algorithm": self.algorithm,
            "key": wrapped if is_keyed else None,
            "epoch": 0,
            "epoch_s": EPOCH_S if is_keyed else 0,
            "start": now,
            "steps": 0,
        }
        context = {"keystead.purpose": "session", "keystead.stream": self.stream, "keystead.session": identity}
        told: Case = {"id": identity, "key": self.key.hex() if is_keyed else None, "wrapped": self.session["key"]}
        self.sessions.append({**told, "context": context} if is_keyed else told)

    def seal(self, payload: bytes, now: int, kind: str | None = None) -> None:
        """Write a record."""
        middle = "" if kind is None else f',"k":"{kind}"'
        head = f'{{"n":{self.number},"t":{now}{middle},"d":'.encode() + payload
        message = (
            b"keystead log v1 record\n"
            + u32(self.stream.encode())
            + pack(">Q", self.session["epoch"])
            + self.tag
            + head
        )
        if self.algorithm == "SHA-256":
            self.tag = hashlib.sha256(message).digest()
        else:
            self.tag = hmac.digest(self._mac_key(), message, "sha256")
        line = head + b',"m":"' + b64(self.tag).rstrip("=").encode() + b'"}'
        leaf = hashlib.sha256(b"\x00" + line).digest()
        self.leaves.append(leaf)
        self.records.append({"number": self.number, "tag": self.tag.hex(), "leaf": leaf.hex()})
        self.files[-1] += line + b"\n"
        self.number += 1

    def control(self, kind: str, payload: dict[str, Any], now: int) -> None:
        """Write a record of the log itself."""
        self.seal(json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode(), now, kind)

    def begin_file(self, now: int) -> None:
        """Begin the next file."""
        self.files.append(b"")
        payload = {
            "format": "keystead-log-v1",
            "stream": self.stream,
            "file": len(self.files),
            "roots": [b64(root) for root in subtree_roots(self.leaves)],
            "tag": b64(self.tag),
            "session": self.session,
        }
        self.control("file", payload, now)

    def to_epoch(self, epoch: int, now: int) -> None:
        """End epochs until ``epoch``, and say so."""
        while self.session["epoch"] < epoch:
            ended = pack(">QQ", self.session["epoch"], self.number)
            message = b"keystead log v1 end of epoch\n" + u32(self.stream.encode()) + ended + self.tag
            self.tag = hmac.digest(self._mac_key(), message, "sha256")
            self.key = hmac.digest(self.key, b"keystead log v1 evolve", "sha256")
            self.session["epoch"] += 1
        self.control("epoch", {"epoch": epoch}, now)

    def clock_step(self, step: int, now: int) -> None:
        """Say that the clock moved."""
        self.session["steps"] += step
        self.control("clock", {"step": step}, now)

    def checkpoint(self, now: int) -> None:
        """Sign what is there."""
        text = f"{self.stream}\n{self.number}\n{b64(root_of(self.leaves))}\n"
        self.control("checkpoint", {"note": self.signed(text)}, now)

    def signed(self, text: str) -> str:
        """Return a note."""
        public = self.signing_key.public_key().public_bytes_raw()
        key_id = hashlib.sha256(self.stream.encode() + b"\n\x01" + public).digest()[:4]
        return f"{text}\n\u2014 {self.stream} {b64(key_id + self.signing_key.sign(text.encode()))}\n"

    def _mac_key(self) -> bytes:
        return hmac.digest(self.key, b"keystead log v1 seal", "sha256")

    def case(self, comment: str) -> Case:
        """Return what a reader needs, and what it should find."""
        public = self.signing_key.public_key().public_bytes_raw()
        key_id = hashlib.sha256(self.stream.encode() + b"\n\x01" + public).digest()[:4].hex()
        return {
            "comment": comment,
            "stream": self.stream,
            "signer": f"{self.stream}+{key_id}+{b64(bytes((1,)) + public)}",
            "sessions": self.sessions,
            "files": [b64(file) for file in self.files],
            "records": self.records,
            "root": root_of(self.leaves).hex(),
        }


def whole_stream() -> Case:
    """Every kind of record: two files, three sessions, epochs without records, a crash, a clock that is set."""
    writer = Writer("example.org/app")
    writer.begin_session("first", START)
    writer.begin_file(START)
    writer.seal(b'{"event":"start"}', START + 5)
    writer.seal('{"name":"Grüße","list":[1,2.50,1e3],"a":1,"a":2}'.encode(), START + 5)
    writer.checkpoint(START + 10)
    writer.control("cut", {}, START + 11)
    cut = f"{writer.stream}\n{writer.number - 1}\n{b64(root_of(writer.leaves[:-1]))}\n"
    writer.to_epoch(1, START + 900_500)
    writer.control("checkpoint", {"note": writer.signed(cut)}, START + 900_500)
    writer.seal(b'"a text, \\"quoted\\", and \\u2028"', START + 900_500)
    writer.to_epoch(4, START + 3_600_000)
    writer.seal(b"null", START + 3_600_001)
    writer.clock_step(-7_200_000, START + 3_600_001)
    writer.seal(b'{"after":"the clock was set back"}', START + 3_600_001)
    writer.control("rekey", {"session": known_bytes("log session second", 16).hex()}, START + 3_600_001)
    writer.begin_session("second", START + 3_600_001)
    writer.control("session", writer.session, START + 3_600_001)
    writer.seal(b'{"under":"another key"}', START + 3_600_002)
    torn = b'{"n":15,"t":19000036000'
    writer.files[-1] += torn + b"\n"
    writer.begin_session("third", START + 4_000_000)
    writer.control("session", writer.session, START + 4_000_000)
    recovery = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
    writer.control("recovery", recovery, START + 4_000_000)
    writer.control("close", {"next": 2}, START + 4_000_100)
    writer.checkpoint(START + 4_000_100)
    writer.begin_file(START + 4_000_200)
    removed = {"files": [{"file": 7, "first": 0, "last": 9}], "reason": "kept for a year"}
    writer.control("retention", removed, START + 4_000_200)
    writer.seal(b"[]", START + 4_000_201)
    writer.control("close", {}, START + 4_000_300)
    writer.checkpoint(START + 4_000_300)
    return writer.case("every kind of record")


def unkeyed_stream() -> Case:
    """Tags without a key: only checkpoints say who wrote."""
    writer = Writer("example.org/chained", "SHA-256")
    writer.begin_session("chained", START)
    writer.begin_file(START)
    writer.seal(b'{"event":"start"}', START + 1)
    writer.checkpoint(START + 2)
    return writer.case("tags without a key")


def log_file() -> Case:
    """Return ``log-v1.json``."""
    return {"spec": "docs/spec/log-v1.md", "tests": [whole_stream(), unkeyed_stream()]}
