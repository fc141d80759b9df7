"""One port of several processes: one takes its connections, and deals them out to the others in turn.

Of a socket that all of them listen on, whoever wakes first takes every connection that waits; of a socket for each of
them, the kernel chooses one by chance. A client that keeps sixteen connections open would wait for the process that
has most of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from keystead.errors import ConfigurationError

if TYPE_CHECKING:
    from ssl import SSLContext

log = logging.getLogger("keystead.server")

BACKLOG: Final = 2048
"""Connections that wait at most, as uvicorn has it."""
LOOP: Final = f"{__name__}:new_loop"
"""What makes the event loop of such a process, as uvicorn is told."""
_LOOK_S: Final = 0.5
_FULL_S: Final = 0.01
_ANSWERED_S: Final = 5.0
"""How long who deals may take until it knows that a process leaves; it knows at once."""
_A_CONNECTION: Final = b"c"


class PortOfSeveral:
    """A port that is taken; connections wait from now on. It is given back when its block ends, or by ``close``.

    Attributes:
        number: of the port, also where any was asked for.
        joining: what each process is given in place of a socket to listen on.

    Raises:
        ConfigurationError: it is taken already, or not to be had.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host: Final = host
        if not hasattr(socket, "send_fds"):
            raise ConfigurationError("several processes cannot share a port on this system: leave --workers out")
        try:
            self._port = _listening(host, port)
        except OSError as exc:
            raise ConfigurationError(f"server.port: {host}:{port} cannot be listened on: {exc.strerror}") from None
        self.number: Final[int] = self._port.getsockname()[1]
        self.joining, self._joined = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._processes: list[socket.socket] = []
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    def close(self) -> None:
        """Deal out no more, and give the port back."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
        for each in (self._port, self.joining, self._joined, *self._processes):
            each.close()

    def url(self, *, is_tls: bool) -> str:
        """Return where it is reached."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if is_tls else 'http'}://{host}:{self.number}"

    def deal(self, until: threading.Event) -> None:
        """Deal out connections, in a thread.

        Args:
            until: once it is set and no process takes any more, they are refused; before that they wait for one.
        """
        self._thread = threading.Thread(target=self._deal, args=(until,), name="keystead-port", daemon=True)
        self._thread.start()

    def _deal(self, until: threading.Event) -> None:
        with selectors.DefaultSelector() as ready, self._port:
            ready.register(self._joined, selectors.EVENT_READ)
            while not self._is_over.is_set() and (self._processes or not until.is_set()):
                for key, _ in ready.select(_LOOK_S):
                    if key.fileobj is self._joined:
                        self._add(ready)
                    elif key.fileobj is self._port:
                        self._deal_one(ready)
                    elif isinstance(key.fileobj, socket.socket):
                        # A process says nothing but that it is gone.
                        self._remove(key.fileobj, ready)

    def _add(self, ready: selectors.BaseSelector) -> None:
        _, descriptors, _, _ = socket.recv_fds(self._joined, 1, 1)
        for descriptor in descriptors:
            process = socket.socket(fileno=descriptor)
            process.setblocking(False)
            ready.register(process, selectors.EVENT_READ)
            if not self._processes:
                ready.register(self._port, selectors.EVENT_READ)
            self._processes.append(process)

    def _remove(self, process: socket.socket, ready: selectors.BaseSelector) -> None:
        if process not in self._processes:
            return
        self._processes.remove(process)
        ready.unregister(process)
        process.close()
        if not self._processes:
            ready.unregister(self._port)

    def _deal_one(self, ready: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._port.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as exc:
            # No descriptors are left, or no memory: what waits goes on waiting.
            log.warning("connections wait, for none can be taken: %s", exc.strerror)
            time.sleep(_LOOK_S)
            return
        with connection:
            while self._processes and not self._is_over.is_set():
                for process in list(self._processes):
                    if self._is_given(connection, process, ready):
                        return
                # Each has hundreds that it has not begun with, or the system has too many on their way.
                self._is_over.wait(_FULL_S)

    def _is_given(self, connection: socket.socket, process: socket.socket, ready: selectors.BaseSelector) -> bool:
        try:
            socket.send_fds(process, [_A_CONNECTION], [connection.fileno()])
        except ConnectionError:
            self._remove(process, ready)
            return False
        except OSError:
            return False
        self._processes.remove(process)
        self._processes.append(process)
        return True


class _Taking:
    """What uvicorn has for a server: it takes the connections that are dealt to this process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        joining: socket.socket,
        new_protocol: Callable[[], asyncio.BaseProtocol],
        tls: SSLContext | None,
    ) -> None:
        self._loop, self._new_protocol, self._tls = loop, new_protocol, tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._dealt, theirs = socket.socketpair()
        self._dealt.setblocking(False)
        with theirs:
            socket.send_fds(joining, [_A_CONNECTION], [theirs.fileno()])
        loop.add_reader(self._dealt, self._take)

    def close(self) -> None:
        """Take no more than what is dealt until who deals knows of it, and has closed its end."""
        if self._dealt.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            self._dealt.shutdown(socket.SHUT_WR)
        with selectors.DefaultSelector() as said:
            said.register(self._dealt, selectors.EVENT_READ)
            give_up = time.monotonic() + _ANSWERED_S
            while not self._has_ended() and (left_s := give_up - time.monotonic()) > 0:
                said.select(left_s)
        self._leave()

    async def wait_closed(self) -> None:
        """Return when what was taken has begun."""
        await asyncio.gather(*self._tasks)

    def _take(self) -> None:
        # It may be called once more for what it was told of before it left.
        if self._dealt.fileno() >= 0 and self._has_ended():
            # Who deals has gone, and nobody else tells this process to.
            self._leave()
            os.kill(os.getpid(), signal.SIGTERM)

    def _has_ended(self) -> bool:
        """Begin with what was dealt; return whether nothing comes any more."""
        while True:
            try:
                said, descriptors, _, _ = socket.recv_fds(self._dealt, len(_A_CONNECTION), 1)
            except BlockingIOError:
                return False
            except OSError:
                return True
            if not said:
                return True
            for descriptor in descriptors:
                task = self._loop.create_task(self._begin(socket.socket(fileno=descriptor)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _leave(self) -> None:
        self._loop.remove_reader(self._dealt)
        self._dealt.close()

    async def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._new_protocol, connection, ssl=self._tls)
        except OSError as exc:
            # It has gone, or does not speak TLS.
            connection.close()
            log.debug("a connection did not begin: %s", exc.strerror)


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that serves what is dealt to it, where it is to listen on ``joining``."""
    base: Any = asyncio.SelectorEventLoop
    with contextlib.suppress(ImportError):
        from uvloop import Loop as base  # noqa: N813

    class Dealt(base):  # type: ignore[misc]
        async def create_server(self, new_protocol: Any, *given: Any, sock: Any = None, **options: Any) -> Any:
            if sock is None or (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_DGRAM):
                return await super().create_server(new_protocol, *given, sock=sock, **options)
            return _Taking(self, sock, new_protocol, options.get("ssl"))

    loop: asyncio.AbstractEventLoop = Dealt()
    return loop


def _listening(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made
