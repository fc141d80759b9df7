"""A key manager in a FastAPI application."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket

from keystead import Field, KeyManager, errors
from keystead.crypto.envelope import to_text
from keystead.errors import DataKeyNotLoadedError, KMSError, MissingDependencyError, NotInitializedError
from keystead.integrations.annotated import Ciphertext
from keystead.integrations.fastapi import Manager, exception_handlers, lifespan
from keystead.testing import FakeKMS

SECRET = "what no answer may show"
EMAIL = Field("people", "email", keyring="people")


def new_manager(kms: FakeKMS | None = None, **options: Any) -> KeyManager:
    provider = (kms or FakeKMS()).provider("fake")
    return KeyManager({"fake": provider}, default_key_id="app", **{"store": "memory://", **options})


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start the application, and talk to it."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        yield client


def application(**options: Any) -> FastAPI:
    """Return an application with a route that seals, one that opens, and one that fails as it is told."""
    app = FastAPI(exception_handlers=exception_handlers, **options)

    @app.get("/people/{record}")
    async def sealed(record: int, km: Manager) -> Ciphertext:
        return Ciphertext(to_text(km.field(EMAIL).encrypt(SECRET, record=record) or b""))

    @app.post("/people/{record}")
    async def opened(record: int, text: Ciphertext, km: Manager) -> object:
        return km.field(EMAIL).decrypt(text, record=record)

    @app.get("/fail/{name}")
    async def fail(name: str) -> None:
        kind = getattr(errors, name)
        raise kind(7, SECRET) if kind is DataKeyNotLoadedError else kind(SECRET)

    return app


async def test_a_route_is_given_the_manager_with_its_fields_loaded() -> None:
    async with client_of(application(lifespan=lifespan(new_manager(), fields=[EMAIL]))) as client:
        text = (await client.get("/people/1")).json()
        assert (await client.post("/people/1", params={"text": text})).json() == SECRET


async def test_the_manager_lives_as_long_as_the_application_and_around_its_own_lifespan() -> None:
    km = new_manager()
    seen: list[object] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append(km.is_initialized)
        yield {"of": "its own"}
        seen.append(km.is_initialized)

    app = FastAPI(lifespan=lifespan(km, own))
    async with app.router.lifespan_context(app) as state:
        seen.append(state)
    assert seen == [True, {"of": "its own"}, True]
    assert not km.is_initialized


async def test_an_application_starts_again_with_what_makes_managers(tmp_path: Path) -> None:
    app = application(
        lifespan=lifespan(partial(new_manager, FakeKMS(), store=f"sqlite:///{tmp_path}/keys.db"), fields=[EMAIL])
    )
    for _ in range(2):
        async with client_of(app) as client:
            assert (await client.get("/people/1")).status_code == 200


async def test_an_application_that_cannot_open_its_manager_does_not_start() -> None:
    kms = FakeKMS()
    kms.fail_always()
    km = new_manager(kms, initialization_timeout=0.2)
    with pytest.raises(KMSError):
        async with client_of(application(lifespan=lifespan(km))):
            pass
    await km.close()


async def test_a_route_without_a_lifespan_is_told_what_is_missing() -> None:
    app = FastAPI()

    @app.get("/")
    async def route(km: Manager) -> None: ...

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        with pytest.raises(NotInitializedError, match="lifespan"):
            await client.get("/")


async def test_a_websocket_route_is_given_the_manager_too() -> None:
    app = FastAPI(lifespan=lifespan(new_manager()))
    seen: list[bool] = []

    @app.websocket("/")
    async def route(socket: WebSocket, km: Manager) -> None:
        seen.append(km.is_initialized)
        await socket.close()

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None: ...

    async with app.router.lifespan_context(app):
        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": [], "subprotocols": []}
        await app(scope, receive, send)
    assert seen == [True]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("DecryptionError", 400),
        ("InvalidCiphertextError", 400),
        ("InvalidInputError", 400),
        ("DataKeyNotLoadedError", 503),
        ("ProviderConnectionError", 503),
        ("StaleViewError", 503),
        ("ProviderAuthError", 500),
        ("KeyringNotLoadedError", 500),
        ("ConfigurationError", 500),
    ],
)
async def test_an_error_is_answered_without_its_cause_and_logged_with_it(
    name: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "keystead.integrations")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application()), base_url="http://app") as client:
        answer = await client.get(f"/fail/{name}")
    assert answer.status_code == status
    assert SECRET not in answer.text
    assert getattr(errors, name).code not in answer.text
    assert getattr(errors, name).code in caplog.text


async def test_only_what_may_succeed_later_says_when_to_come_again() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application()), base_url="http://app") as client:
        assert int((await client.get("/fail/ConflictError")).headers["retry-after"]) > 0
        assert "retry-after" not in (await client.get("/fail/DecryptionError")).headers


async def test_altered_and_foreign_ciphertexts_are_answered_alike() -> None:
    async with client_of(application(lifespan=lifespan(new_manager(), fields=[EMAIL]))) as client:
        text = (await client.get("/people/1")).json()
        altered = text[:-3] + ("A" if text[-3] != "A" else "B") + text[-2:]
        answers = [
            await client.post("/people/1", params={"text": altered}),
            await client.post("/people/2", params={"text": text}),
        ]
    assert {(answer.status_code, answer.text) for answer in answers} == {
        (400, '{"detail":"the request cannot be processed"}')
    }


@pytest.mark.parametrize(
    ("missing", "module"),
    [("fastapi", "keystead.integrations.fastapi"), ("strawberry.extensions", "keystead.integrations.strawberry")],
)
def test_without_the_framework_the_extra_is_named(missing: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = module.rpartition(".")[2]
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(MissingDependencyError, match=rf"keystead\[{extra}\]"):
        importlib.import_module(module)


def test_the_rest_of_keystead_loads_no_framework() -> None:
    program = (
        "import keystead.manager.manager, keystead.blocking, keystead.integrations.annotated, sys; "
        "print([name for name in ('fastapi', 'starlette', 'strawberry', 'pydantic') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "[]\n"
