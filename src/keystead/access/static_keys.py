"""Public keys that were given, in place of an issuer's that are read.

Needs PyJWT, of the extra ``server``, for all but the check that they are PEM.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keystead.errors import InvalidInputError
from keystead.errors.extras import needing
from keystead.model.jws import JWS_ALGORITHMS

if TYPE_CHECKING:
    from jwt import PyJWK

_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_TAKEN: Final = "a public key is one of RSA with 2048 to 8192 bits, P-256, P-384, P-521 or Ed25519"


class StaticKeys:
    """Public keys in PEM; ``keystead.access.jwts.FindsKeys``.

    Raises:
        InvalidInputError: one is none, or none that a JWT may be signed by.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        with needing("server", "JWTs need PyJWT"):
            from keystead.access.jwks import read_key_set

        document = json.dumps({"keys": [_jwk(text) for text in texts]}).encode()
        keys = read_key_set(document, tuple(JWS_ALGORITHMS))
        if keys.passed_by:
            raise InvalidInputError(_TAKEN)
        self._keys = keys.nameless

    async def fitting(self, kid: str | None, algorithm: str) -> Sequence[PyJWK]:
        """Return the keys of the algorithm's kind; whatever id a token gives its key, these have none."""
        return tuple(key.by_algorithm[algorithm] for key in self._keys if algorithm in key.by_algorithm)


def _jwk(text: str) -> Any:
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInputError("a public key is PEM that begins with -----BEGIN PUBLIC KEY-----") from None
    if isinstance(key, RSAPublicKey):
        return RSAAlgorithm.to_jwk(key, as_dict=True)
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return ECAlgorithm.to_jwk(key, as_dict=True)
    if isinstance(key, Ed25519PublicKey):
        return OKPAlgorithm.to_jwk(key, as_dict=True)
    raise InvalidInputError(_TAKEN)
