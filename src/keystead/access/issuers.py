"""Tokens of an identity provider: JWTs of one OIDC issuer, checked by its public keys.

RFC 7519, with the advice of RFC 8725; access tokens of RFC 9068 among them. Needs PyJWT, of the extra ``server``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keystead.access.callers import AnyScope, Caller, allowed_by, checked_subject
from keystead.access.issuer_keys import IssuerAddress, KnownKeys
from keystead.access.jwts import JwtBounds, JwtVerifier, RefusedJwtError
from keystead.errors import InvalidInputError, UnauthenticatedError
from keystead.model import Principal
from keystead.ports import Clock

log = logging.getLogger("keystead.access")


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """Which tokens of an issuer are taken, and what they allow.

    Attributes:
        audience: what a token names if it is for this service.
        tenant_claim: None where there are no tenants; a token without the claim is refused otherwise.
        scopes: what a value of ``scope_claim`` allows here, beside the names of our own scopes.
        leeway_s: seconds by which the issuer's clock may be off.
        max_lifetime_s: from a token's issue to its end.
    """

    audience: str
    subject_claim: str
    tenant_claim: str | None
    scope_claim: str
    scopes: Mapping[str, frozenset[AnyScope]]
    leeway_s: float
    max_lifetime_s: float


class Issuer:
    """The issuer of tokens that are taken beside our own."""

    def __init__(self, address: IssuerAddress, rules: IssuerRules, clock: Clock) -> None:
        self._address = address
        self._rules = rules
        self._clock = clock
        self._keys = KnownKeys(address, clock)
        self._verifier = self.verifier(rules.audience)
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep the issuer's keys young in the background, the first time at once; nobody waits for it."""
        self._keeping = asyncio.create_task(self._keys.keep(), name="keystead-issuer")

    async def aclose(self) -> None:
        """End what runs in the background."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping

    def verifier(self, audience: str) -> JwtVerifier:
        """Return what checks tokens of the issuer that are for an audience."""
        address, rules = self._address, self._rules
        bounds = JwtBounds((audience,), address.issuer, address.algorithms, rules.leeway_s, rules.max_lifetime_s)
        return JwtVerifier(self._keys, bounds, self._clock)

    async def authenticate(self, text: str) -> Caller:
        """Return who shows a token.

        Raises:
            UnauthenticatedError: it is not good; why is not told.
            IssuerUnavailableError: it could not be found out.
        """
        try:
            return self.caller(await self._verifier.claims(text))
        except (RefusedJwtError, InvalidInputError) as exc:
            why = str(exc) if isinstance(exc, RefusedJwtError) else type(exc).__name__
            log.info("a token of the issuer is refused: %s", why, extra={"issuer": self._address.issuer})
            raise UnauthenticatedError from None

    def caller(self, claims: Mapping[str, Any]) -> Caller:
        """Return whom claims name that were checked, and what they allow.

        Raises:
            RefusedJwtError: they name nobody, or their scopes are none.
            InvalidInputError: the name cannot be one.
        """
        rules = self._rules
        tenant = "" if rules.tenant_claim is None else _name(claims, rules.tenant_claim)
        names: set[str] = set()
        for value in _values(claims.get(rules.scope_claim, [])):
            names |= {value, *rules.scopes.get(value, ())}
        scopes, transit = allowed_by(names)
        principal = Principal(_name(claims, rules.subject_claim), tenant)
        return Caller(principal, scopes, f"issuer {self._address.issuer}", transit)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str):
        raise RefusedJwtError("it does not name user or tenant by the claims that are set for these")
    return checked_subject(value)


def _values(given: Any) -> list[str]:
    values = given.split(" ") if isinstance(given, str) else given
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise RefusedJwtError("its scopes are neither a text nor a list of texts")
    return values
