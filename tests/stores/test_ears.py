"""A connection that stays registered with the event loop: what a server says is heard, and nothing is left behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from keystead.stores.ears import Ears


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The driver's socket, and the server's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def ears_of(ours: socket.socket) -> Ears:
    return Ears(SimpleNamespace(socket=ours.fileno()))


async def heard(ears: Ears, ours: socket.socket) -> bytes:
    async with asyncio.timeout(10):
        await ears.hear()
    return ours.recv(10)


async def test_what_is_said_is_heard_each_time(line: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = line
    ears = ears_of(ours)
    for _ in range(3):
        hearing = asyncio.create_task(heard(ears, ours))
        await asyncio.sleep(0)
        theirs.send(b"said")
        assert await hearing == b"said"
        await asyncio.sleep(0.01)
        assert ears.are_open


async def test_what_is_said_unasked_is_left_to_who_listens_next(line: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = line
    ears = ears_of(ours)
    theirs.send(b"first")
    await ears.hear()
    await asyncio.sleep(0.01)
    assert not ears.are_open
    assert await heard(ears, ours) == b"first"


async def test_a_connection_that_the_driver_closed_is_closed(line: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = line
    ears = ears_of(ours)
    theirs.send(b"said")
    assert await heard(ears, ours) == b"said"
    ours.close()
    theirs.close()
    await asyncio.sleep(0.01)
    assert not ears.are_open


async def test_who_gives_up_leaves_the_next_one_to_hear(line: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = line
    ears = ears_of(ours)
    given_up = asyncio.create_task(ears.hear())
    await asyncio.sleep(0)
    given_up.cancel()
    theirs.send(b"said")
    await asyncio.gather(given_up, return_exceptions=True)
    assert await heard(ears, ours) == b"said"


def test_what_a_loop_leaves_behind_is_closed(line: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = line
    ears = ears_of(ours)
    theirs.send(b"said")
    asyncio.run(heard(ears, ours))
    kept = ears._socket
    assert kept is not None
    del ears
    assert kept.fileno() == -1
