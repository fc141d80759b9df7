"""Checkpoints of C2SP (c2sp.org/tlog-checkpoint): which log, how many records, and the root over them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from keystead.crypto.merkle import HASH_SIZE
from keystead.errors import InvalidInputError, InvalidSignatureError
from keystead.ledger.tlog.note import Note, NoteVerifier, unbase64, verify_note

MAX_SIZE: Final = 2**63 - 1
_SIZE: Final = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log.

    Attributes:
        origin: which log it is.
        size: how many records it has.
        root: the root of the tree over them, 32 bytes.
        extensions: further lines of the note's text; nothing is said about them.

    Raises:
        InvalidInputError: a member that the text form cannot hold.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.origin or any("\n" in each for each in (self.origin, *self.extensions)) or "" in self.extensions:
            raise InvalidInputError("a checkpoint's lines are not empty and have no line ends")
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_SIZE:
            raise InvalidInputError("a checkpoint has a size and a root of 32 bytes")

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return a checkpoint from the text of a note.

        Raises:
            InvalidSignatureError: malformed.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1]:
            raise InvalidSignatureError("a checkpoint is malformed: it has too few lines")
        origin, size, root, *extensions = lines[:-1]
        if not _SIZE.match(size):
            raise InvalidSignatureError("a checkpoint is malformed: its second line is no size")
        try:
            return cls(origin, int(size), _hash(root), tuple(extensions))
        except InvalidInputError:
            raise InvalidSignatureError("a checkpoint is malformed: one of its lines is none") from None

    def text(self) -> str:
        """Return the text that is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint, the note it came in, and the keys that were found to have signed it.

    Attributes:
        is_witnessed: as many witnesses as the reader asks for have cosigned it.
    """

    checkpoint: Checkpoint
    note: Note
    signed_by: tuple[NoteVerifier, ...]
    is_witnessed: bool = True


def verify_checkpoint(
    content: bytes, log_keys: Iterable[NoteVerifier], *, origin: str | None = None
) -> SignedCheckpoint:
    """Return a checkpoint that is signed by one of the log's keys.

    Args:
        origin: what the checkpoint has to be of.

    Raises:
        InvalidSignatureError: malformed, of another origin, or signed by none of them.
    """
    note = Note.parse(content)
    checkpoint = Checkpoint.parse(note.text)
    if origin is not None and checkpoint.origin != origin:
        raise InvalidSignatureError("the checkpoint is of another log")
    return SignedCheckpoint(checkpoint, note, tuple(verify_note(note, log_keys)))


def hash_lines(hashes: Sequence[bytes]) -> str:
    """Return hashes as a proof writes them, one a line."""
    return "".join(f"{base64.b64encode(each).decode()}\n" for each in hashes)


def parse_hashes(lines: Sequence[str], *, most: int = 63) -> list[bytes]:
    """Return the hashes of a proof's lines.

    Raises:
        InvalidSignatureError: malformed, or more than any tree needs.
    """
    if len(lines) > most:
        raise InvalidSignatureError("a proof has more hashes than any tree is high")
    return [_hash(line) for line in lines]


def _hash(text: str) -> bytes:
    content = unbase64(text)
    if content is None or len(content) != HASH_SIZE:
        raise InvalidSignatureError("a hash is not the base64 of 32 bytes")
    return content
