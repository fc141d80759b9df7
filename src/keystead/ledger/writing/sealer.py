"""Sealing: payloads in, lines out, and the state that the next ones go on from. No I/O and no clock of its own.

Spec: docs/spec/log-v1.md.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from keystead.crypto.merkle import BATCH, Frontier, leaf_hash, new_leaf
from keystead.errors import InvalidInputError
from keystead.ledger.format.records import (
    LINE_END,
    MAX_EPOCHS,
    MAX_LINE_BYTES,
    NUL,
    FileHeader,
    Kind,
    Session,
    head_of,
    line_of,
    to_payload,
)
from keystead.ledger.format.tags import NO_TAG, SessionKey, Tagger, unkeyed_tagger
from keystead.ledger.tlog.checkpoint import Checkpoint

MAX_PAYLOAD_BYTES: Final = MAX_LINE_BYTES - 256


class Sealer:
    """One writer of one stream.

    Attributes:
        number: of the next record.
        tag: of the last record, or what an epoch that ended left in its place.
        time_ms: of the last record.
        session: the session it seals in, as it stands now.
    """

    def __init__(
        self,
        stream: str,
        session: Session,
        key: bytes | bytearray | None,
        *,
        tree: Frontier | None = None,
        tag: bytes = NO_TAG,
        time_ms: int = 0,
    ) -> None:
        self.stream = stream
        self.tag = tag
        self.time_ms = time_ms
        self._tree = tree or Frontier()
        self.number = self._tree.size
        self.session: Session
        self._written_epoch: int
        self._key: SessionKey | None
        self._tagger: Tagger
        self._begin(session, key)

    def __repr__(self) -> str:
        return f"<Sealer {self.stream!r} at record {self.number}, key hidden>"

    def copy(self) -> Sealer:
        """Return the same writer, to seal apart from this one: for lines that may be given up before they are kept."""
        made = Sealer.__new__(Sealer)
        made.__dict__ |= self.__dict__
        made._tree = self._tree.copy()
        made._key = None if self._key is None else self._key.copy()
        return made

    def seal(self, payloads: Sequence[bytes], now_ms: int) -> bytes:
        """Return the lines of records of the application, each with its end.

        Args:
            payloads: JSON values on one line each; they are taken as they are. See ``require_payload``.
            now_ms: the clock's time; where it is behind the last record's, that one's.
        """
        self.time_ms = now_ms = max(self.time_ms, now_ms)
        lines: list[bytes] = []
        remaining = iter(payloads)
        while batch := list(islice(remaining, BATCH)):
            self._seal_batch(batch, now_ms, lines)
        lines.append(b"")
        return b"\n".join(lines)

    def control(self, kind: Kind, payload: Mapping[str, Any], now_ms: int) -> bytes:
        """Return the line of one of the log's own records, with its end."""
        self.time_ms = max(self.time_ms, now_ms)
        head = head_of(self.number, self.time_ms, to_payload(payload), kind)
        self.tag = self._tagger(self.tag + head)
        line = line_of(head, self.tag)
        self._tree.append(leaf_hash(line))
        self.number += 1
        return line + b"\n"

    def file(self, number: int, now_ms: int) -> bytes:
        """Return the first line of a file."""
        self._written_epoch = self.session.epoch
        header = FileHeader(self.stream, number, self._tree.roots, self.tag, self.session)
        return self.control(Kind.FILE, header.as_dict(), now_ms)

    def clock_step(self, step_ms: int, now_ms: int) -> bytes:
        """Return the line that says that the clock was set."""
        self.session = replace(self.session, steps=self.session.steps + step_ms)
        return self.control(Kind.CLOCK, {"step": step_ms}, now_ms)

    def end_epochs(self, epoch: int) -> None:
        """End epochs until ``epoch`` has begun, erasing their keys. ``epoch`` above the session's limit stays below it.

        The next record is of the kind ``epoch`` or ``file``: ``is_in_new_epoch`` says so.
        """
        if self._key is None:
            return
        for _ in range(min(epoch, MAX_EPOCHS - 1) - self.session.epoch):
            self.tag = self._key.end_epoch(self.number, self.tag)
            self.session = replace(self.session, epoch=self._key.epoch)
            self._tagger = self._key.tagger()

    @property
    def is_in_new_epoch(self) -> bool:
        """Whether the epoch has not been written of yet."""
        return self.session.epoch != self._written_epoch

    def epoch(self, now_ms: int) -> bytes:
        """Return the line that begins an epoch."""
        self._written_epoch = self.session.epoch
        return self.control(Kind.EPOCH, {"epoch": self.session.epoch}, now_ms)

    def rekey(self, session: Session, key: bytes | bytearray | None, now_ms: int) -> bytes:
        """Return the lines by which one session hands over to another."""
        handing_over = self.control(Kind.REKEY, {"session": session.id}, now_ms)
        return handing_over + self.resume(session, key, now_ms)

    def resume(self, session: Session, key: bytes | bytearray | None, now_ms: int) -> bytes:
        """Return the first line of a session that goes on where another one was broken off."""
        self.wipe()
        self._begin(session, key)
        return self.control(Kind.SESSION, session.as_dict(), now_ms)

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint over all records so far."""
        return Checkpoint(self.stream, self.number, self._tree.root())

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees over all records so far, the largest first."""
        return self._tree.roots

    def wipe(self) -> None:
        """Overwrite the session's key."""
        if self._key is not None:
            self._key.wipe()

    def _begin(self, session: Session, key: bytes | bytearray | None) -> None:
        self.session = session
        self._written_epoch = session.epoch
        self._key = None if key is None else SessionKey(key, self.stream, epoch=session.epoch)
        self._tagger = unkeyed_tagger(self.stream) if self._key is None else self._key.tagger()

    def _seal_batch(self, payloads: Iterable[bytes], now_ms: int, lines: list[bytes]) -> None:
        # Once for each record of the application: without a call that can be spared.
        inner, outer = self._tagger.inner, self._tagger.outer
        number, tag = self.number, self.tag
        begin = b'{"n":%%d,"t":%d,"d":' % now_ms
        leaves: list[bytes] = []
        for payload in payloads:
            head = begin % number + payload
            within = inner()
            within.update(tag + head)
            tag = within.digest()
            if outer is not None:
                around = outer()
                around.update(tag)
                tag = around.digest()
            line = head + b',"m":"%.43b"}' % b2a_base64(tag)
            lines.append(line)
            leaf = new_leaf()
            leaf.update(line)
            leaves.append(leaf.digest())
            number += 1
        self.number, self.tag = number, tag
        self._tree.extend(leaves)


