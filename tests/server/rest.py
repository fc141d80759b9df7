"""Administration of a service in this process, and what its document declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import httpx
from fastapi import FastAPI
from starlette.routing import Match

from keystead.access.callers import Scope
from keystead.server.rest.door import AdminRoute
from keystead.server.rest.openapi import document
from keystead.server.rest.problems import MEDIA_TYPE
from keystead.server.rest.router import new_router
from tests.server.clients import Node

JSON: Final = "application/json"
_MEMBERS: Final = {"type", "title", "status", "detail", "code"}


@dataclass(frozen=True)
class Operation:
    """An operation as the tests send it: to what may not be there, unless ``of`` names what is."""

    method: str
    path: str
    scope: Scope
    body: dict[str, Any] | None = None
    is_of_store: bool = True
    query: dict[str, str] = field(default_factory=dict)


_KEYS, _KEYS_WRITE = Scope.KEYRINGS_READ, Scope.KEYRINGS_WRITE
_JOBS, _JOBS_WRITE = Scope.JOBS_READ, Scope.JOBS_WRITE
_TOKENS, _DEVICES, _AUDIT = Scope.TOKENS_WRITE, Scope.DEVICES_ADMIN, Scope.AUDIT_READ
_APPROVALS: Final = Scope.APPROVALS_WRITE
_APPROLES, _JWT_ROLES = "/v1/admin/approle/roles", "/v1/admin/jwt/roles"
_NEW_ROLE: Final = {"name": "orders", "scopes": ["transit:encrypt:orders-*"], "tokenTtlSeconds": 60}
_NEW_APPROLE: Final = {**_NEW_ROLE, "secretIdTtlSeconds": 60, "secretIdUses": 1}
_NEW_JWT_ROLE: Final = {**_NEW_ROLE, "audiences": ["keystead"], "issuer": "https://idp.example"}
_NEW_TOKEN: Final = {"user": "carol", "scopes": ["metrics:read"]}
OPERATIONS: Final = {
    "listKeyrings": Operation("GET", "/v1/keyrings", _KEYS),
    "createKeyring": Operation("POST", "/v1/keyrings", _KEYS_WRITE, {"name": "orders"}),
    "showKeyring": Operation("GET", "/v1/keyrings/default", _KEYS),
    "rotateKeyring": Operation("POST", "/v1/keyrings/default/rotate", _KEYS_WRITE, {"promote": "now"}),
    "rotateIndexKey": Operation("POST", "/v1/keyrings/none/rotate-index", _KEYS_WRITE),
    "abandonIndexRotation": Operation("POST", "/v1/keyrings/none/abandon-index-rotation", _KEYS_WRITE),
    "countKeyUses": Operation("POST", "/v1/keyrings/none/count-uses", _KEYS_WRITE),
    "listKeyUses": Operation("GET", "/v1/key-uses", _KEYS),
    "removeKeyUse": Operation("DELETE", "/v1/key-uses", _KEYS_WRITE, query={"keyring": "default", "name": "none"}),
    "listKeys": Operation("GET", "/v1/keys", _KEYS),
    "showKey": Operation("GET", "/v1/keys/default/1", _KEYS),
    "disableKey": Operation("POST", "/v1/keys/default/99/disable", _KEYS_WRITE),
    "enableKey": Operation("POST", "/v1/keys/default/99/enable", _KEYS_WRITE),
    "destroyKey": Operation("POST", "/v1/keys/default/99/destroy", _KEYS_WRITE, {"withoutSources": True}),
    "cancelDestroyKey": Operation("POST", "/v1/keys/default/99/cancel-destroy", _KEYS_WRITE),
    "rewrapKeys": Operation("POST", "/v1/rewrap", _KEYS_WRITE, {"keepWrapKey": True}),
    "showStatus": Operation("GET", "/v1/status", _KEYS),
    "listTokens": Operation("GET", "/v1/tokens", _TOKENS, is_of_store=False),
    "createToken": Operation("POST", "/v1/tokens", _TOKENS, _NEW_TOKEN, is_of_store=False),
    "showToken": Operation("GET", "/v1/tokens/0000000000000000", _TOKENS, is_of_store=False),
    "revokeToken": Operation("POST", "/v1/tokens/0000000000000000/revoke", _TOKENS, is_of_store=False),
    "listAppRoles": Operation("GET", _APPROLES, _TOKENS, is_of_store=False),
    "createAppRole": Operation("POST", _APPROLES, _TOKENS, _NEW_APPROLE, is_of_store=False),
    "showAppRole": Operation("GET", f"{_APPROLES}/none", _TOKENS, is_of_store=False),
    "deleteAppRole": Operation("DELETE", f"{_APPROLES}/none", _TOKENS, is_of_store=False),
    "listSecretIds": Operation("GET", f"{_APPROLES}/none/secret-ids", _TOKENS, is_of_store=False),
    "createSecretId": Operation("POST", f"{_APPROLES}/none/secret-ids", _TOKENS, is_of_store=False),
    "deleteSecretId": Operation("DELETE", f"{_APPROLES}/none/secret-ids/0000000000000000", _TOKENS, is_of_store=False),
    "listJwtRoles": Operation("GET", _JWT_ROLES, _TOKENS, is_of_store=False),
    "createJwtRole": Operation("POST", _JWT_ROLES, _TOKENS, _NEW_JWT_ROLE, is_of_store=False),
    "showJwtRole": Operation("GET", f"{_JWT_ROLES}/none", _TOKENS, is_of_store=False),
    "deleteJwtRole": Operation("DELETE", f"{_JWT_ROLES}/none", _TOKENS, is_of_store=False),
    "listApprovals": Operation("GET", "/v1/approvals", _APPROVALS, is_of_store=False),
    "showApproval": Operation("GET", "/v1/approvals/0000000000000000", _APPROVALS, is_of_store=False),
    "approve": Operation("POST", "/v1/approvals/0000000000000000/approve", _APPROVALS, is_of_store=False),
    "refuse": Operation("POST", "/v1/approvals/0000000000000000/refuse", _APPROVALS, is_of_store=False),
    "listDevices": Operation("GET", "/v1/devices", _DEVICES, is_of_store=False),
    "listClientKeys": Operation("GET", "/v1/devices/none/keys", _DEVICES, is_of_store=False),
    "revokeDevice": Operation("POST", "/v1/devices/none/revoke", _DEVICES, is_of_store=False),
    "releaseDevice": Operation("POST", "/v1/devices/none/release", _DEVICES, is_of_store=False),
    "forgetUser": Operation("POST", "/v1/users/nobody/forget", _DEVICES, is_of_store=False),
    "listProblematicKeys": Operation("GET", "/v1/problematic-keys", Scope.METRICS_READ),
    "listSessions": Operation("GET", "/v1/sessions", _TOKENS, is_of_store=False),
    "endSession": Operation("POST", "/v1/sessions/0000000000000000/end", _TOKENS, is_of_store=False),
    "listLockouts": Operation("GET", "/v1/lockouts", Scope.SECRETS_RESET, is_of_store=False),
    "releaseLockout": Operation("POST", "/v1/lockouts/passcode/nobody/release", Scope.SECRETS_RESET, is_of_store=False),
    "listJobs": Operation("GET", "/v1/jobs", _JOBS),
    "runJob": Operation("POST", "/v1/jobs/keystead.rotate/run", _JOBS_WRITE),
    "maintain": Operation("POST", "/v1/maintain", _JOBS_WRITE),
    "listReencryptions": Operation("GET", "/v1/reencryptions", _JOBS),
    "showReencryption": Operation("GET", "/v1/reencryptions/none", _JOBS),
    "pauseReencryption": Operation("POST", "/v1/reencryptions/none/pause", _JOBS_WRITE),
    "resumeReencryption": Operation("POST", "/v1/reencryptions/none/resume", _JOBS_WRITE),
    "cancelReencryption": Operation("POST", "/v1/reencryptions/none/cancel", _JOBS_WRITE),
    "listFields": Operation("GET", "/v1/fields", _JOBS),
    "askReencryption": Operation("POST", "/v1/reencryption-wishes", _JOBS_WRITE, {"field": "none", "kind": "plan"}),
    "cancelReencryptionWish": Operation("POST", "/v1/reencryption-wishes/0000000000000000/cancel", _JOBS_WRITE),
    "listAuditEntries": Operation("GET", "/v1/audit/entries", _AUDIT),
    "showAuditRecord": Operation("GET", "/v1/audit/records/0", _AUDIT),
    "proveAuditRecord": Operation("GET", "/v1/audit/records/0/proof", _AUDIT),
    "showAuditStatus": Operation("GET", "/v1/audit/status", _AUDIT),
    "makeAuditCheckpoint": Operation("POST", "/v1/audit/checkpoint", _AUDIT),
}


class Administrator:
    """Whoever administers a node. Every answer is one that the document declares for its operation."""

    def __init__(self, app: FastAPI, token: str | None = None) -> None:
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:3000")

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request, with a body as JSON, or of these bytes."""
        given: dict[str, Any] = {"json": body} if body is not None else {"content": content}
        kind = {"Content-Type": JSON} if content is not None else {}
        sent = {**kind, **self._headers, **(headers or {})}
        answer = await self._http.request(method, path, params=query, headers=sent, **given)
        require_declared(answer)
        return answer

    async def does(self, operation: Operation) -> httpx.Response:
        """Send an operation of the table."""
        return await self.send(operation.method, operation.path, operation.body, query=operation.query)

    async def get(self, path: str, **query: Any) -> Any:
        """Return what is read."""
        answer = await self.send("GET", path, query=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None) -> Any:
        """Return what a change answers."""
        answer = await self.send("POST", path, body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    async def fails(self, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        """Return the problem that is answered."""
        answer = await self.send(method, path, body, **more)
        assert answer.headers["content-type"] == MEDIA_TYPE, answer.text
        told: dict[str, Any] = answer.json()
        assert told["status"] == answer.status_code
        return told

    async def all(self, path: str, *, limit: int, **query: Any) -> list[Any]:
        """Return a whole list, read by pages of at most ``limit``."""
        items: list[Any] = []
        while True:
            page = await self.get(path, limit=limit, **query)
            assert len(page["items"]) <= limit
            items += page["items"]
            if page["nextCursor"] is None:
                return items
            assert page["items"]
            query["cursor"] = page["nextCursor"]


async def administrator(node: Node, *scopes: Scope, user: str = "root", tenant: str = "") -> Administrator:
    """Return an administrator with a token of its own, and every scope unless some are named."""
    return Administrator(node.app, await node.token(user, *(scopes or Scope), tenant=tenant))


@cache
def routes() -> list[AdminRoute]:
    """Return the routes of the administration."""
    return [route for route in new_router().routes if isinstance(route, AdminRoute)]


@cache
def described() -> dict[str, Any]:
    """Return the document."""
    return document(new_router())


def require_declared(answer: httpx.Response) -> None:
    """Fail unless an answer is declared, kept nowhere, and a problem in the shape of one."""
    request = answer.request
    scope = {"type": "http", "path": request.url.path, "method": request.method}
    found = next((route for route in routes() if route.matches(scope)[0] is Match.FULL), None)
    if found is not None:
        operation = described()["paths"][found.path_format][request.method.lower()]
        assert str(answer.status_code) in operation["responses"], f"{request.method} {request.url}: {answer.text}"
        assert answer.headers["cache-control"] == "no-store"
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == MEDIA_TYPE
        told = answer.json() if request.method != "HEAD" else dict.fromkeys(_MEMBERS)
        assert told.keys() - {"retryAfter", "approvalId"} == _MEMBERS
