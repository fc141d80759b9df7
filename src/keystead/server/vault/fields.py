"""Parameters of the engine's requests, taken as Vault takes them: loosely, and refused in its words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from keystead.errors import InvalidInputError
from keystead.transit import base64_text

CHECKED: Final = "Field validation failed: "
"""What stands before a refusal, but for those of paths that make a key where there is none."""
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"", "0", "f", "F", "FALSE", "false", "False"})
_LARGEST: Final = 2**63 - 1
_MOST_S: Final = _LARGEST // 10**9
"""Seconds that can be counted in nanoseconds."""
_UNIT_S: Final = {
    "ns": "1e-9",
    "us": "1e-6",
    "µs": "1e-6",
    "μs": "1e-6",
    "ms": "1e-3",
    "s": "1",
    "m": "60",
    "h": "3600",
}
_WHOLE: Final = re.compile(r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|0|[1-9](?:_?[0-9])*)")
"""Whole numbers as in Go's source: one that begins with 0 and has no letter is octal."""
_DURATION_PART: Final = re.compile(r"([0-9]*\.?[0-9]*)([^0-9.]*)")
_SECONDS: Final = re.compile(r"[0-9]{1,18}")
_DAYS: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def kind_of(value: object) -> str:
    """Return what Go calls the type of a JSON value."""
    if isinstance(value, bool):
        return "bool"
    for kind, name in (
        (str, "string"),
        ((int, float), "json.Number"),
        (list, "[]interface {}"),
        (dict, "map[string]interface {}"),
    ):
        if isinstance(value, kind):
            return name
    return "<nil>"


def is_no_whole(value: object) -> bool:
    """Whether a JSON value is a number, but none that a whole number of Go can be."""
    return isinstance(value, float) or (isinstance(value, int) and not -_LARGEST - 1 <= value <= _LARGEST)


class Fields:
    """The parameters of one request.

    Args:
        prefix: of refusals.
    """

    __slots__ = ("_body", "_prefix")

    def __init__(self, body: Mapping[str, Any], prefix: str = CHECKED) -> None:
        self._body = body
        self._prefix = prefix

    def has(self, name: str) -> bool:
        """Whether a parameter was given and is not null."""
        return self._body.get(name) is not None

    def names(self, name: str) -> bool:
        """Whether a parameter was given, null or not."""
        return name in self._body

    def raw(self, name: str) -> Any:
        """Return what was given as it is."""
        return self._body.get(name)

    def text(self, name: str, default: str = "") -> str:
        """Return a text; of a number or truth value its spelling."""
        value = self._body.get(name)
        if value.__class__ is str:
            return str(value)
        if value is None:
            return default if name not in self._body else ""
        if isinstance(value, bool):
            return "1" if value else "0"
        if isinstance(value, int | float):
            return str(value)
        raise self._refusal(name, f"'' expected type 'string', got unconvertible type '{kind_of(value)}'")

    def number(self, name: str, default: int = 0) -> int:
        """Return a whole number; of a text what it spells, of a truth value 1 or 0."""
        value = self._body.get(name)
        if value is None:
            return default if name not in self._body else 0
        if isinstance(value, bool | int):
            found = int(value)
        elif isinstance(value, str):
            if not _WHOLE.fullmatch(value or "0"):
                raise self._no_number(name)
            found = _whole(value or "0")
        elif isinstance(value, float):
            raise self._no_number(name)
        else:
            raise self._refusal(name, f"'' expected type 'int', got unconvertible type '{kind_of(value)}'")
        if not -_LARGEST <= found <= _LARGEST:
            raise self._refusal(name, "'' cannot parse value as 'int': strconv.ParseInt: value out of range")
        return found

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a truth value; of a text or a number what it spells."""
        value = self._body.get(name)
        if value is None:
            return default if name not in self._body else False
        if isinstance(value, bool):
            return value
        if isinstance(value, str | int | float):
            if str(value) in _TRUE:
                return True
            if str(value) in _FALSE:
                return False
            raise self._refusal(name, "'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax")
        raise self._refusal(name, f"'' expected type 'bool', got unconvertible type '{kind_of(value)}'")

    def seconds(self, name: str) -> int:
        """Return a time in seconds: a number of them, or a text such as ``90m`` or ``30d``."""
        value = self._body.get(name)
        if value is None or value == "":
            return 0
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._refusal(name, "could not parse duration from input")
        found = value if isinstance(value, int) else self._duration(name, str(value))
        if abs(found) > _MOST_S:
            is_plain = _SECONDS.fullmatch(str(value).removeprefix("-")) and abs(found) <= _LARGEST
            overflow = "multiplication of durations resulted in overflow, one operand may be too large"
            raise self._refusal(name, overflow if is_plain else f'time: invalid duration "{str(value)[:100]}"')
        if found < 0:
            raise self._refusal(name, f"cannot provide negative value '{found}'")
        return found

    def base64(self, name: str, told: str = "") -> bytes:
        """Return the bytes of a text in base64; ``told`` stands before what is wrong with it.

        Raises:
            InvalidInputError: it is none.
        """
        return decoded(self.text(name), told)

    def _duration(self, name: str, text: str) -> int:
        if _SECONDS.fullmatch(text):
            return int(text)
        if text.startswith("-") and _SECONDS.fullmatch(text[1:]):
            return int(text)
        if text.endswith("d") and _DAYS.fullmatch(text[:-1]):
            return int(Decimal(text[:-1]) * 86400)
        sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
        total = Decimal(0)
        if not rest:
            raise self._refusal(name, f'time: invalid duration "{text}"')
        while rest:
            part = _DURATION_PART.match(rest)
            amount, unit = part.groups() if part else ("", "")
            if amount in ("", "."):
                raise self._refusal(name, f'time: invalid duration "{text}"')
            if not unit:
                raise self._refusal(name, f'time: missing unit in duration "{text}"')
            if unit not in _UNIT_S:
                raise self._refusal(name, f'time: unknown unit "{unit}" in duration "{text}"')
            total += Decimal(amount) * Decimal(_UNIT_S[unit])
            rest = rest[len(amount) + len(unit) :]
        return sign * int(total)

    def _no_number(self, name: str) -> InvalidInputError:
        return self._refusal(name, "'' cannot parse value as 'int': strconv.ParseInt: invalid syntax")

    def _refusal(self, name: str, why: str) -> InvalidInputError:
        return InvalidInputError(f'{self._prefix}error converting input for field "{name}": {why}')


def _whole(text: str) -> int:
    digits = text.lstrip("+-").replace("_", "").lower()
    is_octal = digits.startswith("0") and digits.isdigit()
    found = int(digits, 8 if is_octal else 0)
    return -found if text.startswith("-") else found


def decoded(text: str, told: str = "") -> bytes:
    """Return the bytes of base64; errors as ``Fields.base64``."""
    try:
        return base64_text.decode(text)
    except InvalidInputError as exc:
        if not told:
            raise
        raise InvalidInputError(told + str(exc)) from None
