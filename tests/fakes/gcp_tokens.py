"""Where the fake Cloud KMS's callers get their tokens: a security token service and a metadata server, both over http.

    with TokenServer() as tokens:
        path = tokens.write_workload_identity(folder)   # a credentials file, as `gcloud iam workload-identity-pools
                                                        # create-cred-config` writes it, that names this server

Tokens are random, and good until they expire or are revoked. Service accounts sign their own tokens; those are checked
with the account's public key.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Mapping
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ACCOUNT: Final = "keystead@example-project.iam.gserviceaccount.com"
SUBJECT_TOKEN: Final = "the token that the workload's own platform gave it"
LIFETIME_S: Final = 3600
_METADATA: Final = {"Metadata-Flavor": "Google"}


class TokenServer:
    """Issues tokens and knows which of them are good.

    Attributes:
        issued: how many tokens were given out.
        fails_with: status and body of every answer, while set.
        lifetime_s: of the tokens given out from now on.
        trusts_account: whether the service account's key is accepted.
    """

    def __init__(self) -> None:
        self._good: dict[str, float] = {}
        self.issued = 0
        self.fails_with: tuple[int, dict[str, Any]] | None = None
        self.lifetime_s = LIFETIME_S
        self.trusts_account = True
        handler = type("Handler", (_Handler,), {"tokens": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="gcp-tokens", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def issue(self) -> str:
        """Return a new token."""
        token = f"ya29.{secrets.token_urlsafe(40)}"
        self._good[token] = time.monotonic() + self.lifetime_s
        self.issued += 1
        return token

    def revoke_all(self) -> None:
        """Make every token given out so far worthless."""
        self._good.clear()

    def is_good(self, token: str) -> bool:
        """Whether a caller with this token is let in."""
        return self._good.get(token, 0.0) > time.monotonic() or (self.trusts_account and _is_of_account(token))

    def answer(self, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, Any]:
        """Answer a request: status, and what is sent as JSON."""
        if self.fails_with is not None:
            return self.fails_with
        if path == "/sts":
            if form.get("subject_token") != SUBJECT_TOKEN:
                return 400, {"error": "invalid_grant", "error_description": "The subject token is not valid."}
            kind = "urn:ietf:params:oauth:token-type:access_token"
            return 200, self._given() | {"issued_token_type": kind}
        if path == "":
            return 200, "computeMetadata/"
        if not path.startswith("/computeMetadata/v1/") or headers.get("metadata-flavor") != "Google":
            return 404, {"error": "not_found"}
        found = path.removeprefix("/computeMetadata/v1/")
        if found.startswith("instance/service-accounts/") and found.endswith("/token"):
            return 200, self._given()
        if found.startswith("instance/service-accounts/"):
            return 200, {"email": ACCOUNT, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
        texts = {"project/project-id": "example-project", "universe/universe-domain": "googleapis.com"}
        return 200, texts.get(found, "")

    def write_workload_identity(self, folder: Path) -> Path:
        """Write a credentials file of workload identity federation, and return its path."""
        (folder / "subject").write_text(SUBJECT_TOKEN)
        audience = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider"
        config = {
            "type": "external_account",
            "audience": audience,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url}/sts",
            "credential_source": {"file": str(folder / "subject")},
        }
        path = folder / "workload-identity.json"
        path.write_text(json.dumps(config))
        return path

    def write_service_account(self, folder: Path) -> Path:
        """Write a service account's key file, and return its path."""
        pem = account_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        config = {
            "type": "service_account",
            "project_id": "example-project",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": ACCOUNT,
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
        path = folder / "service-account.json"
        path.write_text(json.dumps(config))
        return path

    def _given(self) -> dict[str, Any]:
        return {"access_token": self.issue(), "token_type": "Bearer", "expires_in": self.lifetime_s}


@lru_cache
def account_key() -> rsa.RSAPrivateKey:
    """Return the service account's private key."""
    return rsa.generate_private_key(65537, 2048)


def _is_of_account(token: str) -> bool:
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        signature, claims = _decoded(parts[2]), json.loads(_decoded(parts[1]))
        account_key().public_key().verify(signature, ".".join(parts[:2]).encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    is_scoped = "https://www.googleapis.com/auth/cloudkms" in claims.get("scope", "").split()
    return claims.get("iss") == ACCOUNT and is_scoped and claims.get("exp", 0) > time.time()


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


class _Handler(BaseHTTPRequestHandler):
    tokens: TokenServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *given: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self._answer(dict(urllib.parse.parse_qsl(body)))

    def _answer(self, form: Mapping[str, str]) -> None:
        status, content = self.tokens.answer(
            urllib.parse.urlsplit(self.path).path.rstrip("/"), form, dict(self.headers)
        )
        is_text = isinstance(content, str)
        body = content.encode() if is_text else json.dumps(content).encode()
        self.send_response_only(status)
        for name, value in _METADATA.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
