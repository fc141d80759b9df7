"""One port of several processes: each gets as many connections as the others, and none is lost to one that has gone."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from keystead.errors import ConfigurationError
from keystead.server import sockets
from keystead.server.sockets import PortOfSeveral, new_loop


class Said(asyncio.Protocol):
    """Says a name to whoever connects, and then what it is told."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._name)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Serving:
    """What stands for a process here: a thread with an event loop that is given a port."""

    def __init__(self, port: PortOfSeveral, name: bytes) -> None:
        self._loop = new_loop()
        self._server: Any = None
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(self._serve(port, name))

    async def _serve(self, port: PortOfSeveral, name: bytes) -> None:
        self._server = await self._loop.create_server(lambda: Said(name), sock=port.joining)

    async def _close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    def leave(self) -> None:
        """Take no more."""
        self._run(self._close())

    def end(self) -> None:
        """Take no more, and be done."""
        self.leave()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for transport in asyncio.all_tasks(self._loop):
            transport.cancel()
        self._loop.close()

    def _run(self, action: Any) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(10)


@pytest.fixture
def port() -> Iterator[PortOfSeveral]:
    with PortOfSeveral("127.0.0.1", 0) as port:
        yield port


@contextmanager
def dealt(port: PortOfSeveral, *names: bytes) -> Iterator[list[Serving]]:
    until = threading.Event()
    port.deal(until)
    processes = [Serving(port, name) for name in names]
    try:
        # Each has joined once a connection comes to it.
        give_up = time.monotonic() + 60
        while {asked(port) for _ in names} != set(names):
            assert time.monotonic() < give_up
        yield processes
    finally:
        until.set()
        for process in processes:
            process.end()


@contextmanager
def connected(port: PortOfSeveral) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port.number), timeout=10) as connection:
        yield connection


def asked(port: PortOfSeveral) -> bytes:
    """Return who takes a new connection."""
    with connected(port) as connection:
        return connection.recv(9)


def test_connections_are_dealt_out_in_turn(port: PortOfSeveral) -> None:
    with dealt(port, b"a", b"b", b"c"), contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(port)) for _ in range(30)]
        names = [connection.recv(9) for connection in held]
        assert sorted(names) == [b"a"] * 10 + [b"b"] * 10 + [b"c"] * 10
        assert [set(names[at : at + 3]) for at in range(0, 30, 3)] == [{b"a", b"b", b"c"}] * 10
        held[-1].sendall(b"heard")
        assert held[-1].recv(9) == b"heard"


def test_who_leaves_gets_no_more_and_keeps_what_he_has(port: PortOfSeveral) -> None:
    with dealt(port, b"a", b"b") as (first, _), contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(port)) for _ in range(2)]
        of_first = next(each for each in held if each.recv(9) == b"a")
        first.leave()
        assert {asked(port) for _ in range(6)} == {b"b"}
        of_first.sendall(b"still")
        assert of_first.recv(9) == b"still"


def test_connections_wait_until_somebody_takes_them(port: PortOfSeveral) -> None:
    until = threading.Event()
    port.deal(until)
    with connected(port) as early:
        first = Serving(port, b"a")
        assert early.recv(9) == b"a"
        first.leave()
        with connected(port) as between:
            second = Serving(port, b"b")
            assert between.recv(9) == b"b"
    until.set()
    first.end()
    second.end()


def test_once_it_is_over_connections_are_refused(port: PortOfSeveral) -> None:
    with dealt(port, b"a"):
        pass
    give_up = time.monotonic() + 60
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < give_up:
            socket.create_connection(("127.0.0.1", port.number), timeout=10).close()


def test_who_does_not_begin_with_what_he_has_gets_no_more_and_takes_it_with_him(port: PortOfSeveral) -> None:
    with dealt(port, b"a"), contextlib.ExitStack() as stack:
        idle, theirs = socket.socketpair()
        with idle, theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            socket.send_fds(port.joining, [b"c"], [theirs.fileno()])
            held = [stack.enter_context(connected(port)) for _ in range(40)]
            answered = [
                bool(select.select([each], (), (), 0.5 if number == 0 else 0.1)[0]) for number, each in enumerate(held)
            ]
            assert 0 < answered.count(False) < 20
            assert all(answered[-10:])
        lost = held[answered.index(False)]
        assert lost.recv(9) == b""
        assert {asked(port) for _ in range(4)} == {b"a"}


def test_a_taken_port_is_refused(port: PortOfSeveral) -> None:
    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port.number} cannot be listened on"):
        PortOfSeveral("127.0.0.1", port.number)
    assert port.url(is_tls=True) == f"https://127.0.0.1:{port.number}"


def test_what_is_dealt_to_who_is_just_leaving_is_begun_with(
    port: PortOfSeveral, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dealer has taken a connection, and deals it out while the process looks for the last time, or later."""
    has_taken, may_deal, has_dealt = threading.Event(), threading.Event(), threading.Event()
    deal, leave = PortOfSeveral._deal_one, sockets._Taking._leave

    def slow_deal(self: PortOfSeveral, ready: Any) -> None:
        has_taken.set()
        may_deal.wait(60)
        deal(self, ready)
        has_dealt.set()

    def leave_late(self: Any) -> None:
        may_deal.set()
        has_dealt.wait(60)
        leave(self)

    until = threading.Event()
    port.deal(until)
    first = Serving(port, b"a")
    try:
        assert asked(port) == b"a"
        monkeypatch.setattr(PortOfSeveral, "_deal_one", slow_deal)
        monkeypatch.setattr(sockets._Taking, "_leave", leave_late)
        with connected(port) as late:
            has_taken.wait(60)
            slow = threading.Timer(0.2, may_deal.set)
            slow.start()
            first.leave()
            assert late.recv(9) == b"a"
            slow.join()
    finally:
        until.set()
        first.end()
