"""HTTP servers for fakes of services: a function answers requests, and switches make them go wrong."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

LONGEST_SILENCE_S = 60.0


@dataclass(frozen=True)
class Request:
    """What a client sent; ``host`` is the authority it asked for, port included."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    host: str

    def json(self) -> dict[str, Any]:
        """Return the body as an object, an empty one where there is none."""
        try:
            content = json.loads(self.body or b"{}")
        except ValueError:
            content = None
        return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Response:
    """What is answered; a ``body`` that is not bytes is sent as JSON."""

    status: int = 200
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)


DROP = Response(status=0)
"""The connection is closed without an answer."""


class HttpServer:
    """A server on a port of the loopback interface.

    Attributes:
        requests: method and path of each request, in order of arrival.
        delay_s: how long each request waits before anything else.
        clock_offset_s: how far the ``Date`` header is ahead.
    """

    def __init__(
        self, answer: Callable[[Request], Response], *, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        self.answer = answer
        self.requests: list[tuple[str, str]] = []
        self.connections = 0
        self.delay_s = 0.0
        self.clock_offset_s = 0.0
        self._scheme = "http" if tls is None else "https"
        self._lock = threading.Lock()
        self._light = threading.Event()
        self._light.set()
        self._next: deque[tuple[str, Response]] = deque()
        handler = type("Handler", (_Connection,), {"fake": self})
        self._server = _Server(("127.0.0.1", port), handler)
        if tls is not None:
            # The handshake is made in the connection's own thread.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fake-http", daemon=True).start()

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"{self._scheme}://{self.authority}"

    def answer_next(self, count: int, response: Response, *, path: str = "") -> None:
        """Answer the next ``count`` requests, of those whose path holds ``path``, with ``response``."""
        with self._lock:
            self._next.extend([(path, response)] * count)

    def drop_next(self, count: int = 1, *, path: str = "") -> None:
        """Close the connection of the next ``count`` requests without an answer."""
        self.answer_next(count, DROP, path=path)

    def black_hole(self) -> None:
        """Take requests and answer none until ``heal``."""
        self._light.clear()

    def heal(self) -> None:
        """Turn every fault off."""
        self._next.clear()
        self.delay_s = self.clock_offset_s = 0.0
        self._light.set()

    def close(self) -> None:
        """Stop, and end every connection."""
        self._light.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    def respond(self, request: Request) -> Response:
        """Return the answer to ``request``, or a fault's; for the server's own connections."""
        self.requests.append((request.method, request.path))
        time.sleep(self.delay_s)
        self._light.wait(LONGEST_SILENCE_S)
        with self._lock:
            for index, (only, response) in enumerate(self._next):
                if only in request.path:
                    del self._next[index]
                    return response
        return self.answer(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *given: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *given: object) -> None:
        """Say nothing of clients that left."""


class _Connection(BaseHTTPRequestHandler):
    fake: HttpServer
    protocol_version = "HTTP/1.1"
    # Otherwise each answer waits for the acknowledgement of its own head.
    disable_nagle_algorithm = True
    wbufsize = -1

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def setup(self) -> None:
        self.fake.connections += 1
        super().setup()

    def log_message(self, *given: object) -> None:
        """Print nothing."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        response = self.fake.respond(
            Request(self.command, parts.path, query, headers, body, headers.get("host", "").lower())
        )
        if response is DROP:
            self.close_connection = True
            return
        content = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        self.send_response_only(response.status)
        self.send_header("Date", formatdate(time.time() + self.fake.clock_offset_s, usegmt=True))
        if not isinstance(response.body, bytes):
            self.send_header("Content-Type", "application/json; charset=utf-8")
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
