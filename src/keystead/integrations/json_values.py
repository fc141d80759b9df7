"""Values of an application as JSON can hold them, whatever they are."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

_MAX_DEPTH: Final = 100
_MAX_BITS: Final = 4096


def plain(value: object) -> Any:
    """Return a value that JSON holds; what it has no form for stands as text, and what raises as its type's name.

    What holds itself, or is too deep, stands as ``...`` there.
    """
    return _plain(value, frozenset())


def _plain(value: object, around: frozenset[int]) -> Any:
    """Return a value within containers of the ids ``around``; of one that holds itself twice none sees the end."""
    if len(around) > _MAX_DEPTH or id(value) in around:
        return "..."
    try:
        return _held(value, around)
    except Exception:
        return f"<{type(value).__name__}>"


def _held(value: object, around: frozenset[int]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _MAX_BITS else hex(value)
    if isinstance(value, float):
        return float(value) if isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {_text(key): _plain(member, around | {id(value)}) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(member, around | {id(value)}) for member in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    return _text(value)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"
