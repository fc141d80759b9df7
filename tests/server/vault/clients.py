"""Clients of Vault's protocol, and what each answer of it has."""

from __future__ import annotations

from typing import Any, Final

import httpx
from fastapi import FastAPI

ENVELOPE: Final = {
    "request_id",
    "lease_id",
    "renewable",
    "lease_duration",
    "data",
    "wrap_info",
    "warnings",
    "auth",
}


class VaultClient:
    """A client of a node in this process. Every answer is one that clients of Vault can read."""

    def __init__(self, app: FastAPI, token: str | None = None, **headers: str) -> None:
        self._headers = {**({} if token is None else {"X-Vault-Token": token}), **headers}
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:3000")

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> httpx.Response:
        """Send a request, with a body as JSON, or of these bytes."""
        given: dict[str, Any] = {"json": body} if body is not None else {"content": content}
        answer = await self._http.request(
            method, f"/v1/{path}", params=query or None, headers={**self._headers, **(headers or {})}, **given
        )
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        if method == "HEAD" or answer.status_code == 204:
            assert answer.content == b""
        elif answer.status_code >= 400 and not path.startswith("sys/health"):
            assert set(answer.json()) == {"errors"}
        return answer

    async def gets(self, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        """Return the envelope of an answer that has to be good."""
        answer = await self.send(method, path, body, **more)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        assert set(told) == ENVELOPE
        return told

    async def fails(self, status: int, method: str, path: str, body: Any = None, **more: Any) -> list[str]:
        """Return the errors of an answer that has to have a status."""
        answer = await self.send(method, path, body, **more)
        assert answer.status_code == status, answer.text
        errors: list[str] = answer.json()["errors"]
        return errors
