"""Tokens of an identity provider: JWTs of one OIDC issuer, checked by its public keys.

RFC 7519, with the advice of RFC 8725; access tokens of RFC 9068 among them. Needs PyJWT, of the extra ``server``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from jwt import PyJWT, get_unverified_header
from jwt.exceptions import PyJWTError

from keystead.access.callers import AnyScope, Caller, allowed_by, checked_subject
from keystead.access.issuer_keys import IssuerAddress, KnownKeys
from keystead.access.jwks import MAX_KID
from keystead.errors import InvalidInputError, UnauthenticatedError
from keystead.model import Principal
from keystead.ports import Clock

log = logging.getLogger("keystead.access")

MAX_TOKEN: Final = 16 * 1024
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_LATEST: Final = 253_402_300_799
"""The last second of the year 9999."""


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


class _RefusedError(Exception):
    """A token is not good; the text says why, to the log alone, and has nothing of the token."""


class Issuer:
    """The issuer of tokens that are taken beside our own."""

    def __init__(self, address: IssuerAddress, rules: IssuerRules, clock: Clock) -> None:
        self._address = address
        self._rules = rules
        self._clock = clock
        self._keys = KnownKeys(address, clock)
        # Times are checked here, by the clock that was given.
        self._jwt = PyJWT(
            {
                "require": ["iss", "aud", "exp"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "enforce_minimum_key_length": True,
            }
        )
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

    async def authenticate(self, text: str) -> Caller:
        """Return who shows a token.

        Raises:
            UnauthenticatedError: it is not good; why is not told.
            IssuerUnavailableError: it could not be found out.
        """
        try:
            return self._caller(await self._claims(text))
        except (_RefusedError, PyJWTError, InvalidInputError) as exc:
            why = str(exc) if isinstance(exc, _RefusedError) else type(exc).__name__
            log.info("a token of the issuer is refused: %s", why, extra={"issuer": self._address.issuer})
            raise UnauthenticatedError from None

    async def _claims(self, text: str) -> dict[str, Any]:
        if len(text) > MAX_TOKEN or not _FORM.fullmatch(text):
            raise _RefusedError("it is no JWT in the compact form")
        header = get_unverified_header(text)
        algorithm, kind, kid = header.get("alg"), header.get("typ", "JWT"), header.get("kid")
        if algorithm not in self._address.algorithms:
            raise _RefusedError("it is signed in a way that is not taken")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise _RefusedError("it is of a type that does not show who calls")
        # Nothing that a token demands to be understood is; where its key would be is not looked at.
        if "crit" in header or "b64" in header or len(kid or "") > MAX_KID:
            raise _RefusedError("its header has what is not understood")
        key = await self._keys.find(kid, algorithm)
        if key is None:
            raise _RefusedError("no key of the issuer fits it")
        claims = self._jwt.decode(
            text, key, algorithms=[algorithm], audience=self._rules.audience, issuer=self._address.issuer
        )
        self._check_times(claims)
        if "cnf" in claims:
            # Bound to a key that whoever shows it has to prove: as a bearer's it is a stolen one (RFC 7800).
            raise _RefusedError("it is bound to a key, and good only with a proof of that")
        return claims

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now, leeway_s = self._clock.now().timestamp(), self._rules.leeway_s
        ends, begins, made = (_time(claims, name) for name in ("exp", "nbf", "iat"))
        if ends is None or ends <= now - leeway_s:
            raise _RefusedError("it has ended")
        if max(begins or 0, made or 0) > now + leeway_s:
            raise _RefusedError("its time has not come")
        if ends - (now if made is None else made) > self._rules.max_lifetime_s + leeway_s:
            raise _RefusedError("it lives for longer than oidc.max_lifetime")

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        rules = self._rules
        tenant = "" if rules.tenant_claim is None else _name(claims, rules.tenant_claim)
        names: set[str] = set()
        for value in _values(claims.get(rules.scope_claim, [])):
            names |= {value, *rules.scopes.get(value, ())}
        scopes, transit = allowed_by(names)
        principal = Principal(_name(claims, rules.subject_claim), tenant)
        return Caller(principal, scopes, f"issuer {self._address.issuer}", transit)


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a time, in seconds since 1970; None if the claim is not there."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise _RefusedError(f"its {name} is no time")
    return float(value)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str):
        raise _RefusedError("it does not name user or tenant by the claims that are set for these")
    return checked_subject(value)


def _values(given: Any) -> list[str]:
    values = given.split(" ") if isinstance(given, str) else given
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _RefusedError("its scopes are neither a text nor a list of texts")
    return values
