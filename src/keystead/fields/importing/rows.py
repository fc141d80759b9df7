"""The values of another system in a batch of rows: opened together, and then given row by row."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from keystead.crypto.codec import ValueType
from keystead.errors import KMSError
from keystead.fields.importing.reading import Importer, as_stored
from keystead.ports.rows import Row, RowLayout

T = TypeVar("T")
Ask = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine on the event loop of the manager, and waits for its result."""


class ForeignValues:
    """What a batch's rows hold in the form of an importer; for one thread at a time."""

    def __init__(self, importer: Importer, kind: ValueType, ask: Ask) -> None:
        self._importer = importer
        self._kind = kind
        self._ask = ask
        self._is_in_place = False
        self._opened: dict[bytes, object | KMSError] = {}

    def open(self, rows: Sequence[Row], layout: RowLayout) -> None:
        """Open what the rows hold.

        Raises:
            ImportEndedError: the end has come.
            KMSError: what concerns no single row: a service cannot be asked.
        """
        self._importer.require_open()
        found = [row[layout.ciphertext if layout.plaintext is None else layout.plaintext] for row in rows]
        self._is_in_place = layout.plaintext is None
        if self._is_in_place:
            found = [value for value in found if self._importer.recognises(value)]
        wanted = [*dict.fromkeys(raw for value in found if (raw := _stored(value)) is not None)]
        if self._importer.is_remote:
            opened = self._ask(self._importer.fetch_many(wanted, kind=self._kind))
        else:
            opened = self._importer.read_many(wanted, kind=self._kind)
        self._opened = dict(zip(wanted, opened, strict=True))

    def holds(self, value: object) -> bool:
        """Return whether what stands in the column of ciphertexts has the other system's form."""
        return self._is_in_place and _stored(value) in self._opened

    def value_of(self, value: object) -> object:
        """Return the value that a row has in the other system's form.

        Raises:
            DecryptionError, InvalidInputError: as ``Importer.read``.
        """
        found = self._opened[as_stored(value)]
        if isinstance(found, KMSError):
            raise found
        return found


def _stored(value: object) -> bytes | None:
    """Return a value as bytes; None for what is none, of which ``value_of`` says why."""
    try:
        return None if value is None else as_stored(value)
    except KMSError:
        return None
