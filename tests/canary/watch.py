"""Watching for key bytes where they must never be.

A ``SecretWatch`` learns every key that a ``LoadedKey`` or a ``SecretBytes`` is made with, and finds them again in text
or in bytes: raw, as hex, as base64 of both alphabets, and as the repr of a bytes object.
"""

from __future__ import annotations

import ast
import base64
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from keystead.crypto.snapshot import LoadedKey
from keystead.model import SecretBytes

Known: TypeAlias = dict[int, set[Any]]
"""Forms of keys, by their length."""

SHORTEST = 16
"""Shorter ones are no keys."""

_HEX = re.compile(r"[0-9A-Fa-f]{32,}")
_BASE64 = re.compile(r"[0-9A-Za-z+/_-]{22,}")
_LITERAL = re.compile(r"""b'(?:[^'\\]|\\.)+'|b"(?:[^"\\]|\\.)+\"""")
_SUSPECT = re.compile(r"""[0-9A-Za-z+/_-]{22,}|b'|b\"""")
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class SecretWatch(logging.Handler):
    """Collects keys, and what every logger said; ``hits`` names what of the keys is in it."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.records = 0
        self._keys: set[bytes] = set()
        self._said: dict[str, str] = {}
        self._index: tuple[Known, Known, Known] = ({}, {}, {})
        self._indexed = 0
        self._formatter = logging.Formatter("%(message)s")

    def learn(self, key: bytes | bytearray) -> None:
        """Watch for ``key``, unless it is too short, or all zeros."""
        if len(key) >= SHORTEST and any(key):
            self._keys.add(bytes(key))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what ``record`` says, traceback and extra fields included, if it could hold a key at all."""
        self.records += 1
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        # The formatter caches a traceback in the record, which is other handlers' too.
        cached = record.exc_text
        said = f"{self._formatter.format(record)} {extra or ''}"
        record.exc_text = cached
        if _SUSPECT.search(said):
            self._said.setdefault(said, record.name)

    def hits(self) -> list[str]:
        """Return the logger's name and what was found, for everything that was said."""
        return [f"logger {name}: {found}" for said, name in self._said.items() for found in self.find(said)]

    def find(self, text: str) -> list[str]:
        """Return which forms of a key are in ``text``; never the key."""
        hexes, base64s, raws = self._known()
        found = []
        if any(_has_any(run.lower(), hexes) for run in _HEX.findall(text)):
            found.append("hex")
        if any(_has_any(run.translate(_TO_URL_SAFE), base64s) for run in _BASE64.findall(text)):
            found.append("base64")
        if any(_has_any(literal, raws) for literal in _literals(text)):
            found.append("repr")
        return found

    def find_in_bytes(self, data: bytes) -> list[str]:
        """Return which forms of a key are in ``data``, a file's content for example."""
        raw = ["raw"] if any(key in data for key in self._keys) else []
        return [*raw, *self.find(data.decode("latin-1"))]

    def _known(self) -> tuple[Known, Known, Known]:
        if len(self._keys) != self._indexed:
            self._indexed = len(self._keys)
            self._index = (
                _by_length(key.hex() for key in self._keys),
                _by_length(_base64(key) for key in self._keys),
                _by_length(self._keys),
            )
        return self._index


@contextmanager
def learning(watch: SecretWatch) -> Iterator[None]:
    """Tell ``watch`` every key made while the block runs."""
    loaded = LoadedKey.__init__
    made_by = SecretBytes.__dict__.get("__new__", bytes.__new__)

    def init(self: LoadedKey, *args: Any, **kwargs: Any) -> None:
        loaded(self, *args, **kwargs)
        watch.learn(self.key)

    def new(cls: type[SecretBytes], *args: Any) -> SecretBytes:
        made: SecretBytes = made_by(cls, *args)
        watch.learn(made)
        return made

    LoadedKey.__init__ = init  # type: ignore[method-assign]
    SecretBytes.__new__ = new  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        LoadedKey.__init__ = loaded  # type: ignore[method-assign]
        if made_by is bytes.__new__:
            del SecretBytes.__new__
        else:
            SecretBytes.__new__ = made_by  # type: ignore[method-assign]


@contextmanager
def listening(watch: SecretWatch, *levels: tuple[str, int]) -> Iterator[None]:
    """Let ``watch`` hear every logger, at the given levels (a logger's name and its level)."""
    before = {name: logging.getLogger(name).level for name, _ in levels}
    for name, level in levels:
        logging.getLogger(name).setLevel(level)
    logging.getLogger().addHandler(watch)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(watch)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


_TO_URL_SAFE = str.maketrans("+/", "-_")


def _base64(key: bytes) -> str:
    """Return the part of the encoding that depends on the key alone, whatever follows it."""
    return base64.urlsafe_b64encode(key).decode()[: len(key) * 8 // 6]


def _literals(text: str) -> Iterator[bytes]:
    for literal in _LITERAL.findall(text):
        with suppress(SyntaxError, ValueError):
            yield ast.literal_eval(literal)


def _by_length(values: Iterable[Any]) -> Known:
    known: dict[int, set[Any]] = defaultdict(set)
    for value in values:
        known[len(value)].add(value)
    return known


def _has_any(run: Any, known: Known) -> bool:
    return any(
        run[start : start + length] in values
        for length, values in known.items()
        for start in range(len(run) - length + 1)
    )
