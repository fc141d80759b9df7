"""A service starts before its database and its KMS do, says what it waits for, and serves when they are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from keystead.errors import (
    ConfigurationError,
    ForeignSchemaError,
    KeyDecryptionFailError,
    KeyNotFoundError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    SchemaVersionError,
    StorageOperationError,
    StoreNotFoundError,
    StoreRestoredError,
    StoreUnavailableError,
)
from keystead.manager.manager import KeyManager
from keystead.server.causes import cause_of, may_pass
from keystead.server.service import Service
from keystead.server.standing import Standing
from keystead.stores.schema import migrate
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.fakes.postgres import PostgresServer
from tests.server.clients import GENERATE, Client, Installation, Node

_SECRET = "postgresql://ada:canary-password@canary-host/keys"


async def ready(client: Client) -> tuple[int, dict[str, Any]]:
    response = await client.get("/readyz")
    return response.status_code, response.json()


async def until(clock: FakeClock, is_so: Callable[[], bool]) -> None:
    """Let time pass until something is so."""
    for _ in range(3000):
        if is_so():
            return
        clock.wake(2.0)
        await asyncio.sleep(0.01)
    pytest.fail("it never came to that")


def opening(*results: Exception | Service) -> Callable[[], Any]:
    """Return what fails by the errors, one after the other, and opens then."""
    left = list(results)

    @asynccontextmanager
    async def opening() -> AsyncIterator[Any]:
        if isinstance(result := left.pop(0), Exception):
            raise result
        yield result

    return opening


async def test_attempts_are_repeated_after_pauses_that_are_drawn_and_bounded() -> None:
    clock, service = FakeClock(), Service.__new__(Service)
    failures = [StoreUnavailableError("no"), ProviderConnectionError("no")] * 20
    drawn = iter(range(40))
    standing = Standing(opening(*failures, service), clock, lambda size: bytes([255, next(drawn), 0, 0]))
    assert await standing.open() is service
    assert standing.service is service
    assert len(clock.slept) == 40
    assert clock.slept[0] < 0.11
    assert all(1.9 < pause_s <= 2.0 for pause_s in clock.slept[10:])
    assert len(set(clock.slept)) == 40


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("no KEK is set"),
        KeyDecryptionFailError("another KEK"),
        ForeignSchemaError("tables of somebody else"),
        StoreNotFoundError("none there"),
        SchemaVersionError("upgrade keystead", is_newer=True),
        RuntimeError("a fault of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_never_passes_ends_it_at_once(error: Exception) -> None:
    clock = FakeClock()
    standing = Standing(opening(error), clock)
    with pytest.raises(type(error)):
        await standing.open()
    assert standing.failure is error
    assert clock.slept == []


@pytest.mark.parametrize(
    ("error", "component"),
    [
        (StoreUnavailableError(_SECRET), "database"),
        (StorageOperationError(_SECRET), "database"),
        (SchemaVersionError(_SECRET), "database"),
        (StoreRestoredError(_SECRET), "database"),
        (ProviderConnectionError(_SECRET), "kms"),
        (ProviderAuthError(_SECRET), "kms"),
        (KeyNotFoundError(_SECRET), "kms"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_what_may_pass_is_told_by_component_and_code_and_no_text_of_the_error(
    error: KMSError, component: str
) -> None:
    assert may_pass(error)
    cause = cause_of(error)
    assert (cause.component, cause.code) == (component, error.code)
    assert "canary" not in str(cause.as_dict())


async def test_a_store_without_a_schema_is_waited_for(postgres_url: str, clock: FakeClock, tmp_path: Path) -> None:
    installation = Installation(tmp_path, postgres_url, clock, is_migrated=False)
    async with installation.starting() as app:
        client = Client(app)
        await until(clock, lambda: app.state.standing.cause.code == "schema_version")
        assert (await client.get("/livez")).json() == {"status": "ok"}
        status, told = await ready(client)
        assert (status, told["status"]) == (503, "not ready")
        (cause,) = told["causes"]
        assert (cause["component"], cause["code"]) == ("database", "schema_version")
        assert "keystead migrate" in cause["message"]
        assert "postgresql" not in str(told)
        response = await client.post({"query": "{ __typename }"})
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        (error,) = response.json()["errors"]
        assert error["extensions"] == {"code": "UNAVAILABLE", "retryAfter": 2.0}
        for path in ("/", "/schema.graphql", "/.well-known/keystead-keys", "/metrics", "/nowhere"):
            response = await client.get(path)
            assert (response.status_code, response.headers["retry-after"]) == (503, "2"), path
            assert response.json()["code"] == "UNAVAILABLE"
        migrate(postgres_url)
        await until(clock, lambda: app.state.standing.service is not None)
        assert await ready(client) == (200, {"status": "ok"})
        assert await (await Node(app).client("ada")).key()


async def test_a_store_of_a_newer_release_ends_it(installation: Installation) -> None:
    url = installation.store.replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE keystead_version SET version_num = '9999'"))
        connection.execute(text("UPDATE store_state SET usable_from = '9999'"))
    engine.dispose()
    with pytest.raises(SchemaVersionError, match="upgrade keystead") as failure:
        await KeyManager.open("local:", store=installation.store).initialize()
    assert not may_pass(failure.value)


async def test_a_kms_that_is_away_is_waited_for(
    installation: Installation, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kms = FakeKMS(clock=clock)
    kms.fail_always(ProviderAuthError(_SECRET))

    def manager(*given: Any, **options: Any) -> KeyManager:
        return KeyManager({"cloud": kms.provider("cloud")}, default_key_id="app", store=installation.store, clock=clock)

    monkeypatch.setattr(KeyManager, "from_config", manager)
    async with installation.starting() as app:
        client = Client(app)
        await until(clock, lambda: app.state.standing.cause.component == "kms")
        status, told = await ready(client)
        assert (status, [cause["code"] for cause in told["causes"]]) == (503, ["provider_auth"])
        assert "canary" not in str(told)
        kms.heal()
        await until(clock, lambda: app.state.standing.service is not None)
        assert await ready(client) == (200, {"status": "ok"})


async def test_a_database_that_goes_away_and_comes_back_needs_no_restart(
    postgres_server: PostgresServer, postgres_url: str, clock: FakeClock, tmp_path: Path
) -> None:
    installation = Installation(tmp_path, postgres_url, clock)
    async with installation.node() as node:
        ada = await node.client("ada")
        key = await ada.key()
        postgres_server.stop()
        status, told = await ready(ada)
        assert (status, told["status"]) == (503, "not ready")
        assert [(cause["component"], cause["code"]) for cause in told["causes"]] == [("database", "store_unavailable")]
        response = await ada.post({"query": GENERATE, "variables": {"input": {"deviceId": "device-123"}}})
        assert (response.status_code, response.headers["retry-after"]) == (200, "2")
        assert response.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE", "retryAfter": 2.0}
        postgres_server.start()
        assert await ready(ada) == (200, {"status": "ok"})
        assert await ada.key() == key
        # A service that starts meanwhile waits as well.
        postgres_server.stop()
        async with installation.starting() as app:
            await until(clock, lambda: app.state.standing.cause.code == "store_unavailable")
            postgres_server.start()
            await until(clock, lambda: app.state.standing.service is not None)


async def test_a_kms_that_is_silent_for_longer_than_the_grace_is_told(node: Node, clock: FakeClock) -> None:
    client = await node.client()
    clock.advance(8000)
    status, told = await ready(client)
    assert status == 503
    assert [(cause["component"], cause["code"]) for cause in told["causes"]] == [("kms", "provider_connection")]


async def test_a_service_that_stops_says_so_and_waits_for_what_runs() -> None:
    clock, service = FakeClock(instant=False), Service.__new__(Service)
    standing = Standing(opening(service), clock)
    await standing.open()
    with standing.running:
        standing.stop()
        assert [cause.code for cause in await standing.causes()] == ["stopping"]
        draining = asyncio.create_task(standing.drain(least_s=0.0, most_s=5.0))
        await asyncio.sleep(0)
        with standing.running:
            clock.advance(1.0)
            await asyncio.sleep(0.01)
            assert not draining.done()
    with standing.running:
        # What has come later is not waited for: it is done when the server has closed its sockets.
        clock.advance(1.0)
        await asyncio.wait_for(draining, 30.0)


async def test_what_runs_for_too_long_and_what_is_asked_for_bound_the_wait() -> None:
    clock = FakeClock()
    standing = Standing(opening(), clock)
    with standing.running:
        standing.stop()
        await standing.drain(least_s=0.0, most_s=5.0)
    assert sum(clock.slept) == pytest.approx(5.0, abs=0.06)
    clock.slept.clear()
    await standing.drain(least_s=3.0, most_s=5.0)
    assert sum(clock.slept) == pytest.approx(3.0, abs=0.06)
