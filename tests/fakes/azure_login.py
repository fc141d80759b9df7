"""The fake Entra ID and the managed identity endpoints of a virtual machine and of App Service.

What it takes: client secrets, federated tokens (workload identity), and managed identities, the machine's own and
user-assigned ones. Access tokens are for one audience and can be revoked.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.fakes.azure_http import Request, Response

MACHINE = "machine"
"""What the machine's own identity is called in ``Token.client``."""


@dataclass(frozen=True)
class Token:
    """What an access token says."""

    audience: str
    client: str
    expires_at: float


@dataclass
class Login:
    """Who may sign in, and the tokens that were given out.

    Attributes:
        clients: secrets by client id.
        federated: the token that each client's workload presents.
        managed: client ids of the user-assigned identities of the machine.
        has_machine_identity: whether the machine has an identity of its own.
        identity_header: what App Service gives its processes, and wants back.
        lifetime_s: how long tokens are valid.
        wants_claims: whether a vault that meets a revoked token asks for one made anew (continuous access evaluation).
        issued: tokens by their text.
    """

    tenant: str
    clients: dict[str, str] = field(default_factory=dict)
    federated: dict[str, str] = field(default_factory=dict)
    managed: set[str] = field(default_factory=set)
    has_machine_identity: bool = True
    identity_header: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    lifetime_s: int = 3600
    wants_claims: bool = False
    issued: dict[str, Token] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def issue(self, audience: str, client: str) -> str:
        """Return a new access token."""
        text = f"fake.{secrets.token_urlsafe(48)}.token"
        with self._lock:
            self.issued[text] = Token(audience, client, time.time() + self.lifetime_s)
        return text

    def revoke_all(self) -> None:
        """Make every token worthless at once, whatever it says of its own lifetime."""
        with self._lock:
            self.issued.clear()

    def find(self, text: str) -> Token | None:
        """Return a token that is still good."""
        with self._lock:
            token = self.issued.get(text)
        return token if token is not None and token.expires_at > time.time() else None

    def challenge(self, authority: str, resource: str, *, was_refused: bool) -> Response:
        """Return what a vault answers to a request without a token, or with one that is no good."""
        header = f'Bearer authorization="{authority}/{self.tenant}", resource="{resource}"'
        message = "AKV10000: Request is missing a Bearer or PoP token."
        if was_refused:
            message = "AKV10022: Invalid token."
            if self.wants_claims:
                claims = base64.b64encode(json.dumps({"access_token": {"nbf": {"value": "1"}}}).encode()).decode()
                header = (
                    f'Bearer realm="", authorization="{authority}/{self.tenant}", error="insufficient_claims", '
                    f'claims="{claims}"'
                )
        body = {"error": {"code": "Unauthorized", "message": message}}
        return Response(401, body, {"WWW-Authenticate": header})

    def answer(self, request: Request) -> Response:
        """Answer a request to the authority (https)."""
        tenant, _, rest = request.path.lstrip("/").partition("/")
        authority = f"https://{request.host}"
        if rest.endswith(".well-known/openid-configuration"):
            return Response(
                200,
                {
                    "issuer": f"{authority}/{tenant}/v2.0",
                    "authorization_endpoint": f"{authority}/{tenant}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{authority}/{tenant}/oauth2/v2.0/token",
                },
            )
        if request.method == "POST" and rest == "oauth2/v2.0/token":
            return self._token(tenant, {name: values[-1] for name, values in parse_qs(request.body.decode()).items()})
        return Response(404, {"error": "not_found"})

    def answer_identity(self, request: Request) -> Response:
        """Answer a request to the managed identity endpoint (http): the machine's, or App Service's."""
        if not request.path.endswith("/oauth2/token"):
            return Response(404, {"error": "not_found"})
        is_known = request.headers.get("x-identity-header") == self.identity_header
        if not is_known and request.headers.get("metadata") != "true":
            return Response(400, {"error": "invalid_request", "error_description": "Required metadata header missing"})
        client = request.query.get("client_id", MACHINE)
        if client not in self.managed and not (client == MACHINE and self.has_machine_identity):
            return Response(400, {"error": "invalid_request", "error_description": "Identity not found"})
        resource = request.query.get("resource", "")
        text = self.issue(resource, client)
        return Response(
            200,
            {
                "access_token": text,
                "expires_in": str(self.lifetime_s),
                "expires_on": str(int(time.time()) + self.lifetime_s),
                "resource": resource,
                "token_type": "Bearer",
            },
        )

    def _token(self, tenant: str, form: dict[str, str]) -> Response:
        client = form.get("client_id", "")
        if tenant != self.tenant:
            return _refusal(400, "invalid_request", f"AADSTS90002: Tenant '{tenant}' not found.")
        if client not in self.clients and client not in self.federated:
            return _refusal(400, "unauthorized_client", "AADSTS700016: Application was not found in the directory.")
        if "client_assertion" in form:
            if form["client_assertion"] != self.federated.get(client):
                return _refusal(401, "invalid_client", "AADSTS700024: Client assertion is not valid.")
        elif not secrets.compare_digest(form.get("client_secret", ""), self.clients.get(client, "")):
            return _refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        audience = form.get("scope", "").removesuffix("/.default")
        body: dict[str, Any] = {"token_type": "Bearer", "expires_in": self.lifetime_s, "ext_expires_in": 3600}
        return Response(200, {**body, "access_token": self.issue(audience, client)})


def _refusal(status: int, code: str, description: str) -> Response:
    return Response(status, {"error": code, "error_description": description, "error_codes": [7000215]})
