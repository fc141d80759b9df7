"""Logins of people at an identity provider: OpenID Connect's authorization code, with PKCE (RFC 7636).

Whoever comes back has begun it in the same browser (``state``), the provider's answer is of this login (``nonce``), and
a code that somebody else has seen is worth nothing without the verifier.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote, urlencode

from keystead.access.callers import Caller
from keystead.access.issuer_keys import MAX_ANSWER, TIMEOUT_S, discovered_url, discovery
from keystead.access.issuers import Issuer
from keystead.access.jwts import RefusedJwtError
from keystead.errors import InvalidInputError, IssuerUnavailableError, UnauthenticatedError
from keystead.ports import Clock, Random
from keystead.runtime.apart import apart
from keystead.runtime.exchange import Answer, ExchangeError, exchange

log = logging.getLogger("keystead.access")

LONGEST_S: Final = 600
"""How long a login may take."""
_KNOWN_S: Final = 300.0
"""How long the provider's addresses are not asked for again."""
_SECRET_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Client:
    """How this service is known to the provider; a public client has no secret."""

    client_id: str
    secret: str | None


@dataclass(frozen=True, slots=True)
class Login:
    """A login that has begun; the browser that began it keeps this, and nobody else sees it.

    Attributes:
        then: where the browser wants to be afterwards.
    """

    state: str
    nonce: str
    verifier: str
    then: str

    def to_text(self) -> str:
        """Return it as the value of a cookie."""
        parts = [self.state, self.nonce, self.verifier, self.then]
        return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()

    @classmethod
    def parse(cls, text: str) -> Login | None:
        """Return the login that a cookie has; None if it has none."""
        try:
            parts = json.loads(base64.urlsafe_b64decode(text))
        except (ValueError, RecursionError):
            return None
        is_one = isinstance(parts, list) and len(parts) == 4 and all(isinstance(part, str) for part in parts)
        return cls(*parts) if is_one else None


class ProviderLogins:
    """Logins at one issuer."""

    def __init__(self, url: str, issuer: Issuer, client: Client, *, clock: Clock, random: Random) -> None:
        self.url: Final = url
        self._issuer = issuer
        self._client = client
        self._clock = clock
        self._random = random
        self._verifier = issuer.verifier(client.client_id)
        self._found: tuple[float, Mapping[str, Any]] | None = None

    async def begin(self, redirect_uri: str, then: str) -> tuple[str, Login]:
        """Return the address at the provider that a browser goes to, and what it keeps meanwhile.

        Raises:
            IssuerUnavailableError: the provider's addresses cannot be read.
        """
        where = await self._address("authorization_endpoint")
        login = Login(self._text(), self._text(), self._text(), then)
        asked = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid profile",
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": _challenge(login.verifier),
            "code_challenge_method": "S256",
        }
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}", login

    async def finish(self, login: Login | None, answered: Mapping[str, str], redirect_uri: str) -> Caller:
        """Return who has logged in.

        Args:
            login: what the browser has kept.
            answered: what the provider has it bring: ``code`` and ``state``, or ``error``.

        Raises:
            UnauthenticatedError: nobody has, or somebody else in another browser; the log says why.
            IssuerUnavailableError: the provider could not be asked.
        """
        try:
            if login is None or not hmac.compare_digest(login.state.encode(), answered.get("state", "").encode()):
                raise RefusedJwtError("it was not begun in this browser, or too long ago")
            if answered.get("iss", self.url) != self.url:
                raise RefusedJwtError("it was answered by another issuer")
            if "code" not in answered:
                raise RefusedJwtError("the provider has refused it")
            claims = await self._verifier.claims(await self._id_token(login, answered["code"], redirect_uri))
            if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), login.nonce.encode()):
                raise RefusedJwtError("the provider's answer is of another login")
            if claims.get("azp", self._client.client_id) != self._client.client_id:
                raise RefusedJwtError("the provider's answer is for another client")
            return self._issuer.caller(claims)
        except (RefusedJwtError, InvalidInputError) as exc:
            why = str(exc) if isinstance(exc, RefusedJwtError) else type(exc).__name__
            log.info("a login at the issuer is refused: %s", why, extra={"issuer": self.url})
            raise UnauthenticatedError from None

    async def _id_token(self, login: Login, code: str, redirect_uri: str) -> str:
        where = await self._address("token_endpoint")
        sent = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": login.verifier,
            "client_id": self._client.client_id,
        }
        answer = await self._ask(partial(_post, where, sent, self._client))
        try:
            token = json.loads(answer.content)["id_token"] if answer.status == 200 else None
        except (ValueError, RecursionError, KeyError, TypeError):
            token = None
        if not isinstance(token, str):
            raise RefusedJwtError(f"the provider gives no token for its code; it answers with status {answer.status}")
        return token

    async def _address(self, name: str) -> str:
        now = self._clock.monotonic()
        if self._found is None or now - self._found[0] > _KNOWN_S:
            self._found = now, await self._ask(partial(discovery, self.url, time.monotonic() + TIMEOUT_S))
        return discovered_url(self.url, self._found[1], name)

    async def _ask(self, call: Any) -> Any:
        try:
            return await apart("keystead-login", call, TIMEOUT_S + 0.5)
        except (TimeoutError, RuntimeError, ExchangeError):
            raise IssuerUnavailableError("the issuer does not answer") from None

    def _text(self) -> str:
        return base64.urlsafe_b64encode(self._random(_SECRET_SIZE)).decode().rstrip("=")


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")


def _post(url: str, sent: Mapping[str, str], client: Client) -> Answer:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    if client.secret is not None:
        # RFC 6749, 2.3.1: each part is encoded as a form's value is.
        pair = f"{quote(client.client_id, safe='')}:{quote(client.secret, safe='')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    deadline = time.monotonic() + TIMEOUT_S
    return exchange("POST", url, deadline=deadline, most=MAX_ANSWER, body=urlencode(sent).encode(), headers=headers)
