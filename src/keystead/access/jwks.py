"""The keys of an issuer, out of a JSON Web Key Set (RFC 7517): of what it holds, those that may verify tokens.

Needs PyJWT, of the extra ``server``.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from keystead.model.jws import JWS_ALGORITHMS

log = logging.getLogger("keystead.access")

MAX_KEYS: Final = 100
MAX_KID: Final = 256
RSA_BITS: Final = range(2048, 8192 + 1)
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class NoKeySetError(Exception):
    """A document is no key set."""


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A key that may verify tokens, by each algorithm that it may be used with."""

    kid: str | None
    by_algorithm: Mapping[str, PyJWK]


@dataclass(frozen=True, slots=True)
class IssuerKeys:
    """What an issuer signs with.

    Attributes:
        passed_by: how many keys of the document are not used here.
    """

    by_kid: Mapping[str, IssuerKey] = field(default_factory=dict)
    nameless: tuple[IssuerKey, ...] = ()
    passed_by: int = 0

    def knows(self, kid: str | None) -> bool:
        """Whether another reading of the set could show nothing new for a token that names this key, or none."""
        return kid is None or kid in self.by_kid

    def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Return the key for a token; for one that names none the only key that it can be."""
        if kid is not None:
            named = self.by_kid.get(kid)
            return None if named is None else named.by_algorithm.get(algorithm)
        fitting = [key for key in (*self.by_kid.values(), *self.nameless) if algorithm in key.by_algorithm]
        return fitting[0].by_algorithm[algorithm] if len(fitting) == 1 else None


def read_key_set(content: bytes, algorithms: Collection[str]) -> IssuerKeys:
    """Return the keys of a document. Those that cannot verify, or must not, are passed by.

    Passed by are: symmetric keys; private ones, which everybody has seen; keys for encryption, or for other algorithms
    than ``algorithms``; RSA keys below 2048 bits; keys of which several have one ``kid``.

    Raises:
        NoKeySetError: it is no key set.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise NoKeySetError("it is no JSON") from None
    given = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(given, list) or len(given) > MAX_KEYS:
        raise NoKeySetError(f'it has no list "keys" of up to {MAX_KEYS}')
    usable = [key for each in given if (key := _usable(each, algorithms)) is not None]
    counts = Counter(key.kid for key in usable)
    by_kid = {key.kid: key for key in usable if key.kid is not None and counts[key.kid] == 1}
    nameless = tuple(key for key in usable if key.kid is None)
    return IssuerKeys(by_kid, nameless, len(given) - len(by_kid) - len(nameless))


def _usable(jwk: Any, algorithms: Collection[str]) -> IssuerKey | None:
    if not isinstance(jwk, dict) or _PRIVATE & jwk.keys():
        return None
    kid, own = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str | None) or len(kid or "") > MAX_KID or jwk.get("use", "sig") != "sig":
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    form = (jwk.get("kty"), jwk.get("crv"))
    names = [name for name in algorithms if JWS_ALGORITHMS[name] == form and own in (None, name)]
    keys = {name: key for name in names if (key := _read(jwk, name)) is not None}
    return IssuerKey(kid, keys) if keys else None


def _read(jwk: dict[str, Any], algorithm: str) -> PyJWK | None:
    try:
        key = PyJWK(jwk, algorithm)
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, AttributeError):
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size not in RSA_BITS:
        return None
    return key
