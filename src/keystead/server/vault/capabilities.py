"""``/v1/sys/capabilities-self``: what the token of the request may do at paths, in the words of Vault's policies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.routing import compile_path

from keystead.access.callers import Caller
from keystead.access.transit_scopes import TransitOperation as Op
from keystead.errors import InvalidInputError
from keystead.server.rest.paths import register_names
from keystead.server.vault.answers import VaultAnswer, VaultRefusalError, many
from keystead.server.vault.fields import Fields
from keystead.server.vault.request import VaultPath, VaultRequest, Verb, Way

DENIED: Final = "deny"
_WORDS: Final = {Verb.READ: "read", Verb.WRITE: "update", Verb.LIST: "list", Verb.DELETE: "delete"}
_ENCRYPT: Final = "/transit/encrypt/"


class Capabilities:
    """Tells them of some paths; of any other one it tells ``deny``."""

    def __init__(self, paths: Sequence[VaultPath]) -> None:
        register_names()
        self._paths = [(compile_path(path.template)[0], path) for path in paths]

    async def __call__(self, request: VaultRequest) -> VaultAnswer:
        """Tell the capabilities at ``paths``."""
        fields = Fields(request.body)
        asked = _texts(fields, "paths") or _texts(fields, "path")
        if not asked:
            raise InvalidInputError("paths must be supplied")
        if not all(asked):
            raise VaultRefusalError(400, many("missing path"))
        told: dict[str, Any] = {path: self.of(request.caller, path) for path in asked}
        if len(asked) == 1:
            told["capabilities"] = told[asked[0]]
        return VaultAnswer(told, beside=told)

    def of(self, caller: Caller, path: str) -> list[str]:
        """Return what a caller may do at a path, in the order of the alphabet."""
        whole = f"/{path.lstrip('/')}"
        for pattern, known in self._paths:
            if (found := pattern.match(whole)) is not None:
                return sorted(_at(known, caller, found.groupdict().get("name", ""))) or [DENIED]
        return [DENIED]

    @property
    def path(self) -> VaultPath:
        """Where it answers."""
        return VaultPath("/sys/capabilities-self", write=Way(self, fields=frozenset({"path", "paths"})))


def _at(path: VaultPath, caller: Caller, name: str) -> set[str]:
    if path.template.startswith(_ENCRYPT):
        # One way with two rights: of a key that is there, and of one that encrypting makes.
        rights = {"update": Op.ENCRYPT, "create": Op.CREATE}
        return {word for word, right in rights.items() if caller.may_transit(right, name)}
    ways = {verb: way for verb in Verb if isinstance(way := path.way(verb), Way)}
    words = {
        _WORDS[verb] for verb, way in ways.items() if way.operation is None or caller.may_transit(way.operation, name)
    }
    return words | ({"create"} if "update" in words and ways[Verb.WRITE].operation is Op.CREATE else set())


def _texts(fields: Fields, name: str) -> list[str]:
    """Return a parameter that is a list of texts, or one text with commas in it."""
    given = fields.raw(name)
    if not isinstance(given, list):
        return [each for each in re.split(r"\s*,\s*", fields.text(name).strip()) if each]
    return [Fields({name: each}).text(name).strip() for each in given]
