"""Waiting for what a server says, with a socket that stays registered with the event loop between two statements.

To register one anew for each statement, as the driver does, takes ten calls of the system, and more than that around.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Final


class Ears:
    """Those of one connection of the driver and one event loop.

    What is registered is a socket of its own on the same connection, and so its own to close: the driver may close its
    socket at any moment, and what is opened next has the same number.
    """

    def __init__(self, pgconn: Any) -> None:
        self._pgconn: Final = pgconn
        self._socket: socket.socket | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def are_open(self) -> bool:
        """Whether nothing was said that nobody waited for, as far as the event loop has told."""
        return self._socket is not None

    async def hear(self) -> None:
        """Wait until the server has said something, or is gone."""
        loop = asyncio.get_running_loop()
        if self._socket is None:
            self._socket = socket.fromfd(self._pgconn.socket, socket.AF_UNSPEC, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            loop.add_reader(self._socket, self._tell, loop)
        self._waiting = loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting is not None:
            if not self._waiting.done():
                self._waiting.set_result(None)
        elif self._socket is not None and _has_more(self._socket):
            # A farewell, mostly. Nobody reads it now, and it would be told of again and again.
            loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:
        # The event loop, which held this as long as the socket was registered, is gone.
        with contextlib.suppress(AttributeError):
            if self._socket is not None:
                self._socket.close()


def _has_more(ours: socket.socket) -> bool:
    """Whether something is unread: asyncio tells once more of what is read a moment later."""
    try:
        ours.recv(1, socket.MSG_PEEK)
    except OSError as exc:
        return not isinstance(exc, BlockingIOError)
    return True
