"""JSON Web Tokens as somebody else signs them, checked by public keys: RFC 7519, with the advice of RFC 8725.

Needs PyJWT, of the extra ``server``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from jwt import PyJWT, get_unverified_header
from jwt.exceptions import (
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    InvalidSubjectError,
    MissingRequiredClaimError,
    PyJWTError,
)

from keystead.access.jwks import MAX_KID
from keystead.ports import Clock

if TYPE_CHECKING:
    from jwt import PyJWK

MAX_TOKEN: Final = 16 * 1024
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_LATEST: Final = 253_402_300_799
"""The last second of the year 9999."""
_SIGNATURE: Final = "error verifying token signature: no known key successfully validated the token signature"
_AUDIENCE: Final = "invalid audience (aud) claim: audience claim does not match any expected audience"
_ISSUER: Final = "invalid issuer (iss) claim"
_ENDED: Final = "invalid expiration time (exp) claim: token is expired"


class FindsKeys(Protocol):
    """Where the keys are that a token may be signed by."""

    async def fitting(self, kid: str | None, algorithm: str) -> Sequence[PyJWK]:
        """Return the keys that a token of this header can be signed by.

        Raises:
            IssuerUnavailableError: that cannot be found out.
        """


@dataclass(frozen=True, slots=True)
class JwtBounds:
    """Which tokens are taken.

    Attributes:
        audiences: one of which a token names.
        issuer: None where the keys alone say who it is.
        leeway_s: seconds by which the signer's clock may be off.
        max_lifetime_s: from a token's issue to its end; None for any.
    """

    audiences: tuple[str, ...]
    issuer: str | None
    algorithms: tuple[str, ...]
    leeway_s: float
    max_lifetime_s: float | None = None


class RefusedJwtError(Exception):
    """A token is not good; the text says why, for the log, and has nothing of the token.

    Attributes:
        told: why, for whoever logs in with it.
    """

    def __init__(self, why: str, told: str | None = None) -> None:
        super().__init__(why)
        self.told = why if told is None else told


class JwtVerifier:
    """Checks tokens."""

    def __init__(self, keys: FindsKeys, bounds: JwtBounds, clock: Clock) -> None:
        self._keys = keys
        self._bounds = bounds
        self._clock = clock
        # Times are checked here, by the clock that was given.
        self._jwt = PyJWT(
            {
                "require": ["aud", *([] if bounds.issuer is None else ["iss"])],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "enforce_minimum_key_length": True,
            }
        )

    async def claims(self, text: str) -> dict[str, Any]:
        """Return the claims of a token that is good.

        Raises:
            RefusedJwtError: it is not.
            IssuerUnavailableError: it could not be found out.
        """
        try:
            claims = await self._verified(text)
        except PyJWTError as exc:
            raise RefusedJwtError(type(exc).__name__, _told(exc)) from None
        self._check_times(claims)
        if "cnf" in claims:
            # Bound to a key that whoever shows it has to prove: as a bearer's it is a stolen one (RFC 7800).
            raise RefusedJwtError("it is bound to a key, and good only with a proof of that")
        return claims

    async def _verified(self, text: str) -> dict[str, Any]:
        if len(text) > MAX_TOKEN or not _FORM.fullmatch(text):
            raise RefusedJwtError("it is no JWT in the compact form", _SIGNATURE)
        header = get_unverified_header(text)
        algorithm, kind, kid = header.get("alg"), header.get("typ", "JWT"), header.get("kid")
        if algorithm not in self._bounds.algorithms:
            raise RefusedJwtError("it is signed in a way that is not taken", _SIGNATURE)
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise RefusedJwtError("it is of a type that does not show who calls")
        # Nothing that a token demands to be understood is; where its key would be is not looked at.
        if "crit" in header or "b64" in header or len(kid or "") > MAX_KID:
            raise RefusedJwtError("its header has what is not understood")
        for key in await self._keys.fitting(kid, algorithm):
            try:
                return self._jwt.decode(
                    text,
                    key,
                    algorithms=[algorithm],
                    audience=self._bounds.audiences,
                    issuer=self._bounds.issuer,
                )
            except InvalidSignatureError:
                continue
        raise RefusedJwtError("no key of the issuer fits it", _SIGNATURE)

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now, leeway_s = self._clock.now().timestamp(), self._bounds.leeway_s
        ends, begins, made = (_time(claims, name) for name in ("exp", "nbf", "iat"))
        if ends is None and begins is None and made is None:
            told = "no issued at (iat), not before (nbf), or expiration time (exp) claims in token"
            raise RefusedJwtError("it has no times", told)
        if ends is None or ends <= now - leeway_s:
            raise RefusedJwtError("it has ended" if ends is not None else "it never ends", _ENDED)
        if (begins or 0) > now + leeway_s:
            raise RefusedJwtError("its time has not come", "invalid not before (nbf) claim: token not yet valid")
        if (made or 0) > now + leeway_s:
            raise RefusedJwtError("its time has not come", "invalid issued at (iat) claim: token issued in the future")
        longest_s = self._bounds.max_lifetime_s
        if longest_s is not None and ends - (now if made is None else made) > longest_s + leeway_s:
            raise RefusedJwtError("it lives for longer than oidc.max_lifetime")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a time, in seconds since 1970; None if the claim is not there."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise RefusedJwtError(f"its {name} is no time")
    return float(value)


def _told(error: PyJWTError) -> str:
    if isinstance(error, InvalidAudienceError):
        return _AUDIENCE
    if isinstance(error, InvalidIssuerError):
        return _ISSUER
    if isinstance(error, InvalidSubjectError):
        return "invalid subject (sub) claim"
    if isinstance(error, MissingRequiredClaimError):
        return _ISSUER if error.claim == "iss" else _AUDIENCE
    return "error verifying token signature: it is no JWT that can be read"
