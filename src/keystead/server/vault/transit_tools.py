"""``/v1/transit/random`` and ``/v1/transit/hash``: what takes no key."""

from __future__ import annotations

import json
import re
from typing import Final

from keystead.access.transit_scopes import TransitOperation as Op
from keystead.errors import InvalidInputError
from keystead.runtime.off_loop import compute
from keystead.server.vault.answers import VaultAnswer
from keystead.server.vault.fields import Fields
from keystead.server.vault.request import VaultPath, VaultRequest, Way
from keystead.server.vault.transit_macs import NOT_BASE64, path_algorithm
from keystead.transit.digests import Hash
from keystead.transit.randoms import BASE64, HEX, USUAL, Source, hash_text, random_text

_NO_SEAL: Final = "no seal/entropy augmentation available, using platform entropy source"
_SIZE: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_LARGEST: Final = 2**63 - 1


async def random(request: VaultRequest) -> VaultAnswer:
    """Tell random bytes."""
    fields = Fields(request.body)
    size, form = fields.number("bytes", USUAL), fields.text("format", BASE64)
    source, told_size = _parts(request.params.get("rest", ""))
    text = random_text(
        request.service.transit.keys.random, _size(told_size) if told_size else size, form=form, source=source
    )
    return VaultAnswer({"random_bytes": text}, warnings=[_NO_SEAL] if source == Source.SEAL else [])


async def hash_input(request: VaultRequest) -> VaultAnswer:
    """Tell the hash of what is sent."""
    fields = Fields(request.body)
    named, form = fields.text("algorithm", Hash.SHA2_256), fields.text("format", HEX)
    text, algorithm = fields.text("input"), path_algorithm(request) or named
    if not fields.names("input"):
        raise InvalidInputError("input missing")
    data = fields.base64("input", NOT_BASE64)
    return VaultAnswer({"sum": await compute(len(text), lambda: hash_text(data, algorithm, form=form))})


def _parts(rest: str) -> tuple[str, str]:
    """Return the source and the size that a path names: both, either, or none."""
    first, slash, second = rest.partition("/")
    if slash:
        return first, second
    return (first, "") if first in set(Source) else (Source.PLATFORM, first)


def _size(text: str) -> int:
    if not _SIZE.fullmatch(text):
        raise _no_size(text, "invalid syntax")
    size = int(text) if len(text) <= len(str(_LARGEST)) + 1 else _LARGEST + 1
    if abs(size) > _LARGEST:
        raise _no_size(text, "value out of range")
    return size


def _no_size(text: str, why: str) -> InvalidInputError:
    return InvalidInputError(f"error parsing url-set byte count: strconv.Atoi: parsing {json.dumps(text)}: {why}")


_RANDOM: Final = Way(random, Op.RANDOM, frozenset({"bytes", "format"}), frozenset({"source", "urlbytes"}))
_HASH: Final = Way(hash_input, Op.HASH, frozenset({"input", "algorithm", "format"}), frozenset({"urlalgorithm"}))
PATHS: Final = (
    VaultPath("/transit/random", write=_RANDOM),
    VaultPath("/transit/random/{rest:name}", write=_RANDOM),
    VaultPath("/transit/hash", write=_HASH),
    VaultPath("/transit/hash/{algorithm:name}", write=_HASH),
)
