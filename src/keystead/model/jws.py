"""Algorithms of tokens that a public key verifies, by the names of RFC 7518 and RFC 8037."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class KeyForm(NamedTuple):
    """What keys an algorithm takes: ``kty`` and ``crv`` of a JWK; an RSA key has no curve."""

    kty: str
    crv: str | None = None


JWS_ALGORITHMS: Final[Mapping[str, KeyForm]] = {
    "RS256": KeyForm("RSA"),
    "RS384": KeyForm("RSA"),
    "RS512": KeyForm("RSA"),
    "PS256": KeyForm("RSA"),
    "PS384": KeyForm("RSA"),
    "PS512": KeyForm("RSA"),
    "ES256": KeyForm("EC", "P-256"),
    "ES384": KeyForm("EC", "P-384"),
    "ES512": KeyForm("EC", "P-521"),
    "EdDSA": KeyForm("OKP", "Ed25519"),
}
"""Neither ``none`` nor a MAC: who verifies by one of these could not have made the token."""
