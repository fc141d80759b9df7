"""``/v1/transit/hmac``, and what ``verify`` does with HMACs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from keystead.access.transit_scopes import TransitOperation as Op
from keystead.errors import InvalidInputError
from keystead.server.vault.answers import VaultAnswer
from keystead.server.vault.batches import each, texts_of
from keystead.server.vault.computing import looking_twice, run
from keystead.server.vault.fields import Fields, decoded
from keystead.server.vault.request import VaultPath, VaultRequest, Way
from keystead.transit import macs
from keystead.transit.digests import Hash
from keystead.transit.macs import Checker, Maker
from keystead.transit.opened import OpenKey

CAPTURED: Final = frozenset({"name", "urlalgorithm"})
NOT_BASE64: Final = "unable to decode input as base64: "
_NO_INPUT: Final = "missing input for HMAC"
_MADE: Final = frozenset({"input", "algorithm", "key_version", "batch_input"})


async def make(request: VaultRequest) -> VaultAnswer:
    """Tell the HMAC of one input or many."""
    fields = Fields(request.body)
    item = given(fields, "input")
    named, version = fields.text("algorithm", macs.DEFAULT), fields.number("key_version")
    algorithm = path_algorithm(request) or named
    key = await request.service.transit.keys.open(request.tenant, request.name)

    maker = await looking_twice(request, key, 0, lambda opened: macs.maker(opened, algorithm, version=version))
    items = texts_of(fields, "batchRequestHMACItem")

    def compute() -> list[Any]:
        return [_made(maker, item)] if items is None else each(items, lambda _, one: _made(maker, one))

    results = await run(key, _size(items or [item]), compute)
    await request.used(key, Op.HMAC, len(results))
    return VaultAnswer(results[0] if items is None else {"batch_results": results})


async def verify(
    request: VaultRequest, item: Mapping[str, str], items: Sequence[Mapping[str, str]] | None, function: Hash | None
) -> VaultAnswer:
    """Tell whether HMACs are those of their inputs; ``items`` of a batch, or the one ``item``."""
    key = await request.service.transit.keys.open(request.tenant, request.name)

    def compute(opened: OpenKey) -> list[Any]:
        checker = Checker(opened, function)
        if items is None:
            return [{"valid": _is_valid(checker, item)}]
        return each(items, lambda _, one: _told(checker, one))

    results = await looking_twice(request, key, _size(items or [item]), compute)
    await request.used(key, Op.VERIFY, len(results))
    return VaultAnswer(results[0] if items is None else {"batch_results": results})


def given(fields: Fields, *names: str) -> dict[str, str]:
    """Return those of some texts that a request has."""
    return {name: fields.text(name) for name in names if fields.names(name)}


def path_algorithm(request: VaultRequest) -> str:
    """Return the algorithm that the path names; empty where it names none.

    Raises:
        InvalidInputError: a path that ends where one should be.
    """
    named = request.params.get("algorithm")
    if named == "":
        raise InvalidInputError("cannot write to a path ending in '/'")
    return named or ""


def _made(maker: Maker, item: Mapping[str, str]) -> dict[str, Any]:
    if "input" not in item:
        raise InvalidInputError(_NO_INPUT)
    return {"hmac": maker.make(decoded(item["input"], NOT_BASE64))}


def _told(checker: Checker, item: Mapping[str, str]) -> dict[str, Any]:
    if "input" not in item:
        raise InvalidInputError("missing input")
    return {"valid": True} if _is_valid(checker, item) else {}


def _is_valid(checker: Checker, item: Mapping[str, str]) -> bool:
    return checker.is_valid(decoded(item.get("input", ""), NOT_BASE64), item["hmac"])


def _size(items: Sequence[Mapping[str, str]]) -> int:
    return sum(len(item.get("input", "")) for item in items)


PATHS: Final = tuple(
    VaultPath(f"/transit/hmac/{{name:transit}}{algorithm}", write=Way(make, Op.HMAC, _MADE, CAPTURED))
    for algorithm in ("", "/{algorithm:name}")
)
