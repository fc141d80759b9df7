"""An OIDC issuer on a port of the loopback interface: discovery, key set, and tokens as a test wants them.

with FakeIssuer(clock) as issuer:
    issuer.publish(rsa_key("a"))
    text = issuer.token(rsa_key("a"), sub="ada")
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from keystead.ports import Clock

AUDIENCE: Final = "keystead"
DISCOVERY: Final = "/.well-known/openid-configuration"
KEYS: Final = "/keys"
AUTHORIZE: Final = "/authorize"
TOKEN: Final = "/token"


@dataclass(frozen=True)
class SigningKey:
    """A key of an issuer: what it signs with, and what it publishes of it."""

    kid: str
    algorithm: str
    private: Any

    @property
    def jwk(self) -> dict[str, Any]:
        """Its public half."""
        return {**_jwk(self.private.public_key()), "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    @property
    def private_jwk(self) -> dict[str, Any]:
        """All of it, as no issuer should publish it."""
        return {**_jwk(self.private), "kid": self.kid, "alg": self.algorithm, "use": "sig"}


def _jwk(key: Any) -> dict[str, Any]:
    if hasattr(key, "curve"):
        return ECAlgorithm.to_jwk(key, as_dict=True)
    return (RSAAlgorithm if hasattr(key, "key_size") else OKPAlgorithm).to_jwk(key, as_dict=True)


@lru_cache
def _rsa(name: str, bits: int) -> RSAPrivateKey:
    return generate_rsa(65_537, bits)


def rsa_key(kid: str = "rsa", algorithm: str = "RS256", bits: int = 2048) -> SigningKey:
    """Return an RSA key, the same for the same id."""
    return SigningKey(kid, algorithm, _rsa(kid, bits))


@lru_cache
def ec_key(kid: str = "ec") -> SigningKey:
    """Return a key for ES256, the same for the same id."""
    made: EllipticCurvePrivateKey = generate_private_key(SECP256R1())
    return SigningKey(kid, "ES256", made)


@lru_cache
def ed_key(kid: str = "ed") -> SigningKey:
    """Return a key for EdDSA, the same for the same id."""
    return SigningKey(kid, "EdDSA", Ed25519PrivateKey.generate())


def part(value: Any) -> str:
    """Return a part of a token: JSON, or bytes, in URL-safe base64 without padding."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@dataclass(frozen=True)
class Page:
    """What is answered to a path."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] | None = None


class FakeIssuer:
    """The issuer.

    Attributes:
        published: the JWKs of its key set.
        pages: what else is answered than usual, by path.
        asked: the paths that were asked for, in order.
        is_down: it hangs up on everybody.
        secret: of the client that asks for tokens; None where it has none.
        user: claims of whoever logs in, as ``claims`` takes them.
        delay_s: before each answer.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.published: list[dict[str, Any]] = []
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []
        self.is_down = False
        self.delay_s = 0.0
        self.secret: str | None = None
        self.user: dict[str, Any] = {}
        self._codes: dict[str, dict[str, str]] = {}
        handler = type("Handler", (_Handler,), {"issuer": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="issuer", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def publish(self, *keys: SigningKey) -> None:
        """Have these keys, and no others, be in the key set."""
        self.published = [key.jwk for key in keys]

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good token, with changes; None takes a claim away."""
        now = int(self._clock.now().timestamp())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: SigningKey, headers: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """Return a token with claims changed as ``claims`` does; a header of None is taken away."""
        header = {"alg": key.algorithm, "typ": "JWT", "kid": key.kid, **(headers or {})}
        return signed(key, {name: each for name, each in header.items() if each is not None}, self.claims(**changes))

    def answer(self, path: str) -> Page:
        """Return the answer to a path."""
        self.asked.append(path)
        if (page := self.pages.get(path)) is not None:
            return page
        if path == DISCOVERY:
            ends = {"authorization_endpoint": self.url + AUTHORIZE, "token_endpoint": self.url + TOKEN}
            return Page(json.dumps({"issuer": self.url, "jwks_uri": self.url + KEYS, **ends}).encode())
        if path.startswith(f"{AUTHORIZE}?"):
            return self._authorize(dict(parse_qsl(urlsplit(path).query)))
        return Page(json.dumps({"keys": self.published}).encode()) if path == KEYS else Page(b"", 404)

    def _authorize(self, asked: dict[str, str]) -> Page:
        """Lead the browser of whoever has logged in back with a code (OpenID Connect Core 1.0, 3.1.2)."""
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = f"code-{len(self._codes)}"
        self._codes[code] = asked
        back = {"code": code, "state": asked["state"], "iss": self.url}
        return Page(b"", 302, {"Location": f"{asked['redirect_uri']}?{urlencode(back)}"})

    def redeem(self, authorization: str | None, sent: dict[str, str]) -> Page:
        """Return the ID token for a code, once, to the client that it was given to (RFC 6749, 4.1.3; RFC 7636, 4.6)."""
        asked = self._codes.pop(sent.get("code", ""), None)
        told = f"{sent.get('client_id')}:{self.secret}"
        shown = None if self.secret is None else f"Basic {base64.b64encode(told.encode()).decode()}"
        challenge = part(sha256(sent.get("code_verifier", "").encode()).digest())
        if asked is None or shown != authorization or sent.get("grant_type") != "authorization_code":
            return Page(b'{"error": "invalid_grant"}', 400)
        names = ("client_id", "redirect_uri")
        if any(asked[name] != sent.get(name) for name in names) or asked["code_challenge"] != challenge:
            return Page(b'{"error": "invalid_grant"}', 400)
        token = self.token(rsa_key(), **{"aud": asked["client_id"], "nonce": asked["nonce"], **self.user})
        return Page(json.dumps({"access_token": "opaque", "token_type": "Bearer", "id_token": token}).encode())


def signed(key: SigningKey, header: Mapping[str, Any], claims: Any) -> str:
    """Return a token with just this header, whatever it says; signed by the key's own algorithm."""
    signing_input = f"{part(dict(header))}.{part(claims)}"
    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    return f"{signing_input}.{part(algorithm.sign(signing_input.encode(), key.private))}"


class _Handler(BaseHTTPRequestHandler):
    issuer: FakeIssuer

    def do_GET(self) -> None:
        """Answer, unless it is down."""
        time.sleep(self.issuer.delay_s)
        if self.issuer.is_down:
            self.issuer.asked.append(self.path)
            self.close_connection = True
            return
        self._send(self.issuer.answer(self.path))

    def _send(self, page: Page) -> None:
        self.send_response(page.status)
        for name, value in {"Content-Length": str(len(page.body)), **(page.headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(page.body)
        except OSError:
            return

    def do_POST(self) -> None:
        """Answer at the token endpoint."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        self.issuer.asked.append(self.path)
        page = Page(b"", 404)
        if self.path == TOKEN:
            page = self.issuer.pages.get(TOKEN) or self.issuer.redeem(
                self.headers.get("Authorization"), dict(parse_qsl(body))
            )
        self._send(page)

    def log_message(self, *given: object) -> None:
        """Say nothing."""
