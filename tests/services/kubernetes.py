"""The one answer of a Kubernetes API that Vault asks for: whether a service account's token is good.

An https server with an authority of its own. It believes every token but those it is told to refuse; the tokens are
signed with a key that nobody checks, as Vault asks the API instead.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import pytest

ACCOUNT: Final = "web"
NAMESPACE: Final = "apps"
UID: Final = "3f0c1f0e-0000-4000-8000-000000000001"


class TokenReviews:
    """The stand-in.

    Attributes:
        url, ca: where it is, and its authority in PEM.
        refused: tokens that are not believed any more.
        seen: the tokens it was asked about, in order.
    """

    def __init__(self) -> None:
        import trustme

        authority = trustme.CA()
        self.ca = authority.cert_pem.bytes().decode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        self.refused: set[str] = set()
        self.seen: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"reviews": self}))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def review(self, token: str) -> dict[str, Any]:
        """Return the status of a TokenReview."""
        self.seen.append(token)
        if token in self.refused:
            return {"authenticated": False, "error": "the token was revoked"}
        user = {
            "username": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
            "uid": UID,
            "groups": ["system:serviceaccounts"],
        }
        return {"authenticated": True, "user": user}


class _Handler(BaseHTTPRequestHandler):
    reviews: TokenReviews
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.reviews.review(asked["spec"]["token"])
        status["audiences"] = asked["spec"].get("audiences", [])
        body = json.dumps({**asked, "status": status}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: object) -> None:
        """Print nothing."""


class Issuer:
    """Signs tokens: of a service account, as Kubernetes projects them into pods, and of any issuer for JWT logins."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._key = ec.generate_private_key(ec.SECP256R1())
        self._number = 0
        public = self._key.public_key()
        self.public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def service_account(self, audience: str = "keystead") -> str:
        """Return a token of the service account; another one each time."""
        claims = {
            "iss": "https://kubernetes.default.svc",
            "sub": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
            "aud": [audience],
            "kubernetes.io": {"namespace": NAMESPACE, "serviceaccount": {"name": ACCOUNT, "uid": UID}},
        }
        return self.sign(claims)

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a token with these claims, valid for an hour."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        self._number += 1
        now = int(time.time())
        times = {"iat": now - 5, "nbf": now - 5, "exp": now + 3600, "jti": str(self._number)}
        parts = [_text(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, {**claims, **times})]
        r, s = decode_dss_signature(self._key.sign(".".join(parts).encode(), ec.ECDSA(SHA256())))
        return ".".join([*parts, _text(r.to_bytes(32, "big") + s.to_bytes(32, "big"))])


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="session")
def token_reviews() -> Iterator[TokenReviews]:
    """A stand-in for the API of a Kubernetes cluster."""
    reviews = TokenReviews()
    yield reviews
    reviews.close()


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """What signs tokens."""
    return Issuer()
