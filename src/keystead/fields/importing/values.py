"""Plaintexts of other systems as values of a field's type."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Final

from keystead.crypto.codec import ValueType
from keystead.errors import InvalidInputError
from keystead.fields.plaintext import from_column

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,4000}", re.ASCII)
_TRUTH: Final[Mapping[str, bool]] = {"true": True, "false": False, "1": True, "0": False, "t": True, "f": False}


def value_of(opened: object, kind: ValueType) -> object:
    """Return a plaintext as a value of type ``kind``: bytes as they are for bytes, as UTF-8 text for all others.

    Numbers, dates and times, UUIDs, truth values and JSON are read from the texts that ORMs write them as. A time
    without a zone is taken as UTC.

    Raises:
        InvalidInputError: it stands for no such value.
    """
    if kind is ValueType.BYTES:
        return opened.encode() if isinstance(opened, str) else opened
    if isinstance(opened, bytes):
        try:
            opened = opened.decode()
        except UnicodeDecodeError:
            raise InvalidInputError("what was opened is no text; declare the field with type bytes") from None
    if not isinstance(opened, str):
        return from_column(opened, kind)
    read = _READERS.get(kind)
    if read is None:
        return from_column(opened, kind)
    try:
        return read(opened)
    except (ValueError, KeyError, RecursionError):
        raise InvalidInputError(f"what was opened is no {kind.name.lower()}") from None


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError
    return int(text)


_READERS: Final[Mapping[ValueType, Callable[[str], object]]] = {
    ValueType.TEXT: str,
    ValueType.INTEGER: _integer,
    ValueType.FLOAT: float,
    ValueType.BOOL: lambda text: _TRUTH[text.lower()],
    ValueType.JSON: json.loads,
}
