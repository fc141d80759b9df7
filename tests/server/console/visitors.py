"""Visitors of the console of a node in this process: a browser without scripts."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Final

import httpx
from fastapi import FastAPI

from keystead.access.callers import EVERY_SCOPE, AnyScope
from keystead.access.transit_scopes import transit_scope
from keystead.server.development import FORM_TYPE
from tests.server.clients import Node

BASE: Final = "http://localhost:3000"
EVERYTHING: Final[frozenset[AnyScope]] = EVERY_SCOPE | {transit_scope("transit:*:*")}
_FORM: Final = re.compile(r'name="form" value="([0-9a-f]{64})"')


@dataclass
class Visitor:
    """A browser, with the cookies that it has been given."""

    app: FastAPI
    base: str = BASE
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Open a page, and stay where it leads."""
        return await self._send("GET", path, headers=headers)

    async def post(
        self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a form."""
        given = {"Origin": self.base, "Content-Type": FORM_TYPE, **(headers or {})}
        return await self._send("POST", path, headers=given, data=dict(fields))

    async def does(self, path: str, fields: Mapping[str, str] | None = None) -> httpx.Response:
        """Open the preview of a deed, fill it in, send it, and open where that leads."""
        shown = await self.get(path)
        assert shown.status_code == 200, shown.text
        answer = await self.post(path, {"form": form_of(shown), **(fields or {})})
        return await self.get(answer.headers["location"]) if answer.status_code == 303 else answer

    async def signs_in(self, token: str) -> httpx.Response:
        """Sign in by a token."""
        return await self.post("/console/sign-in", {"token": token})

    async def _send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None, data: dict[str, str] | None = None
    ) -> httpx.Response:
        given = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **(headers or {})}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=self.base) as http:
            answer = await http.request(method, path, headers=given, data=data)
        for line in answer.headers.get_list("set-cookie"):
            for name, cookie in SimpleCookie(line).items():
                self.cookies[name] = cookie.value
                if cookie["max-age"] == "0":
                    del self.cookies[name]
        return answer


def form_of(page: httpx.Response) -> str:
    """Return what the forms of a page carry."""
    found = _FORM.search(page.text)
    assert found is not None, page.text
    return found[1]


def text_of(page: httpx.Response) -> str:
    """Return what is read of a page, white space in one."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page.text))).strip()


async def visitor(node: Node, *scopes: AnyScope, tenant: str = "", base: str = BASE) -> Visitor:
    """Return somebody who has signed in, with every scope unless some are named."""
    made = Visitor(node.app, base)
    answer = await made.signs_in(await node.token("ada", *(scopes or EVERYTHING), tenant=tenant))
    assert answer.status_code == 303, answer.text
    return made
