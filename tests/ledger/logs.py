"""Logs to check: written by a sealer, and the trust that a reader has in it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keystead.crypto.merkle import Frontier, leaf_hash
from keystead.errors import InvalidSignatureError
from keystead.ledger.format.records import Kind, Session
from keystead.ledger.reading.checking import StreamChecker, Trust
from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.report import VerifyReport
from keystead.ledger.tlog.checkpoint import Checkpoint, SignedCheckpoint, verify_checkpoint
from keystead.ledger.tlog.note import Note, NoteKey, NoteKeyType, NoteSignature
from keystead.ledger.writing.sealer import Sealer

STREAM: Final = "example.org/app"
START: Final = 1_900_000_000_000
SIGNER: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER_KEY: Final = NoteKey.of(STREAM, NoteKeyType.ED25519, SIGNER.public_key().public_bytes_raw())


def session_key(name: str) -> bytes:
    return sha256(f"session {name}".encode()).digest()


def session(name: str, start: int = START) -> Session:
    return Session(sha256(name.encode()).hexdigest()[:32], "HMAC-SHA256", f"ks2.{name}", 0, 900, start)


def chained(name: str, start: int = START) -> Session:
    return Session(sha256(name.encode()).hexdigest()[:32], "SHA-256", None, 0, 0, start)


class TestTrust:
    """Trusts sessions whose wrapped key is ``ks2.`` and a known name, and the test signer."""

    __test__ = False
    stream = STREAM

    def __init__(
        self, *, names: tuple[str, ...] = ("one", "two", "three"), signers: tuple[NoteKey, ...] = (SIGNER_KEY,)
    ):
        self._names = names
        self._signers = signers

    def session_key(self, told: Session) -> bytes | None:
        if told.key is None:
            return None
        name = told.key.removeprefix("ks2.")
        if name not in self._names:
            raise InvalidSignatureError("the session's key does not open")
        return session_key(name)

    def checkpoint(self, note: bytes, time_ms: int) -> SignedCheckpoint:
        return verify_checkpoint(note, [SIGNER_KEY])


def sign(checkpoint: Checkpoint, signer: Ed25519PrivateKey = SIGNER, name: str = STREAM) -> str:
    text = checkpoint.text()
    key = NoteKey.of(name, NoteKeyType.ED25519, signer.public_key().public_bytes_raw())
    return Note(text, (NoteSignature(key.name, key.key_id, signer.sign(text.encode())),)).render().decode()


def checkpointed(sealer: Sealer, now: int = START) -> bytes:
    return sealer.control(Kind.CHECKPOINT, {"note": sign(sealer.checkpoint())}, now)


def payloads(count: int, begin: int = 0) -> list[bytes]:
    return [b'{"event":%d,"text":"some words"}' % number for number in range(begin, begin + count)]


def small_log(*, closed: bool = True, records: int = 10) -> bytes:
    """Return a file of one session: so many records, a checkpoint, as many again, closed or open."""
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    written = sealer.file(1, START) + sealer.seal(payloads(records), START + 1) + checkpointed(sealer)
    written += sealer.seal(payloads(records, records), START + 2)
    if closed:
        written += sealer.control(Kind.CLOSE, {}, START + 3) + checkpointed(sealer)
    return written


def lines_of(log: bytes) -> list[bytes]:
    return log.splitlines(keepends=True)


def roots_of(log: bytes) -> tuple[bytes, ...]:
    """Return the roots of the complete subtrees over a log's lines."""
    tree = Frontier()
    tree.extend([leaf_hash(line) for line in log.splitlines()])
    return tree.roots


def two_files(records: int = 7) -> list[bytes]:
    """Return the files of one session, with so many records each."""
    sealer = Sealer(STREAM, session("one"), session_key("one"))
    first = (
        sealer.file(1, START) + sealer.seal(payloads(records), START) + sealer.control(Kind.CLOSE, {"next": 2}, START)
    )
    first += checkpointed(sealer)
    sealer.end_epochs(3)
    second = sealer.file(2, START + 2_700_000) + sealer.seal(payloads(records, records), START + 2_700_001)
    second += sealer.control(Kind.CLOSE, {"next": 3}, START + 2_700_002) + checkpointed(sealer, START + 2_700_002)
    third = sealer.file(3, START + 2_700_003) + sealer.seal(payloads(records, 2 * records), START + 2_700_004)
    third += sealer.control(Kind.CLOSE, {}, START + 2_700_005) + checkpointed(sealer, START + 2_700_005)
    return [first, second, third]


def check(
    folder: Path,
    *contents: bytes,
    trust: Trust | None = None,
    since: Checkpoint | None = None,
    expect_closed: bool = False,
    is_whole: bool = False,
) -> VerifyReport:
    files = []
    for number, content in enumerate(contents):
        path = folder / f"log.{number}"
        path.write_bytes(content)
        files.append(LogFile(path))
    checker = StreamChecker(trust or TestTrust(), since=since)
    return checker.check(files, expect_closed=expect_closed, is_whole=is_whole)


def kinds(report: VerifyReport) -> list[str]:
    return [error.error_type.value for error in report.errors]
