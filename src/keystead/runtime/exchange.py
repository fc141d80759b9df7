"""One request over HTTP: a deadline for all of it, an answer of a bounded size, and no redirect that is followed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from http.client import HTTPConnection

_HEADERS: Final = {"User-Agent": "keystead", "Connection": "close"}


class ExchangeError(Exception):
    """There is no answer; the text says why, and neither where nor what was asked."""


class AnswerTooLargeError(ExchangeError):
    """The answer is longer than it may be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered, whatever its status; ``kind`` is the content type, empty where none is given."""

    status: int
    kind: str
    content: bytes


def exchange(
    method: str, url: str, *, deadline: float, most: int, body: bytes | None = None, headers: Mapping[str, str] = {}
) -> Answer:
    """Send a request and return its answer. A certificate has to be good for the host, by the system's authorities.

    Args:
        url: ``http`` or ``https``; the caller has seen that it is one.
        deadline: of ``time.monotonic``. The system's resolver alone may take longer.
        most: bytes of an answer.

    Raises:
        ExchangeError: nothing, or no HTTP, was answered in time.
        AnswerTooLargeError: the answer is longer than ``most`` bytes.
    """
    from http.client import HTTPException

    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    watch = _Watch(deadline)
    try:
        connection = watch.connected(parts.scheme, parts.hostname or "", parts.port)
        connection.request(method, target, body, {**_HEADERS, **headers})
        answer = connection.getresponse()
        content = answer.read(most + 1)
        if time.monotonic() >= deadline:
            raise TimeoutError
    except (OSError, HTTPException, UnicodeError) as exc:
        raise ExchangeError(getattr(exc, "strerror", None) or type(exc).__name__) from None
    finally:
        watch.end()
    if len(content) > most:
        raise AnswerTooLargeError(f"the answer has more than {most} bytes")
    if answer.length:
        raise ExchangeError("the answer was cut short")
    return Answer(answer.status, answer.headers.get("Content-Type", ""), content)


class _Watch:
    """Hangs up at a deadline: an answer of one byte now and then would hold the caller up for hours."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._timer: threading.Timer | None = None
        self._connection: HTTPConnection | None = None

    def connected(self, scheme: str, host: str, port: int | None) -> HTTPConnection:
        """Return a connection, which is hung up when its time has come, be it in the handshake."""
        from http.client import HTTPConnection, HTTPSConnection

        if scheme == "https":
            import ssl

            context = ssl.create_default_context()
            self._connection = HTTPSConnection(host, port, context=context)
        else:
            self._connection = HTTPConnection(host, port)
        address = self._connection.host, self._connection.port
        plain = socket.create_connection(address, timeout=max(0.001, self._deadline - time.monotonic()))
        self._sock = self._connection.sock = plain
        self._timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), self._hang_up)
        self._timer.daemon = True
        self._timer.start()
        if scheme == "https":
            secured = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            self._sock = self._connection.sock = secured
            secured.do_handshake()
        return self._connection

    def end(self) -> None:
        """Close the connection, and watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.close()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            # Not by the method of a TLS socket, which would take its state from under the one who reads.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
