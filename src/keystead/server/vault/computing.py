"""Computing with a key: away from the loop where it takes long, and again where a version is not known here yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from keystead.model import TransitType
from keystead.runtime.off_loop import OFF_LOOP_BYTES, in_thread
from keystead.server.vault.request import VaultRequest
from keystead.transit.opened import NOT_YET, TOO_NEW, OpenKey, TooNewError

T = TypeVar("T")
_SLOW: Final = frozenset(
    {
        TransitType.ECDSA_P384,
        TransitType.ECDSA_P521,
        TransitType.RSA_2048,
        TransitType.RSA_3072,
        TransitType.RSA_4096,
    }
)


async def run(key: OpenKey, size: int, call: Callable[[], T]) -> T:
    """Compute over so many bytes: here what takes microseconds, and elsewhere what takes longer."""
    return await in_thread(call) if key.record.type in _SLOW or size > OFF_LOOP_BYTES else call()


async def looking_twice(request: VaultRequest, key: OpenKey, size: int, call: Callable[[OpenKey], T]) -> T:
    """Compute; where a version is named that is not known here, look at the key again: another node may have it."""
    try:
        result = await run(key, size, lambda: call(key))
        if not _has_too_new(result):
            return result
    except TooNewError:
        pass
    again = await request.service.transit.keys.look_again(request.tenant, request.name)
    return await run(again, size, lambda: call(again))


def _has_too_new(result: object) -> bool:
    """Whether the answers to a batch tell of such a version."""
    return isinstance(result, list) and any(item.get("error", "").endswith((TOO_NEW, NOT_YET)) for item in result)
