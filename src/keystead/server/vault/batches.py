"""``batch_input``: many items in one request, each answered for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from keystead.errors import DecryptionError, InvalidInputError
from keystead.server.vault.answers import VaultAnswer
from keystead.server.vault.fields import Fields, is_no_whole, kind_of

EMPTY: Final = "missing batch input to process"
_UNREADABLE: Final = "failed to parse batch input: "
_SEVERAL: Final = "decoding failed due to the following error(s):\n\n"
_OVERRIDE: Final = "partial_failure_response_code"
_ANSWERS: Final = frozenset(range(200, 600)) - {204, 205, 304}
"""Statuses of answers that have a body."""


def batch_of(fields: Fields) -> list[Mapping[str, Any]] | None:
    """Return the items of a request; None where it has none.

    Raises:
        InvalidInputError: an empty list, or something else than a list of objects.
    """
    given = fields.raw("batch_input")
    if given is None:
        return None
    if not isinstance(given, list):
        raise InvalidInputError(f"{_UNREADABLE}source data must be an array or slice, got {kind_of(given)}")
    if not given:
        raise InvalidInputError(EMPTY)
    for place, item in enumerate(given):
        if not isinstance(item, dict):
            raise InvalidInputError(f"{_UNREADABLE}[{place}] expected a map, got '{kind_of(item)}'")
    return given


def texts_of(fields: Fields, kind: str) -> list[dict[str, str]] | None:
    """Return the items of a request whose members are all text, or numbers read as such; None where it has none.

    Args:
        kind: what Vault calls such an item.

    Raises:
        InvalidInputError: an empty list, or something else than a list of such objects.
    """
    given = _loose_list(fields)
    if given is None:
        return None
    items, wrong = list[dict[str, str]](), list[str]()
    for place, item in enumerate(given):
        if item is not None and not isinstance(item, dict):
            wrong.append(f"'[{place}]' {_expected(f'transit.{kind}', item)}")
            continue
        texts: dict[str, str] = {}
        for name, value in (item or {}).items():
            if isinstance(value, list | dict | bool):
                wrong.append(f"'[{place}][{name}]' {_expected('string', value)}")
            else:
                texts[name] = "" if value is None else str(value)
        items.append(texts)
    if wrong:
        raise InvalidInputError(_UNREADABLE + _SEVERAL + "\n".join(wrong))
    return items


def loose_batch_of(fields: Fields, texts: Sequence[str], numbers: Sequence[str]) -> list[Mapping[str, Any]] | None:
    """Return the items of a request whose texts may be numbers, read as such, and which may be null; else None.

    Args:
        texts, numbers: names of members, any of which may be null.

    Raises:
        InvalidInputError: an empty list, or something else than a list of such objects.
    """
    given = _loose_list(fields)
    if given is None:
        return None
    items, wrong = list[Mapping[str, Any]](), list[str]()
    for place, item in enumerate(given):
        if item is not None and not isinstance(item, dict):
            kind = {bool: "bool", list: "slice"}.get(type(item), "string")
            wrong.append(f"'[{place}]' expected a map or struct, got \"{kind}\"")
            continue
        read: dict[str, Any] = {}
        for name, value in (item or {}).items():
            if name in texts and isinstance(value, bool | list | dict):
                wrong.append(f"'[{place}].{name}' {_expected('string', value)}")
            elif name in numbers and is_no_whole(value):
                told = "value out of range" if isinstance(value, int) else "invalid syntax"
                told = f'strconv.ParseInt: parsing "{value}": {told}'
                wrong.append(f"'[{place}].{name}' cannot parse value as 'int': {told}")
            elif name in numbers and isinstance(value, bool | list | dict | str):
                wrong.append(f"'[{place}].{name}' {_expected('int', value)}")
            else:
                read[name] = str(value) if name in texts and isinstance(value, int | float) else value
        items.append(read)
    if wrong:
        raise InvalidInputError(_UNREADABLE + _SEVERAL + "\n".join(wrong))
    return items


def require_members(
    items: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    numbers: Sequence[str] = (),
    *,
    needed: Mapping[str, str] | None = None,
    nullable: Sequence[str] = (),
) -> None:
    """Raise unless the members of items are of their types.

    Args:
        texts: names of members that are text.
        numbers: of those that are whole numbers.
        needed: of those that each item has, and what is said where one is missing.
        nullable: of texts that may be null.

    Raises:
        InvalidInputError: the message tells everything that is wrong, a line for each.
    """
    wrong = []
    for place, item in enumerate(items):
        for name in texts:
            value = item.get(name)
            if value.__class__ is str:
                continue
            if name not in item:
                if needed and name in needed:
                    wrong.append(f"'[{place}].{name}' {needed[name]}")
            elif value is not None or name not in nullable:
                wrong.append(f"'[{place}].{name}' {_expected('string', value)}")
        for name in numbers:
            value = item.get(name)
            if is_no_whole(value):
                told = f'strconv.ParseInt: parsing "{value}": invalid syntax'
                wrong.append(f"error decoding json.Number into [{place}].{name}: {told}")
            elif value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                wrong.append(f"'[{place}].{name}' {_expected('int', value)}")
    if wrong:
        raise InvalidInputError(_UNREADABLE + "\n".join(wrong))


class Results(list[dict[str, Any]]):
    """What is answered to the items of a batch, in their order.

    Attributes:
        failed: how many of them make the whole answer a failure.
    """

    failed = 0


class QuietRefusalError(InvalidInputError):
    """What an item is refused for, while the answer as a whole is no failure."""


def each(items: Sequence[Mapping[str, Any]], answer: Callable[[int, Mapping[str, Any]], dict[str, Any]]) -> Results:
    """Return what is answered to each item, with its reference; a refusal is told in its place."""
    results = Results()
    for place, item in enumerate(items):
        try:
            told = answer(place, item)
        except (InvalidInputError, DecryptionError) as exc:
            told = {"error": str(exc)}
            results.failed += not isinstance(exc, QuietRefusalError)
        told["reference"] = item.get("reference") or ""
        results.append(told)
    return results


def answered(results: Results, fields: Fields) -> VaultAnswer:
    """Return the answer to a batch that fails as a whole where an item fails: 400, or the code that was asked for."""
    data = {"batch_results": results}
    if not results.failed:
        return VaultAnswer(data)
    status, warnings = 400, []
    if fields.names(_OVERRIDE):
        wanted = fields.number(_OVERRIDE)
        if wanted not in _ANSWERS:
            warnings.append(f"invalid HTTP response code override from {_OVERRIDE}, reverting to 400")
        elif results.failed < len(results):
            status = wanted
    return VaultAnswer(data, status=status, warnings=warnings)


def _loose_list(fields: Fields) -> list[Any] | None:
    given = fields.raw("batch_input")
    if given is None:
        return None
    if not isinstance(given, list):
        kind = {bool: "bool", dict: "map"}.get(type(given), "string")
        raise InvalidInputError(f"{_UNREADABLE}'' source data must be an array or slice, got {kind}")
    if not given:
        raise InvalidInputError(EMPTY)
    return given


def _expected(kind: str, value: object) -> str:
    return f"expected type '{kind}', got unconvertible type '{kind_of(value)}'"
