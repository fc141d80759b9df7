"""The algorithms of keyrings: which suite their data keys serve, and how a new one is drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from keystead.crypto import private_keys
from keystead.crypto.envelope import (
    SUITE_AES_128_GCM,
    SUITE_AES_128_GCM_CONVERGENT,
    SUITE_AES_256_GCM,
    SUITE_AES_256_GCM_CONVERGENT,
    SUITE_CHACHA20_POLY1305,
    SUITE_CHACHA20_POLY1305_CONVERGENT,
    SUITE_STREAM,
)
from keystead.errors import InvalidAlgorithmError
from keystead.ports import Random
from keystead.runtime.off_loop import in_thread

NO_SUITE: Final = 0
"""Of keys that are no cipher's."""
LEGACY_ALGORITHM: Final = "AES-256-GCM-LEGACY"
"""Algorithm of a keyring of imported keys, which only decrypt and never have an active version. Not among those that
``algorithm_of`` finds, so that nothing but the import makes such a keyring. See docs/adr/0015-legacy-keys.md."""
_HMAC: Final = re.compile(r"HMAC/([0-9]{2,3})")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What a keyring's data keys are for.

    Attributes:
        draw: gives a new data key; by itself 32 random bytes.
        is_slow: drawing takes long enough to keep a loop from its other work.
    """

    suite: int = NO_SUITE
    draw: Callable[[Random], bytes] = private_keys.draw_seed
    is_slow: bool = False

    async def new_key(self, random: Random) -> bytes:
        """Return a new data key."""
        return await in_thread(self.draw, random) if self.is_slow else self.draw(random)


def _ec(curve: str) -> Algorithm:
    return Algorithm(draw=lambda random: private_keys.draw_ec(curve))


def _rsa(bits: int) -> Algorithm:
    return Algorithm(draw=lambda random: private_keys.draw_rsa(bits), is_slow=True)


_ALGORITHMS: Final = {
    "AES-256-GCM": Algorithm(SUITE_AES_256_GCM),
    "AES-256-GCM-STREAM": Algorithm(SUITE_STREAM),
    "HMAC-SHA256": Algorithm(),
    "Ed25519": Algorithm(),
    "AES-128-GCM": Algorithm(SUITE_AES_128_GCM),
    "ChaCha20-Poly1305": Algorithm(SUITE_CHACHA20_POLY1305),
    "AES-256-GCM-CONVERGENT": Algorithm(SUITE_AES_256_GCM_CONVERGENT),
    "AES-128-GCM-CONVERGENT": Algorithm(SUITE_AES_128_GCM_CONVERGENT),
    "ChaCha20-Poly1305-CONVERGENT": Algorithm(SUITE_CHACHA20_POLY1305_CONVERGENT),
    "ECDSA-P256": _ec("P256"),
    "ECDSA-P384": _ec("P384"),
    "ECDSA-P521": _ec("P521"),
    "RSA-2048": _rsa(2048),
    "RSA-3072": _rsa(3072),
    "RSA-4096": _rsa(4096),
}


def algorithm_of(name: str) -> Algorithm:
    """Return the algorithm of a name; ``HMAC/<bytes>`` has keys of that size, 32 to 512.

    Raises:
        InvalidAlgorithmError: no such algorithm.
    """
    if (found := _ALGORITHMS.get(name)) is not None:
        return found
    sized = _HMAC.fullmatch(name)
    if sized is not None and 32 <= int(sized[1]) <= 512:
        return Algorithm(draw=partial(_draw, int(sized[1])))
    raise InvalidAlgorithmError(f"algorithm {name!r} is not one of {', '.join(_ALGORITHMS)}, HMAC/<32 to 512>")


def suite_of(name: str) -> int:
    """Return the suite of an algorithm; of one that makes no keys here, the one of no cipher."""
    found = _ALGORITHMS.get(name)
    return NO_SUITE if found is None else found.suite


def _draw(size: int, random: Random) -> bytes:
    return random(size)
