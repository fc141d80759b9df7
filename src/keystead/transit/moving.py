"""Ciphertexts that move from one Transit key to another, here or elsewhere, or to the latest version of their own.

What is moved is opened by the one end and sealed by the other; ``fields/worker.py`` reads and writes the rows. A text
does not say which engine made it. What the end that it goes to is known to have made by now is left alone; of the rest,
what the end that it comes from does not open and the other does has been moved before.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeVar

from keystead.crypto.envelope import OVERHEAD
from keystead.errors import InvalidCiphertextError, InvalidInputError, KMSError
from keystead.fields.importing.formats.vault import is_transit_text
from keystead.fields.sealing import Work
from keystead.ports import TransitEnd, TransitItem
from keystead.ports.rows import Row, RowChange, RowLayout
from keystead.transit import encrypting
from keystead.transit.opened import OpenKey, TooNewError
from keystead.transit.texts import parted, sealed_bytes

T = TypeVar("T")

TEXTS_AT_ONCE: Final = 500
COLUMN_TOO_SHORT: Final = "column_too_short"
"""Why a row was left: its column of text does not take what is to be written."""
_TEXT: Final = re.compile(rb"vault:v[0-9]+:[A-Za-z0-9+/]*={0,2}")


class OwnKey:
    """A key of this store; ``keystead.ports.TransitEnd``.

    Args:
        look: gives the key as it is now; told True, as the store has it.
        has_all: every text is of this key, and its version alone says whether it is of the latest.

    Attributes:
        opened, sealed: how many values were decrypted and encrypted.
    """

    def __init__(self, look: Callable[[bool], OpenKey], *, has_all: bool = False) -> None:
        self._look = look
        self._has_all = has_all
        self._lock = threading.Lock()
        self.opened = 0
        self.sealed = 0

    def is_done(self, text: str) -> bool:
        """Return whether a ciphertext is known to be of the latest version; no key is used."""
        key = self._look(False)
        version, rest = parted(text, "ciphertext")
        latest = key.versions.get(key.latest)
        if latest is None or version != key.latest:
            return False
        if self._has_all:
            return True
        blob = sealed_bytes(rest) if key.record.type.is_symmetric else b""
        return len(blob) >= OVERHEAD and blob[2:10] == latest.id.to_bytes(8, "big")

    def decrypt(self, items: Sequence[TransitItem]) -> list[bytes | KMSError]:
        """Return for each ciphertext its plaintext or the error that is its own."""
        found = self._each(items, _opened)
        self._count(opened=len(found))
        return found

    def encrypt(self, items: Sequence[TransitItem]) -> list[str | KMSError]:
        """Return for each plaintext its ciphertext or the error that is its own."""
        found = self._each(items, _sealed)
        self._count(sealed=len(found))
        return found

    def _each(self, items: Sequence[TransitItem], do: Callable[[OpenKey, TransitItem], T]) -> list[T | KMSError]:
        key = self._look(False)
        key.require_usable()
        found: list[T | KMSError] = []
        for item in items:
            try:
                try:
                    found.append(do(key, item))
                except TooNewError:
                    key = self._look(True)
                    found.append(do(key, item))
            except KMSError as exc:
                found.append(exc)
        return found

    def _count(self, *, opened: int = 0, sealed: int = 0) -> None:
        with self._lock:
            self.opened += opened
            self.sealed += sealed


@dataclass(frozen=True, slots=True)
class Move:
    """From where to where, and what is bound to every ciphertext; a column may say more, see ``RowMover``."""

    source: TransitEnd
    target: TransitEnd
    context: bytes = b""
    associated_data: bytes = b""

    def of(self, items: Sequence[TransitItem]) -> list[str | KMSError | None]:
        """Return for each ciphertext its new text, None where it was moved before, or why it cannot be.

        Raises:
            KMSError: what concerns all of them, or has a passing reason: a server without an answer.
        """
        opened: dict[int, bytes | KMSError] = dict(enumerate(self.source.decrypt(items) if items else []))
        results: list[str | KMSError | None] = [None] * len(items)
        strange = {at: each for at, each in opened.items() if isinstance(each, KMSError)}
        _raise_passing(strange.values())
        if strange and self.source is not self.target:
            known = self.target.decrypt([items[at] for at in strange])
            strange = {
                at: error
                for (at, error), each in zip(strange.items(), known, strict=True)
                if isinstance(each, KMSError)
            }
        for at, error in strange.items():
            results[at] = error
        plain = {at: each for at, each in opened.items() if isinstance(each, bytes)}
        sealed = self.target.encrypt([replace(items[at], value=each) for at, each in plain.items()]) if plain else []
        for at, text in zip(plain, sealed, strict=True):
            results[at] = text
        _raise_passing(each for each in sealed if isinstance(each, KMSError))
        return results


class RowMover:
    """Decides and does the cryptography for rows of one column; ``keystead.fields.sealing.WorksOnRows``.

    Args:
        layout: where the columns stand; the first of the record's is that of contexts, then that of associated data, of
            those that ``by_row`` names.
        by_row: of ``context`` and ``associated_data``, what each row has in a column of its own, as text in UTF-8.
    """

    has_tokens = False

    def __init__(self, move: Move, layout: RowLayout, by_row: Sequence[str] = ()) -> None:
        self._move = move
        self._at = layout
        self._by_row = dict(zip(by_row, layout.record, strict=False))

    def work_on(self, rows: Sequence[Row], tokens: Mapping[object, set[bytes]] | None = None) -> Work:
        """Return what the rows need; errors as ``Move.of``."""
        work, waiting, items = Work(), list[Row](), list[TransitItem]()
        for row in rows:
            value = row[self._at.ciphertext]
            if value is None:
                work.skipped += 1
                continue
            try:
                item = self._item(row)
                if self._move.target.is_done(item.value.decode("ascii")):
                    work.skipped += 1
                    continue
            except (InvalidInputError, InvalidCiphertextError) as exc:
                work.failures.append((row[: self._at.key], exc.code))
                continue
            waiting.append(row)
            items.append(item)
        for row, result in zip(waiting, self._move.of(items), strict=True):
            if result is None:
                work.skipped += 1
            elif isinstance(result, KMSError):
                work.failures.append((row[: self._at.key], result.code))
            elif self._at.limit is not None and len(result) > self._at.limit:
                work.failures.append((row[: self._at.key], COLUMN_TOO_SHORT))
            else:
                work.changes.append(self._change(row, result))
        return work

    def _item(self, row: Row) -> TransitItem:
        value = row[self._at.ciphertext]
        if isinstance(value, bytearray | memoryview):
            value = bytes(value)
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        if not isinstance(raw, bytes) or not is_transit_text(raw):
            raise InvalidCiphertextError("a row holds something else than a text of Transit")
        bound = {"context": self._move.context, "associated_data": self._move.associated_data}
        bound |= {name: _bound(row[place]) for name, place in self._by_row.items()}
        return TransitItem(raw, **bound)

    def _change(self, row: Row, text: str) -> RowChange:
        old = row[self._at.ciphertext]
        bound = tuple(row[place] for place in self._at.bound)
        if isinstance(old, str):
            return RowChange(row[: self._at.key], old, text, bound=bound)
        return RowChange(row[: self._at.key], bytes(old), text.encode("ascii"), bound=bound)


def moved_lines(move: Move, lines: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield lines with every ``vault:vN:`` text in them moved, and how many of each were.

    Raises:
        InvalidInputError: one cannot be; the message names its line.
        KMSError: as ``Move.of``.
    """
    numbered = enumerate(lines, 1)
    while part := [*islice(numbered, TEXTS_AT_ONCE)]:
        found = [(number, match) for number, line in part for match in _TEXT.finditer(line)]
        new: dict[tuple[int, int], bytes] = {}
        for at in range(0, len(found), TEXTS_AT_ONCE):
            new |= _moved(move, found[at : at + TEXTS_AT_ONCE])
        for number, line in part:
            pieces, end, count = [], 0, 0
            for match in _TEXT.finditer(line):
                text = new.get((number, match.start()))
                pieces += [line[end : match.start()], match[0] if text is None else text]
                count += text is not None
                end = match.end()
            yield b"".join([*pieces, line[end:]]), count


