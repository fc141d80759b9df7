"""Proof bundles of C2SP (c2sp.org/tlog-proof): that one record is in a log, checked by anybody without the log."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from keystead.crypto.merkle import leaf_hash, verify_inclusion
from keystead.errors import InvalidInputError, InvalidProofError, InvalidSignatureError
from keystead.ledger.tlog.checkpoint import SignedCheckpoint, hash_lines, parse_hashes, verify_checkpoint
from keystead.ledger.tlog.note import NoteVerifier, unbase64, verify_note

MAX_PROOF_BYTES: Final = 8 << 20
"""Room for the longest record in base64, the longest note and the path between."""
HEADER: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,19})\Z")


@dataclass(frozen=True, slots=True)
class ProofBundle:
    """Where a record is in a log, the path from it to the root, and the checkpoint that the root stands in.

    Attributes:
        checkpoint: the note as it was signed.
        extra: bytes for the reader's own use; nothing vouches for them.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    @classmethod
    def parse(cls, content: bytes) -> ProofBundle:
        """Return a bundle from its text.

        Raises:
            InvalidProofError: malformed.
        """
        if len(content) > MAX_PROOF_BYTES:
            raise InvalidProofError("a proof is malformed: longer than any proof may be")
        try:
            head, blank, checkpoint = content.decode("utf-8").partition("\n\n")
        except UnicodeDecodeError:
            raise InvalidProofError("a proof is malformed: not UTF-8") from None
        lines = head.split("\n")
        if not blank or lines.pop(0) != HEADER:
            raise InvalidProofError(f"a proof begins with {HEADER}, and has a checkpoint after an empty line")
        extra = _extra(lines.pop(0)) if lines and lines[0].startswith("extra ") else None
        found = _INDEX.match(lines.pop(0)) if lines else None
        if found is None or int(found[1]) >= 2**64:
            raise InvalidProofError("a proof is malformed: it has no index")
        try:
            hashes = tuple(parse_hashes(lines))
        except InvalidSignatureError as exc:
            raise InvalidProofError(f"a proof is malformed: {exc}") from None
        return cls(int(found[1]), hashes, checkpoint.encode(), extra)

    def render(self) -> bytes:
        """Return the bundle's text."""
        extra = "" if self.extra is None else f"extra {base64.b64encode(self.extra).decode()}\n"
        return f"{HEADER}\n{extra}index {self.index}\n{hash_lines(self.hashes)}\n".encode() + self.checkpoint

    def verify(
        self,
        record: bytes,
        log_keys: Iterable[NoteVerifier],
        *,
        origin: str | None = None,
        witnesses: Collection[NoteVerifier] = (),
        quorum: int = 0,
    ) -> SignedCheckpoint:
        """Return the checkpoint that vouches for ``record`` (its line, without the line end).

        Args:
            origin: the log it has to be in.
            witnesses: keys of witnesses, of whom ``quorum`` must have cosigned the checkpoint.

        Raises:
            InvalidProofError: the record is not there.
            InvalidSignatureError: the checkpoint is not the log's, or not witnessed as asked.
        """
        if quorum < 0 or quorum > len(witnesses):
            raise InvalidInputError("quorum is a number of the witnesses given")
        signed = verify_checkpoint(self.checkpoint, log_keys, origin=origin)
        require_witnesses(signed, witnesses, quorum)
        found = signed.checkpoint
        verify_inclusion(leaf_hash(record), self.index, found.size, self.hashes, found.root)
        return signed


def require_witnesses(signed: SignedCheckpoint, witnesses: Collection[NoteVerifier], quorum: int) -> None:
    """Raise ``InvalidSignatureError`` unless ``quorum`` of ``witnesses`` have cosigned, told apart by their names."""
    if not quorum:
        return
    with contextlib.suppress(InvalidSignatureError):
        if len({key.name for key in verify_note(signed.note, witnesses)}) >= quorum:
            return
    raise InvalidSignatureError(f"fewer than {quorum} of the witnesses have cosigned the checkpoint")


def _extra(line: str) -> bytes:
    content = unbase64(line.removeprefix("extra "))
    if content is None:
        raise InvalidProofError("a proof is malformed: its extra data is not base64")
    return content
