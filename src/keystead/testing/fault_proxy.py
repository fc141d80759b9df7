"""A proxy in front of a KMS that speaks HTTP, whose faults are switches.

    with FaultProxy("http://127.0.0.1:8200") as proxy:
        provider = VaultKMSProvider(VaultConfig(vault_addr=proxy.url, token=...))
        proxy.fail_next(2, status=503)     # two answers are errors, the third is the service's own
        proxy.black_hole()                 # nothing is answered any more
        proxy.heal()

Requests are passed on as they are, and answers come back as they are: what is tested is the client's own reaction.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import urlsplit

LONGEST_SILENCE_S: Final = 120.0
"""How long a black hole keeps a connection that nobody closes."""
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"})


@dataclass(frozen=True, slots=True)
class Fault:
    """What one request meets instead of the service.

    Attributes:
        status: an answer with this status, ``body`` and ``headers``.
        drops: the connection is closed without an answer; ``after_the_call``: once the service has done it.
        truncates: the service's answer is cut in half, and the connection closed.
    """

    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drops: bool = False
    after_the_call: bool = False
    truncates: bool = False


class FaultProxy:
    """A reverse proxy on a port of the loopback interface.

    Args:
        upstream: the service, ``http://host:port`` or ``https://host:port``.
        upstream_tls: how the service's certificate is checked; the system's authorities where None.
        tls: the proxy's own certificate, where the client insists on TLS.

    Attributes:
        requests: method and path of each request, in order of arrival.
        delay_s: how long each request waits before anything else.
    """

    def __init__(
        self, upstream: str, *, upstream_tls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._upstream = urlsplit(upstream)
        self._upstream_tls = upstream_tls
        self._tls = tls
        self._lock = threading.Lock()
        self._light = threading.Event()
        self._next: deque[tuple[str, Fault]] = deque()
        self._standing: Callable[[int], Fault | None] | None = None
        self._seen = 0
        self.requests: list[tuple[str, str]] = []
        self.delay_s = 0.0
        self._light.set()
        self._port = 0
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    def fail_next(
        self,
        count: int = 1,
        *,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        path: str = "",
    ) -> None:
        """Answer the next ``count`` requests, of those whose path holds ``path``, with an error."""
        self._add(count, path, Fault(status=status, body=body, headers=headers or {}))

    def drop_next(self, count: int = 1, *, after_the_call: bool = False, path: str = "") -> None:
        """Close the connection of the next ``count`` requests without an answer."""
        self._add(count, path, Fault(drops=True, after_the_call=after_the_call))

    def truncate_next(self, count: int = 1, *, path: str = "") -> None:
        """Cut the next ``count`` answers in half."""
        self._add(count, path, Fault(truncates=True))

    def fail_every(self, nth: int, *, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer every ``nth`` request with an error until ``heal``; 1 is all of them."""
        fault = Fault(status=status, body=body, headers=headers or {})
        self._seen = 0
        self._standing = lambda number: fault if number % nth == 0 else None

    def black_hole(self) -> None:
        """Take requests and answer none until ``heal``."""
        self._light.clear()

    def refuse(self) -> None:
        """Refuse connections until ``heal``; those that are open are closed."""
        self._stop()

    def heal(self) -> None:
        """Turn every fault off. Requests in a black hole go on to the service."""
        with self._lock:
            self._next.clear()
            self._standing = None
        self.delay_s = 0.0
        self._light.set()
        if self._server is None:
            self._start()

    def close(self) -> None:
        """Stop, and let go of whoever still waits."""
        self._light.set()
        self._stop()

    def take_fault(self, path: str) -> Fault | None:
        """Return what the request at hand meets; for the proxy's own connections."""
        with self._lock:
            self._seen += 1
            for index, (only, fault) in enumerate(self._next):
                if only in path:
                    del self._next[index]
                    return fault
            return self._standing(self._seen) if self._standing is not None else None

    def wait_for_light(self) -> None:
        """Wait while the proxy is a black hole; for the proxy's own connections."""
        time.sleep(self.delay_s)
        self._light.wait(LONGEST_SILENCE_S)

    def connect(self) -> HTTPConnection:
        """Return a connection to the service; for the proxy's own connections."""
        host, port = self._upstream.hostname or "", self._upstream.port
        if self._upstream.scheme == "https":
            return HTTPSConnection(host, port, context=self._upstream_tls, timeout=60)
        return HTTPConnection(host, port, timeout=60)

    def _add(self, count: int, path: str, fault: Fault) -> None:
        with self._lock:
            self._next.extend([(path, fault)] * count)

    def _start(self) -> None:
        handler = type("Handler", (_Connection,), {"proxy": self})
        self._server: _Server | None = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        if self._tls is not None:
            # The handshake is made in the connection's own thread: a client that makes none keeps nobody waiting.
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fault-proxy", daemon=True).start()

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.hang_up()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *given: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, and serve it in a thread of its own."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection once it is closed."""
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End every connection."""
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *given: object) -> None:
        """Say nothing of clients that left."""


class _Connection(BaseHTTPRequestHandler):
    """One client's connection, with one to the service behind it."""

    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    # Otherwise each answer waits for the acknowledgement of its own head.
    disable_nagle_algorithm = True
    wbufsize = -1
    _service: HTTPConnection | None = None

    def __getattr__(self, name: str) -> Any:
        # Every method is passed on, those of one service only as well, such as LIST.
        if name.startswith("do_"):
            return self._pass_on
        raise AttributeError(name)

    def log_message(self, *given: object) -> None:
        """Print nothing."""

    def finish(self) -> None:
        """Close the connection to the service along with the client's."""
        super().finish()
        if self._service is not None:
            self._service.close()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.proxy.requests.append((self.command, self.path))
        fault = self.proxy.take_fault(self.path)
        self.proxy.wait_for_light()
        if fault is not None and fault.drops and not fault.after_the_call:
            self.close_connection = True
            return
        if fault is not None and fault.status is not None:
            self._answer(fault.status, list(fault.headers.items()), fault.body)
            return
        try:
            status, headers, content = self._ask(body)
        except (OSError, HTTPException):
            self.close_connection = True
            return
        if fault is not None and fault.drops:
            self.close_connection = True
        elif fault is not None and fault.truncates:
            self.close_connection = True
            self._answer(status, headers, content, cut=True)
        else:
            self._answer(status, headers, content)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        if self._service is None:
            self._service = self.proxy.connect()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        self._service.request(self.command, self.path, body, headers)
        answer = self._service.getresponse()
        content = answer.read()
        return answer.status, answer.getheaders(), content

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.wfile.flush()
