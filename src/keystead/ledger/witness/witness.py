"""A witness of C2SP (c2sp.org/tlog-witness): it cosigns a checkpoint once it is shown that the log has only grown.

What it remembers of a log is the last checkpoint it cosigned. That is on disk before the cosignature leaves, and looked
at and replaced in one step, so that of two requests at once neither can set it back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from keystead.crypto.merkle import EMPTY_ROOT, verify_consistency
from keystead.errors import (
    InvalidProofError,
    InvalidSignatureError,
    ProviderConnectionError,
)
from keystead.ledger.tlog.checkpoint import Checkpoint, parse_hashes, verify_checkpoint
from keystead.ledger.tlog.cosignature import WitnessSigner
from keystead.ledger.tlog.note import Note, NoteVerifier
from keystead.runtime.files import make_folder, replace_file

MAX_REQUEST_BYTES: Final = 1 << 20
SIZE_TYPE: Final = "text/x.tlog.size"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """What an ``add-checkpoint`` request is answered: an HTTP status and a body of text."""

    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"


class WitnessState(Protocol):
    """Remembers the last checkpoint of each log."""

    def turn(self, origin: str) -> contextlib.AbstractContextManager[WitnessTurn]:
        """Return the one turn that may be taken with a log at a time."""


class WitnessTurn(Protocol):
    """Reads and replaces what is remembered of one log."""

    def last(self) -> Note | None:
        """Return the last checkpoint that was cosigned, as a note."""

    def keep(self, note: Note) -> None:
        """Remember a cosigned checkpoint; it is durable when this returns."""


class Witness:
    """Answers requests for cosignatures; knows nothing of HTTP.

    Args:
        signers: the witness's keys, each of which cosigns.
        logs: the keys of the logs it knows, by origin.
        state: what it remembers.
        seconds: the time, in seconds since 1970.
    """

    def __init__(
        self,
        signers: Sequence[WitnessSigner],
        logs: Mapping[str, Sequence[NoteVerifier]],
        state: WitnessState,
        seconds: Callable[[], int],
    ) -> None:
        self._signers = signers
        self._logs = logs
        self._state = state
        self._seconds = seconds

    def add_checkpoint(self, body: bytes) -> WitnessAnswer:
        """Cosign a checkpoint, if the log's key has signed it and the proof shows that the log has only grown."""
        request = _Request.parse(body)
        if request is None:
            return _refused(400, "the request is malformed")
        keys = self._logs.get(request.checkpoint.origin)
        if keys is None:
            return _refused(404, "unknown log")
        try:
            signed_by = verify_checkpoint(request.note, keys).signed_by
        except InvalidSignatureError:
            return _refused(403, "invalid signature")
        if request.old > request.checkpoint.size:
            return _refused(400, "the old size is above the checkpoint's")
        try:
            with self._state.turn(request.checkpoint.origin) as turn:
                return self._cosigned(request, turn, {(key.name, key.key_id) for key in signed_by})
        except ProviderConnectionError:
            return _refused(503, "the witness is busy; try again")

    def checkpoint(self, origin_hash: str) -> WitnessAnswer:
        """Return the last checkpoint of a log that it has cosigned, for whoever watches the log.

        Args:
            origin_hash: SHA-256 of the log's origin, in hex.
        """
        for origin in self._logs:
            if hashlib.sha256(origin.encode()).hexdigest() != origin_hash:
                continue
            try:
                with self._state.turn(origin) as turn:
                    found = turn.last()
            except ProviderConnectionError:
                return _refused(503, "the witness is busy; try again")
            if found is not None:
                return WitnessAnswer(200, found.render().decode())
        return _refused(404, "no checkpoint of such a log was cosigned")

    def _cosigned(self, request: _Request, turn: WitnessTurn, trusted: set[tuple[str, bytes]]) -> WitnessAnswer:
        note, new = turn.last(), request.checkpoint
        last = None if note is None else Checkpoint.parse(note.text)
        size = 0 if last is None else last.size
        if request.old != size:
            return WitnessAnswer(409, f"{size}\n", SIZE_TYPE)
        if new.size == 0 and new.root != EMPTY_ROOT:
            return _refused(422, "the root is not that of an empty log")
        try:
            if last is None or size == 0:
                if request.proof:
                    return _refused(422, "invalid consistency proof: of an empty log nothing is proved")
            else:
                verify_consistency(size, new.size, last.root, new.root, request.proof)
        except InvalidProofError:
            return _refused(422, "invalid consistency proof")
        seconds, text = self._seconds(), new.text()
        cosigned = [signer.cosign(text, seconds) for signer in self._signers]
        signatures = [each for each in Note.parse(request.note).signatures if (each.name, each.key_id) in trusted]
        turn.keep(Note(text, (*signatures, *cosigned)))
        return WitnessAnswer(200, "".join(each.line() for each in cosigned))


class FolderState:
    """What a witness remembers, one file for each log, in a folder that several processes may share."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._lock = threading.Lock()
        self._is_made = False

    @contextmanager
    def turn(self, origin: str) -> Iterator[WitnessTurn]:
        """Return the turn of a log, held by a lock beside its file.

        Raises:
            ProviderConnectionError: the folder cannot be used.
        """
        import fcntl

        path = self._folder / hashlib.sha256(origin.encode()).hexdigest()
        with self._lock:
            try:
                if not self._is_made:
                    make_folder(self._folder, mode=0o700)
                    self._is_made = True
                lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as exc:
                raise _unusable(self._folder, exc) from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield _FileTurn(path)
            except OSError as exc:
                raise _unusable(self._folder, exc) from None
            finally:
                os.close(lock)


class _FileTurn:
    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> Note | None:
        try:
            note = Note.parse(self._path.read_bytes())
            Checkpoint.parse(note.text)
            return note
        except FileNotFoundError:
            return None
        except InvalidSignatureError:
            raise ProviderConnectionError(f"{self._path} is damaged: restore it, or remove it with its log") from None

    def keep(self, note: Note) -> None:
        replace_file(self._path, note.render(), mode=0o600)


@dataclass(frozen=True, slots=True)
class _Request:
    old: int
    proof: list[bytes]
    note: bytes
    checkpoint: Checkpoint

    @classmethod
    def parse(cls, body: bytes) -> _Request | None:
        """Return a request, or None where it is malformed."""
        if len(body) > MAX_REQUEST_BYTES:
            return None
        head, blank, note = body.partition(b"\n\n")
        try:
            first, *lines = head.decode("ascii").split("\n")
            found = _OLD.match(first)
            if not blank or found is None:
                return None
            return cls(int(found[1]), parse_hashes(lines), note, Checkpoint.parse(Note.parse(note).text))
        except (InvalidSignatureError, UnicodeDecodeError):
            return None


def _refused(status: int, why: str) -> WitnessAnswer:
    return WitnessAnswer(status, f"{why}\n")


def _unusable(folder: Path, exc: OSError) -> ProviderConnectionError:
    return ProviderConnectionError(
        f"the witness's folder {folder} cannot be used: {exc.strerror or type(exc).__name__}"
    )
