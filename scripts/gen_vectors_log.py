"""Compute the vectors of the log; see ``gen_vectors.py``."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts.gen_vectors_kms import Case, known_bytes, u32
from scripts.gen_vectors_log_keys import names, note_keys

START = 1_900_000_000_000
EPOCH_S = 900
WITNESS_NAME = "witness.example.org/w1"
WITNESS_KEY = Ed25519PrivateKey.from_private_bytes(known_bytes("log witness"))
WITNESS_TIME = 1_900_000_100


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


@dataclass(frozen=True)
class NoteKey:
    """A key that signs notes; ``typed`` is its type and the public key."""

    name: str
    typed: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes."""
        return hashlib.sha256(self.name.encode() + b"\n" + self.typed).digest()[:4]

    @property
    def vkey(self) -> str:
        """The text form."""
        return f"{self.name}+{self.key_id.hex()}+{b64(self.typed)}"

    def line(self, signature: bytes) -> str:
        """Return a signature line."""
        return f"\u2014 {self.name} {b64(self.key_id + signature)}\n"


class Writer:
    """A writer of one stream, straight from docs/spec/log-v1.md."""

    def __init__(self, stream: str, algorithm: str = "HMAC-SHA256", signer: str | None = None) -> None:
        self.stream = stream
        self.algorithm = algorithm
        self.signer = signer or stream
        self.signing_key = Ed25519PrivateKey.from_private_bytes(known_bytes(f"log signer {stream}"))
        self.witness: NoteKey | None = None
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
        """Return a note, cosigned where the writer has a witness."""
        note = f"{text}\n{self._key().line(self.signing_key.sign(text.encode()))}"
        if self.witness is None:
            return note
        cosigned = f"cosignature/v1\ntime {WITNESS_TIME}\n{text}".encode()
        return note + self.witness.line(pack(">Q", WITNESS_TIME) + WITNESS_KEY.sign(cosigned))

    def _key(self) -> NoteKey:
        return NoteKey(self.signer, b"\x01" + self.signing_key.public_key().public_bytes_raw())

    def _mac_key(self) -> bytes:
        return hmac.digest(self.key, b"keystead log v1 seal", "sha256")

    def case(self, comment: str, *, vouched: int, closed: bool) -> Case:
        """Return what a reader needs, and what it should find.

        Args:
            vouched: how many records the last good checkpoint is over.
            closed: the stream ends by its writer's will.
        """
        return {
            "comment": comment,
            "stream": self.stream,
            "signer": self._key().vkey,
            "witnesses": [],
            "quorum": 0,
            "sessions": self.sessions,
            "files": [b64(file) for file in self.files],
            "records": self.records,
            "root": root_of(self.leaves).hex(),
            "vouched": vouched,
            "closed": closed,
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
    return writer.case("every kind of record", vouched=23, closed=True)


def unkeyed_stream() -> Case:
    """Tags without a key: only checkpoints say who wrote."""
    writer = Writer("example.org/chained", "SHA-256")
    writer.begin_session("chained", START)
    writer.begin_file(START)
    writer.seal(b'{"event":"start"}', START + 1)
    writer.checkpoint(START + 2)
    return writer.case("tags without a key", vouched=2, closed=False)


def witnessed_stream() -> Case:
    """Witnesses, files that were removed, and a name that no key can have."""
    writer = Writer("my app 100%", signer="my%20app%20100%25")
    writer.begin_session("witnessed", START)
    now = START
    removed = [{"file": 1, "first": 0, "last": 3}]
    for following in (2, 3):
        now += 10
        writer.begin_file(now)
        if following == 3:
            # The word of a removal stands in a file that is to be removed as well, and so it is said again.
            writer.control("retention", {"files": removed, "reason": "kept for a year"}, now)
            removed = [*removed, {"file": 2, "first": 4, "last": writer.number + 2}]
        writer.seal(b'{"in":"a file that is gone"}', now)
        writer.control("close", {"next": following}, now)
        writer.checkpoint(now)
    writer.begin_file(now)
    writer.control("retention", {"files": removed, "reason": "kept for a year"}, now)
    writer.seal(b'{"in":"the last file"}', now)
    writer.witness = NoteKey(WITNESS_NAME, b"\x04" + WITNESS_KEY.public_key().public_bytes_raw())
    writer.checkpoint(now)
    vouched = writer.number - 1
    writer.witness = None
    writer.seal(b'{"after":"the witness"}', now)
    writer.control("close", {}, now)
    writer.checkpoint(now)
    case = writer.case("two files removed, a witness, a name that is escaped", vouched=vouched, closed=False)
    last = case["files"][-1:]
    present = len(writer.files[-1].splitlines())
    witness = NoteKey(WITNESS_NAME, b"\x04" + WITNESS_KEY.public_key().public_bytes_raw())
    told = {"files": last, "records": writer.records[-present:], "witnesses": [witness.vkey], "quorum": 1}
    return {**case, **told}


def invalid_streams() -> list[Case]:
    """Return logs that no reader may call valid, and what is wrong with each first of all."""
    writer = Writer("example.org/changed")
    writer.begin_session("changed", START)
    writer.begin_file(START)
    for number in range(4):
        writer.seal(b'{"number":%d}' % number, START + number)
    writer.control("close", {}, START + 5)
    writer.checkpoint(START + 5)
    good = writer.case("", vouched=6, closed=True)
    lines = writer.files[0].splitlines(keepends=True)
    last = lines[-1].replace(b"\\n6\\n", b"\\n5\\n")
    edits = {
        "a payload was changed": ("modified", [*lines[:2], lines[2].replace(b"1}", b"7}"), *lines[3:]]),
        "a member was added that a parser would not see": (
            "modified",
            [*lines[:2], lines[2].replace(b'{"number":1}', b'{"number":7,"number":1}'), *lines[3:]],
        ),
        "a record is missing": ("missing", [*lines[:2], *lines[3:]]),
        "a record stands there twice": ("duplicated", [*lines[:4], lines[3], *lines[4:]]),
        "two records changed places": ("reordered", [*lines[:2], lines[3], lines[2], *lines[4:]]),
        "a line is no record": ("malformed", [*lines[:2], b"[1]\n", *lines[2:]]),
        "a checkpoint says another size": ("modified", [*lines[:-1], last]),
        "the file is empty": ("truncated", []),
    }
    cases = [
        {**good, "comment": comment, "finding": finding, "files": [b64(b"".join(content))]}
        for comment, (finding, content) in edits.items()
    ]
    forged = Writer("example.org/chained", "SHA-256")
    forged.begin_session("chained", START)
    forged.begin_file(START)
    forged.seal(b'{"event":"forged"}', START + 1)
    cases.append({**forged.case("no key, and no checkpoint", vouched=0, closed=False), "finding": "untrusted"})
    unwitnessed = {**unkeyed_stream(), "witnesses": witnessed_stream()["witnesses"], "quorum": 1}
    cases.append({**unwitnessed, "comment": "a witness is asked for, and has not cosigned", "finding": "untrusted"})
    needed = ("comment", "finding", "stream", "signer", "witnesses", "quorum", "sessions", "files")
    return [{name: case[name] for name in needed} for case in cases]


def log_file() -> Case:
    """Return ``log-v1.json``."""
    return {
        "spec": "docs/spec/log-v1.md",
        "tests": [whole_stream(), unkeyed_stream(), witnessed_stream()],
        "invalid": invalid_streams(),
        "note_keys": note_keys(),
        "names": names(),
    }