def _moved(move: Move, found: Sequence[tuple[int, re.Match[bytes]]]) -> dict[tuple[int, int], bytes]:
    waiting = []
    for number, match in found:
        if not is_transit_text(match[0]):
            raise InvalidInputError(f"line {number}: what begins as a text of Transit is none, or not all of one")
        if not move.target.is_done(match[0].decode("ascii")):
            waiting.append((number, match))
    items = [TransitItem(match[0], move.context, move.associated_data) for _, match in waiting]
    new = {}
    for (number, match), result in zip(waiting, move.of(items), strict=True):
        if isinstance(result, KMSError):
            raise InvalidInputError(f"line {number}: a ciphertext cannot be moved: {result}")
        if result is not None:
            new[number, match.start()] = result.encode("ascii")
    return new


def _opened(key: OpenKey, item: TransitItem) -> bytes:
    return encrypting.decrypt(key, item.value.decode("ascii"), context=item.context or None, aad=item.associated_data)


def _sealed(key: OpenKey, item: TransitItem) -> str:
    return encrypting.encrypt(key, item.value, context=item.context or None, aad=item.associated_data)[0]


def _bound(value: object) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return str(value).encode()


def _raise_passing(errors: Iterable[KMSError]) -> None:
    for each in errors:
        if each.retryable:
            raise each
