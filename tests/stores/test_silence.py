"""A PostgreSQL server, or the network to it, that leaves everything without an answer and closes no connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext

import pytest
from sqlalchemy import URL, make_url

from keystead.errors import StoreUnavailableError
from keystead.stores import engines, open_store
from keystead.stores.schema import migrate
from keystead.stores.urls import parse_url


class Line:
    """A network to a server, which can go silent."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._listener: asyncio.Server | None = None

    async def open(self) -> int:
        """Listen, and return the port."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def go_silent(self) -> None:
        """Pass nothing on any more, and take no further connection."""
        self._is_open.clear()
        assert self._listener is not None
        self._listener.close()

    async def close(self) -> None:
        self.go_silent()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, to_them = await self._connected()
        self._writers += [writer, to_them]
        for source, target in ((reader, to_them), (theirs, writer)):
            task = asyncio.create_task(self._pass_on(source, target))
            self._tasks.add(task)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        folder, port = self._server.query.get("host"), self._server.port or 5432
        if isinstance(folder, str):
            return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self._server.host, port)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._is_open.wait()
            target.write(data)
            await target.drain()
        target.close()


@pytest.fixture
async def line(postgres_url: str) -> AsyncIterator[tuple[Line, str]]:
    """A network to a server, and the URL of a store behind it."""
    migrate(postgres_url)
    url = make_url(postgres_url)
    network = Line(url)
    port = await network.open()
    there = url.set(host="127.0.0.1", port=port).difference_update_query(["host"])
    yield network, there.render_as_string(hide_password=False)
    await network.close()


@pytest.mark.parametrize(
    ("where", "is_writing"),
    [("before", False), ("within", False), ("at a part", True), ("within a part", True), ("at the end", True)],
)
async def test_a_server_that_does_not_answer_is_unavailable(
    line: tuple[Line, str], monkeypatch: pytest.MonkeyPatch, where: str, is_writing: bool
) -> None:
    network, url = line
    store = open_store(url)
    await store.open()
    monkeypatch.setattr(engines, "SILENCE_S", 0.2)
    with pytest.raises(StoreUnavailableError):
        if where == "before":
            network.go_silent()
        async with store.transaction() if is_writing else store.reading() as work:
            await work.state()
            if where == "within":
                network.go_silent()
                await work.state()
            if where == "at a part":
                network.go_silent()
            async with work.savepoint() if "part" in where else nullcontext():
                network.go_silent()
    await store.aclose()


def test_an_option_of_the_url_stands_above_its_default() -> None:
    given = parse_url("postgresql://host/keys?tcp_user_timeout=7&keepalives_idle=3")
    arguments = engines._postgresql_arguments(given)
    assert not {"tcp_user_timeout", "keepalives_idle"} & arguments.keys()
    assert engines._postgresql_arguments(parse_url("postgresql://host/keys"))["tcp_user_timeout"] > 0
