"""A value against a JSON schema, as far as schemas of ours go: further members are problems as well."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


class Schema:
    """The JSON schema in a file."""

    def __init__(self, path: Path) -> None:
        self._root: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))

    def problems(self, value: object) -> list[str]:
        """Return what a value has that the schema does not allow, or does not know."""
        return list(self._problems(value, self._root, "$"))

    def _problems(self, value: object, schema: dict[str, Any], where: str) -> Iterator[str]:
        if reference := schema.get("$ref"):
            schema = schema | self._root["$defs"][reference.rpartition("/")[2]]
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if kinds and (isinstance(value, bool) or not any(isinstance(value, _TYPES[kind]) for kind in kinds)):
            yield f"{where} is no {kinds}"
        elif isinstance(value, dict):
            yield from self._members(value, schema, where)
        elif isinstance(value, list):
            if len(value) > schema.get("maxItems", len(value)):
                yield f"{where} is too long"
            for number, each in enumerate(value):
                yield from self._problems(each, schema["items"], f"{where}[{number}]")
        elif not _is_allowed(value, schema):
            yield f"{where} is out of range"

    def _members(self, value: dict[str, object], schema: dict[str, Any], where: str) -> Iterator[str]:
        yield from (f"{where}.{name} is missing" for name in schema["required"] if name not in value)
        for name, each in value.items():
            if name in schema["properties"]:
                yield from self._problems(each, schema["properties"][name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is unknown"


def _is_allowed(value: object, schema: dict[str, Any]) -> bool:
    if isinstance(value, int | float):
        is_above = "exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"]
        return is_above and bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, str):
        return value in schema.get("enum", [value]) and re.search(schema.get("pattern", ""), value) is not None
    return value is None
