"""``--dev`` answers programs of this machine, and no page of anybody else's."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from keystead.config.service import load_service
from keystead.errors import ConfigurationError
from keystead.server.app import create_app
from keystead.server.development import DevelopmentGuard

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()
    made.add_middleware(DevelopmentGuard)

    @made.post("/graphql")
    async def graphql() -> dict[str, bool]:
        return {"ok": True}

    @made.get("/")
    async def front() -> dict[str, bool]:
        return {"ok": True}

    return made


async def status(app: FastAPI, method: str = "POST", path: str = "/graphql", **headers: str) -> int:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:3000") as http:
        given = {"Host": "localhost:3000", **JSON, **headers}
        return (await http.request(method, path, headers=given)).status_code


@pytest.mark.parametrize("host", ["localhost", "localhost:3000", "127.0.0.1:3000", "[::1]:3000", "LOCALHOST"])
async def test_this_machine_is_answered(app: FastAPI, host: str) -> None:
    assert await status(app, Host=host) == 200
    assert await status(app, "GET", "/", Host=host) == 200


@pytest.mark.parametrize("host", ["", "example.com", "localhost.example.com", "127.0.0.2", "0.0.0.0", "[::2]", "["])
async def test_a_name_that_leads_here_is_not(app: FastAPI, host: str) -> None:
    assert await status(app, Host=host) == 403
    assert await status(app, "GET", "/", Host=host) == 403


@pytest.mark.parametrize("origin", ["null", "https://example.com", "http://localhost.example.com:3000", "file://"])
async def test_a_page_of_another_origin_is_not(app: FastAPI, origin: str) -> None:
    assert await status(app, Origin=origin) == 403


async def test_a_page_of_this_machine_is_answered(app: FastAPI) -> None:
    assert await status(app, Origin="http://localhost:8080") == 200


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_what_a_form_could_send_is_not_taken(app: FastAPI, kind: str) -> None:
    assert await status(app, **{"Content-Type": kind}) == 403
    assert await status(app, **{"Content-Type": "application/json; charset=utf-8"}) == 200


def test_what_is_in_production_is_not_served_for_development() -> None:
    settings = load_service(environ={"KEYSTEAD_ENV": "production", "KEYSTEAD_STORE": "memory://"})
    with pytest.raises(ConfigurationError, match="KEYSTEAD_ENV says production"):
        create_app(settings, is_development=True)
    assert create_app(settings) is not None
