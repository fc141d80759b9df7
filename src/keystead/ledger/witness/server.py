"""A witness over HTTP, for a few logs: small requests, few threads, nothing kept but what the witness remembers.

TLS and names belong to what stands in front of it; what is said here is signed, and secret to nobody.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, Final

from keystead.errors import ConfigurationError
from keystead.ledger.tlog.cosignature import WitnessSigner
from keystead.ledger.witness.witness import MAX_REQUEST_BYTES, Witness, WitnessAnswer

log = logging.getLogger("keystead.witness")

MAX_CONNECTIONS: Final = 32
IDLE_S: Final = 10.0
CONNECTION_S: Final = 30.0
"""How long one connection may last, however busy it keeps the witness."""
MAX_HEAD_BYTES: Final = 1 << 14
STOP_WITHIN_S: Final = 5.0
_CHECKPOINT: Final = re.compile(r"/([0-9a-f]{64})/checkpoint\Z")
_LENGTH: Final = re.compile(r"[0-9]{1,9}\Z")


class WitnessServer(ThreadingMixIn, HTTPServer):
    """Serves a witness: ``POST /add-checkpoint``, ``GET /<hash of a log's origin>/checkpoint``, ``GET /``.

    Raises:
        ConfigurationError: it cannot listen there.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], witness: Witness, signers: Sequence[WitnessSigner]) -> None:
        self.witness = witness
        self.about = about(signers)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._connections: dict[socket.socket, float] = {}
        self._turn = threading.Lock()
        try:
            self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
            super().__init__(address, _Handler)
        except (OSError, OverflowError, UnicodeError) as exc:
            told = getattr(exc, "strerror", None) or type(exc).__name__
            raise ConfigurationError(f"the witness cannot listen at {address[0]}:{address[1]}: {told}") from None

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def server_bind(self) -> None:
        """Bind, and look no name up."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, or hang up where there are as many as there may be."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._turn:
            self._connections[request] = time.monotonic() + CONNECTION_S
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._turn:
                self._connections.pop(request, None)
            self._places.release()

    def service_actions(self) -> None:
        """End connections that have lasted too long; a reader of one byte now and then holds no place for ever."""
        now = time.monotonic()
        with self._turn:
            late = [request for request, until in self._connections.items() if until < now]
        for request in late:
            _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say that a connection failed, and nothing of what it said."""
        log.info("a connection to the witness failed")

    def close(self) -> None:
        """Let what is being answered end, and stop listening; call it once ``serve_forever`` has returned."""
        self.server_close()
        until = time.monotonic() + STOP_WITHIN_S
        while self._connections and time.monotonic() < until:
            time.sleep(0.02)
        for request in list(self._connections):
            _hang_up(request)


def about(signers: Sequence[WitnessSigner]) -> str:
    """Return what the witness says of itself."""
    keys = "".join(f"{each.key.key.vkey}\n" for each in signers)
    return f"A witness of transparency logs (c2sp.org/tlog-witness): POST /add-checkpoint\n\n{keys}"


class _Rationed:
    """A file whose lines end where a ration does."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.left = MAX_HEAD_BYTES
        self.read, self.close = file.read, file.close

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(min(self.left, size) if size >= 0 else self.left)
        self.left -= len(line)
        return line


class _Handler(BaseHTTPRequestHandler):
    server: WitnessServer
    protocol_version = "HTTP/1.1"
    server_version = "keystead"
    sys_version = ""
    timeout = IDLE_S
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(message)s\n"

    def setup(self) -> None:
        """Give the head of each request no more than its ration."""
        super().setup()
        self._ration = self.rfile = _Rationed(self.rfile)  # type: ignore[assignment]  # all that is asked of it

    def parse_request(self) -> bool:
        """Refuse a head that is longer than any client's."""
        is_good = super().parse_request()
        if is_good and self._ration.left <= 0:
            self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return False
        self._ration.left = MAX_HEAD_BYTES
        return is_good

    def do_GET(self) -> None:
        """Answer what the witness is, or the last checkpoint of a log."""
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self._end(HTTPStatus.BAD_REQUEST)
        elif self.path == "/":
            self._answer(WitnessAnswer(200, self.server.about))
        elif found := _CHECKPOINT.match(self.path):
            self._answer(self.server.witness.checkpoint(found[1]))
        else:
            self._answer(WitnessAnswer(404, "there is nothing here\n"))

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """Answer a request for a cosignature."""
        size = self._size()
        if size is None:
            return
        if self.path != "/add-checkpoint":
            self._end(HTTPStatus.NOT_FOUND)
            return
        body = self.rfile.read(size)
        if len(body) == size:
            answer = self.server.witness.add_checkpoint(body)
            log.info("add-checkpoint: %d", answer.status)
            self._answer(answer)
        else:
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        """Ask for a body only where it would be taken."""
        return self._size() is not None and super().handle_expect_100()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what a stranger sends does not belong into a log as it is."""

    def _size(self) -> int | None:
        """Return how long the body is, None where that has been refused."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len(lengths) != 1:
            self._end(HTTPStatus.LENGTH_REQUIRED)
        elif not _LENGTH.match(lengths[0]):
            self._end(HTTPStatus.BAD_REQUEST)
        elif int(lengths[0]) > MAX_REQUEST_BYTES:
            self._end(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            return int(lengths[0])
        return None

    def _end(self, status: HTTPStatus) -> None:
        """Refuse, and read nothing more of what was sent."""
        self.close_connection = True
        self._answer(WitnessAnswer(status.value, f"{status.phrase.lower()}\n"))

    def _answer(self, answer: WitnessAnswer) -> None:
        content = answer.body.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
