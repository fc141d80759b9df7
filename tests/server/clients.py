"""Clients of a service in this process, and what they send."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import FastAPI

from keystead.access.callers import AnyScope, Scope
from keystead.config.service import load_service
from keystead.manager.admin import create_local_kek
from keystead.manager.consent import RULE
from keystead.ports import SecretKind
from keystead.server.app import create_app
from keystead.server.service import Service
from keystead.stores.schema import migrate
from tests.fakes.clock import FakeClock

GENERATE = """
mutation GenerateClientEncryptionKey($input: ClientIdentityInput!) {
  generateClientEncryptionKey(input: $input) { publicKey keyId }
}
"""
ROTATE = """
mutation RotateClientEncryptionKey($input: ClientIdentityInput!) {
  rotateClientEncryptionKey(input: $input) { publicKey keyId }
}
"""
SET_PASSCODE = "mutation SetUserPasscode($input: EncryptedPasscodeInput!) { setUserPasscode(input: $input) }"
VERIFY_PASSCODE = (
    "mutation VerifyUserPasscode($input: EncryptedVerifyPasscodeInput!) { verifyUserPasscode(input: $input) }"
)
SET_PIN = "mutation SetTransactionPin($input: EncryptedTransactionPinInput!) { setTransactionPin(input: $input) }"
VERIFY_PIN = (
    "mutation VerifyTransactionPin($input: EncryptedVerifyTransactionPinInput!) { verifyTransactionPin(input: $input) }"
)


@dataclass
class Installation:
    """A KEK, a store and a clock, which the nodes of a service share."""

    folder: Path
    store: str
    clock: FakeClock
    is_migrated: bool = True

    def __post_init__(self) -> None:
        create_local_kek(self.folder / "keystead.kek")
        if self.is_migrated:
            migrate(self.store)

    @asynccontextmanager
    async def starting(
        self, *, is_development: bool = False, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[FastAPI]:
        """Start a node that may not be open yet, and stop it at the end."""
        given = {"KEYSTEAD_STORE": self.store, "KEYSTEAD_KMS": f"local:{self.folder / 'keystead.kek'}"}
        settings = load_service(environ={**given, "KEYSTEAD_CLIENT_KEYS_READY": "0", **(environ or {})})
        app = create_app(settings, is_development=is_development, clock=self.clock)
        async with app.router.lifespan_context(app):
            yield app

    @asynccontextmanager
    async def node(
        self, *, is_development: bool = False, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[Node]:
        """Start a node, wait until it is open, and stop it at the end."""
        async with self.starting(is_development=is_development, environ=environ) as app:
            await app.state.opening
            yield Node(app)


class Node:
    """A running node."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.service: Service = app.state.standing.service

    async def token(self, user: str, *scopes: AnyScope, tenant: str = "") -> str:
        """Return a new token."""
        made = await self.service.tokens.create(user, scopes or (Scope.DEVICES_USE,), tenant=tenant)
        return "".join(made.text)

    async def asks_for_two(self) -> None:
        """Have the store ask for two people from now on."""
        surroundings = self.service.manager.require_session().surroundings
        async with surroundings.store.transaction() as work:
            await work.begin_rule(RULE, surroundings.clock.now())

    async def client(self, user: str | None = None, *scopes: Scope, tenant: str = "") -> Client:
        """Return a client with a token of its own, or without one."""
        token = None if user is None else await self.token(user, *scopes, tenant=tenant)
        return Client(self.app, token)


class Client:
    """A client of a node: of one in this process by its application, of another by its URL."""

    def __init__(self, app: FastAPI | str, token: str | None = None, *, connections: int = 100) -> None:
        self.app = app
        self._headers: dict[str, str] = {} if token is None else {"Authorization": f"Bearer {token}"}
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        transport: httpx.AsyncBaseTransport = (
            httpx.AsyncHTTPTransport(verify=False, limits=limits) if isinstance(app, str) else httpx.ASGITransport(app)
        )
        base_url = app if isinstance(app, str) else "http://localhost:3000"
        self._http = httpx.AsyncClient(transport=transport, base_url=base_url, timeout=60)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def post(self, body: Any, **headers: str | bytes) -> httpx.Response:
        """Send a body, as JSON unless it is bytes."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        kind = {"Content-Type": "application/json"}
        return await self._http.post("/graphql", headers=_raw({**kind, **self._headers, **headers}), **content)

    async def get(self, path: str, **headers: str | bytes) -> httpx.Response:
        """Read a page."""
        return await self._http.get(path, headers=_raw({**self._headers, **headers}))

    async def ask(
        self, query: str, variables: Mapping[str, Any] | None = None, **headers: str | bytes
    ) -> dict[str, Any]:
        """Return the answer to a document; a node that is not open has one, too."""
        response = await self.post({"query": query, "variables": variables}, **headers)
        assert response.status_code in (200, 503), response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def done(self, query: str, given: Mapping[str, Any]) -> Any:
        """Return the one result of a document with an input, which has to succeed."""
        answer = await self.ask(query, {"input": given})
        assert "errors" not in answer, answer
        (result,) = answer["data"].values()
        return result

    async def fails(self, query: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the one error of a document with an input, which has to fail."""
        answer = await self.ask(query, {"input": given})
        (error,) = answer["errors"]
        assert answer.get("data") is None
        return {"message": error["message"], **error["extensions"]}

    async def key(self, device_id: str = "device-123") -> dict[str, str]:
        """Return a device's public key."""
        key: dict[str, str] = await self.done(GENERATE, {"deviceId": device_id, "appVersion": "1.0.0"})
        return key

    async def set_passcode(self, key: Mapping[str, str], secret: str, **more: Any) -> Any:
        """Set a passcode as documented clients do."""
        return await self.done(SET_PASSCODE, {"encryptedPasscode": sealed(key, secret), "keyId": key["keyId"], **more})

    async def verify_passcode(self, key: Mapping[str, str], secret: str, **more: Any) -> Any:
        """Verify a passcode as documented clients do."""
        given = {"encryptedPasscode": sealed(key, secret), "keyId": key["keyId"], **more}
        return await self.done(VERIFY_PASSCODE, given)


def _raw(headers: Mapping[str, str | bytes]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode() if isinstance(value, str) else value) for name, value in headers.items()]


def sealed(key: Mapping[str, str], secret: str | bytes, hashed_by: type[HashAlgorithm] = SHA1) -> str:
    """Encrypt as a documented client does: RSA-OAEP with SHA-1, or as browsers do, with SHA-256."""
    public = load_pem_public_key(key["publicKey"].encode())
    assert isinstance(public, RSAPublicKey)
    padding = OAEP(MGF1(hashed_by()), hashed_by(), None)
    plaintext = secret.encode() if isinstance(secret, str) else secret
    return base64.b64encode(public.encrypt(plaintext, padding)).decode()


__all__ = ["SHA256", "Client", "Installation", "Node", "sealed"]


async def lock(node: Node, user: str, tenant: str = "", kind: SecretKind = SecretKind.PASSCODE) -> None:
    """Lock a secret of a user for an hour."""
    surroundings = node.service.manager.require_session().surroundings
    async with surroundings.store.transaction() as work:
        now = surroundings.clock.now()
        await work.count_attempt(tenant, user, kind, now=now)
        await work.lock_credential(tenant, user, kind, until=now + timedelta(hours=1))
