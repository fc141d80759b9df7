"""Reading a pickle that holds nothing but a plain value, without running anything of it.

Its instructions are followed here, one after the other, and only those that build texts, bytes, numbers, truth values,
dates, times, decimals, UUIDs, lists, tuples and dicts are known. Any other is an error; no name in it is imported.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

_MARK: Final = object()
_PLAIN: Final = frozenset(
    {
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "SHORT_BINBYTES",
        "BINBYTES",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
    }
)
_CONSTANTS: Final[Mapping[str, object]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CALLABLE: Final[Mapping[tuple[str, str], Callable[..., object]]] = {
    ("datetime", "date"): date,
    ("datetime", "datetime"): datetime,
    ("datetime", "timedelta"): timedelta,
    ("datetime", "timezone"): timezone,
    ("decimal", "Decimal"): Decimal,
}


MOST_DEEP: Final = 100
"""How many containers may be within each other."""


class _NewUuid:
    """A UUID whose number is still to come."""


class _Named:
    """What a pickle named, and may call."""

    def __init__(self, made: Callable[..., object]) -> None:
        self.made = made


class PlainPickle:
    """Follows the instructions of one pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: list[Any] = []

    @classmethod
    def value_of(cls, content: bytes) -> object:
        """Return the value.

        Raises:
            ValueError: anything but a plain value.
        """
        machine = cls()
        try:
            for opcode, argument, _ in pickletools.genops(content):
                machine._do(opcode.name, argument)
            [value] = machine._stack
            _require_values(value)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, InvalidOperation, RecursionError):
            raise ValueError("the pickle holds more than a plain value") from None
        return value

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PLAIN:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MEMOIZE":
            self._memo.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            known = self._memo[argument]
            if isinstance(known, list | dict | tuple):
                # A value that holds itself, or another over and over, is larger than it looks.
                raise ValueError
            stack.append(known)
        elif name not in ("PROTO", "FRAME", "STOP"):
            _STEPS[name](self)

    def _until_mark(self) -> list[Any]:
        place = max(at for at, each in enumerate(self._stack) if each is _MARK)
        taken = self._stack[place + 1 :]
        del self._stack[place:]
        return taken

    def _tuple(self, size: int) -> None:
        if len(self._stack) < size:
            raise ValueError
        taken = tuple(self._stack[len(self._stack) - size :])
        del self._stack[len(self._stack) - size :]
        self._stack.append(taken)

    def _set(self, pairs: list[Any]) -> None:
        held: dict[Any, Any] = self._stack[-1]
        if held.__class__ is not dict or len(pairs) % 2:
            raise ValueError
        held.update(zip(pairs[::2], pairs[1::2], strict=True))

    def _append(self, items: list[Any]) -> None:
        held: list[Any] = self._stack[-1]
        if held.__class__ is not list:
            raise ValueError
        held.extend(items)

    def _global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_Named(UUID if (module, name) == ("uuid", "UUID") else _CALLABLE[module, name]))

    def _call(self) -> None:
        given, made = self._stack.pop(), self._stack.pop()
        if not isinstance(made, _Named) or made.made is UUID or given.__class__ is not tuple:
            raise ValueError
        self._stack.append(made.made(*given))

    def _new(self) -> None:
        given, made = self._stack.pop(), self._stack.pop()
        if given != () or not isinstance(made, _Named) or made.made is not UUID:
            raise ValueError
        self._stack.append(_NewUuid())

    def _build(self) -> None:
        state, new = self._stack.pop(), self._stack.pop()
        if not isinstance(new, _NewUuid) or state.__class__ is not dict:
            raise ValueError
        self._stack.append(UUID(int=state["int"]))


_STEPS: Final[Mapping[str, Callable[[PlainPickle], None]]] = {
    "MARK": lambda machine: machine._stack.append(_MARK),
    "EMPTY_DICT": lambda machine: machine._stack.append({}),
    "EMPTY_LIST": lambda machine: machine._stack.append([]),
    "EMPTY_TUPLE": lambda machine: machine._tuple(0),
    "TUPLE1": lambda machine: machine._tuple(1),
    "TUPLE2": lambda machine: machine._tuple(2),
    "TUPLE3": lambda machine: machine._tuple(3),
    "TUPLE": lambda machine: machine._stack.append(tuple(machine._until_mark())),
    "SETITEM": lambda machine: machine._set([machine._stack.pop(-2), machine._stack.pop()]),
    "SETITEMS": lambda machine: machine._set(machine._until_mark()),
    "APPEND": lambda machine: machine._append([machine._stack.pop()]),
    "APPENDS": lambda machine: machine._append(machine._until_mark()),
    "STACK_GLOBAL": PlainPickle._global,
    "REDUCE": PlainPickle._call,
    "NEWOBJ": PlainPickle._new,
    "BUILD": PlainPickle._build,
}


def _require_values(value: object) -> None:
    """Raise ``ValueError`` where something is left in a value that is none, or it is nested too deep."""
    waiting = [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        if each is _MARK or isinstance(each, _NewUuid | _Named) or depth > MOST_DEEP:
            raise ValueError
        if isinstance(each, dict):
            waiting += [(one, depth + 1) for pair in each.items() for one in pair]
        elif isinstance(each, list | tuple):
            waiting += [(one, depth + 1) for one in each]
