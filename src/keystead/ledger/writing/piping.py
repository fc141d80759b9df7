"""Lines of any program as records: one JSON value on one line as it is, everything else as text, and nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from keystead.errors import InvalidInputError
from keystead.ledger.writing.sealer import MAX_PAYLOAD_BYTES, require_payload

PIECE_BYTES: Final = (MAX_PAYLOAD_BYTES - 2) // 6
"""What of a text fits into a record however it has to be escaped."""
_WHITE: Final = b" \t\r"


def _refuse(word: str) -> object:
    raise ValueError


# Numbers are not computed: of any length, they are taken as they stand.
_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse)


def json_payload(line: bytes) -> bytes | None:
    """Return a line that is one JSON value, without white space around it; None where it is none."""
    value = line.strip(_WHITE)
    try:
        require_payload(value)
        _DECODER.decode(value.decode("utf-8"))
    except (InvalidInputError, ValueError, RecursionError):
        return None
    return value


def text_payload(line: bytes) -> bytes:
    r"""Return a line as a JSON string. A byte that is no UTF-8 stands in it as ``\udc80`` to ``\udcff``."""
    try:
        return json.dumps(line.decode("utf-8"), ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return json.dumps(line.decode("utf-8", "surrogateescape")).encode()


def text_of(payload: bytes) -> bytes:
    """Return what a person reads of a payload: the bytes of a text, and every other value as it is."""
    if payload[:1] != b'"':
        return payload
    try:
        value: Any = json.loads(payload)
        return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else payload
    except (ValueError, RecursionError):
        return payload


class LineSealer:
    """Cuts what comes in into lines, and hands on their payloads.

    A line that fits into no record becomes several, each a text.

    Args:
        take: is given the payloads of what came in at a time.
    """

    def __init__(self, take: Callable[[list[bytes]], object]) -> None:
        self._take = take
        self._rest = bytearray()
        self._is_within = False
        self.lines = self.texts = self.cut = 0

    def feed(self, data: bytes) -> None:
        """Take what came in; errors as ``take``, which is not called again with the same payloads."""
        *whole, rest = data.split(b"\n")
        payloads: list[bytes] = []
        for part in whole:
            payloads += self._line(bytes(self._rest) + part)
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > MAX_PAYLOAD_BYTES or (self._is_within and len(self._rest) > PIECE_BYTES):
            if not self._is_within:
                self._is_within, self.cut = True, self.cut + 1
            pieces = list(_pieces(bytes(self._rest)))
            self._rest[:] = pieces.pop()
            payloads += map(text_payload, pieces)
        if payloads:
            self._take(payloads)

    def finish(self) -> None:
        """Take what is left: a last line without an end."""
        if self._rest or self._is_within:
            payloads = self._line(bytes(self._rest))
            self._rest.clear()
            self._take(payloads)

    def _line(self, line: bytes) -> list[bytes]:
        self.lines += 1
        if self._is_within:
            self._is_within = False
            return [text_payload(piece) for piece in _pieces(line)] if line else []
        value = json_payload(line)
        if value is not None:
            return [value]
        self.texts += 1
        text = text_payload(line)
        if len(text) <= MAX_PAYLOAD_BYTES:
            return [text]
        self.cut += 1
        return [text_payload(piece) for piece in _pieces(line)]


def _pieces(line: bytes) -> Iterator[bytes]:
    """Yield a line in pieces, cut between characters where it is text."""
    at = 0
    while len(line) - at > PIECE_BYTES:
        end = at + PIECE_BYTES
        back = next((step for step in range(4) if line[end - step] & 0xC0 != 0x80), 0)
        yield line[at : end - back]
        at = end - back
    yield line[at:]