def require_control(payload: Mapping[str, Any]) -> None:
    """Refuse what a record of the log's own cannot say.

    Raises:
        InvalidInputError: it is too long, or no text.
    """
    try:
        size = len(to_payload(payload))
    except UnicodeEncodeError:
        raise InvalidInputError("what the log is to say has half a character in it, which is no text") from None
    if size > MAX_PAYLOAD_BYTES:
        raise InvalidInputError(f"what the log is to say is longer than a record can be: {MAX_PAYLOAD_BYTES} bytes")


def require_payload(payload: bytes) -> None:
    """Refuse what is no JSON value on one line, as far as can be told without parsing it.

    Raises:
        InvalidInputError: not bytes, empty, too long, with a line end or NUL, or beginning as no JSON value does.
    """
    require_payloads((payload,))


def require_payloads(payloads: Iterable[bytes]) -> None:
    """Refuse payloads of which one is no JSON value on one line; errors as ``require_payload``."""
    for payload in payloads:
        if payload.__class__ is not bytes:
            raise InvalidInputError("a record is bytes: one JSON value, as json.dumps(value).encode() gives it")
        begins_well = payload and (payload[0] in BEGINNINGS or payload in _WORDS)
        if not begins_well or LINE_END in payload or NUL in payload or len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidInputError(
                f"a record is one JSON value on one line of up to {MAX_PAYLOAD_BYTES} bytes; append_text takes any text"
            )


BEGINNINGS: Final = frozenset(b'{["0123456789-')
"""What a JSON value begins with, but for the three words."""
_WORDS: Final = frozenset((b"true", b"false", b"null"))
