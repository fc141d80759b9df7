"""What AWS KMS says on the wire, as a test scripts it: for what neither emulator gets right.

    with AwsWire() as wire:
        wire.answer("GenerateDataKey", KeyId=ARN, Plaintext=bytes(32), CiphertextBlob=b"wrapped", KeyMaterialId="m1")
        wire.refuse("Decrypt", "IncorrectKeyException")

Requests are checked against botocore's model of KMS before they leave, and recorded here as they arrive.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self, TypeAlias

JSON: Final = "application/x-amz-json-1.1"
REQUEST_ID: Final = "12345678-abcd-4ef0-9876-0123456789ab"
_SCOPE: Final = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/")

Body: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """A request as it arrived.

    Attributes:
        action: as in ``GenerateMac``; of other services of AWS, ``Action=`` of the form that was posted.
        access_key, region: what it was signed with and for; empty if it was not signed.
        port: the client's end of the connection.
    """

    action: str
    body: Body
    access_key: str
    region: str
    port: int = 0

    def blob(self, name: str) -> bytes:
        """Return a field that holds bytes."""
        return base64.b64decode(self.body[name])


@dataclass(frozen=True)
class Reply:
    """An answer: status, body, headers."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class AwsWire:
    """A server on a port of the loopback interface. Answers are given in the order they were scripted.

    Attributes:
        requests: what arrived, in order.
        expired: access keys whose requests are answered by ``ExpiredTokenException``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        handler = type("Handler", (_Connection,), {"wire": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="aws-wire", daemon=True).start()
        self.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def actions(self) -> list[str]:
        """The actions that were asked for, in order."""
        return [request.action for request in self.requests]

    @property
    def connections(self) -> int:
        """How many connections clients hold."""
        return len(self._server.open)

    def reset(self) -> None:
        """Forget scripts and requests."""
        self.requests: list[Request] = []
        self.expired: set[str] = set()
        self._scripted: dict[str, deque[Reply]] = defaultdict(deque)
        self._standing: dict[str, Callable[[Body], Body | Reply]] = {}

    def answer(self, action: str, /, **fields: Any) -> None:
        """Answer the next request for ``action``."""
        self._scripted[action].append(success(fields))

    def refuse(
        self,
        action: str,
        code: str,
        *,
        status: int = 400,
        message: str = "what AWS says of it",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse the next request for ``action``."""
        self._scripted[action].append(refusal(code, status=status, message=message, headers=headers))

    def reply(self, action: str, reply: Reply) -> None:
        """Answer the next request for ``action`` with just this."""
        self._scripted[action].append(reply)

    def always(self, action: str, answer: Callable[[Body], Body | Reply]) -> None:
        """Answer every request for ``action`` that has no answer of its own."""
        self._standing[action] = answer

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def take(self, request: Request) -> Reply:
        """Record a request and return its answer; for the server's own connections."""
        with self._lock:
            self.requests.append(request)
            if request.access_key in self.expired:
                return refusal("ExpiredTokenException")
            if scripted := self._scripted[request.action]:
                return scripted.popleft()
        standing = self._standing.get(request.action)
        if standing is None:
            return refusal("NobodyScriptedThis", status=418)
        answer = standing(request.body)
        return answer if isinstance(answer, Reply) else success(answer)


def success(fields: Body) -> Reply:
    """Return an answer of AWS's JSON protocol: bytes in base64, times in seconds."""
    return Reply(200, json.dumps(dict(fields), default=_on_the_wire).encode(), {"Content-Type": JSON})


def refusal(
    code: str,
    *,
    status: int = 400,
    message: str = "what AWS says of it",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Return an error of AWS's JSON protocol."""
    body = json.dumps({"__type": code, "message": message}).encode()
    return Reply(status, body, {"Content-Type": JSON, **(headers or {})})


def _on_the_wire(value: object) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(type(value).__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *given: Any) -> None:
        self.open: set[object] = set()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection."""
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection once it is closed."""
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *given: object) -> None:
        """Say nothing of clients that left."""


class _Connection(BaseHTTPRequestHandler):
    wire: AwsWire
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *given: object) -> None:
        """Print nothing."""

    def do_POST(self) -> None:  # http.server's name
        """Answer one request."""
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = self.headers.get("X-Amz-Target", "")
        scope = _SCOPE.search(self.headers.get("Authorization", ""))
        access_key, region = scope.groups() if scope else ("", "")
        port = self.client_address[1]
        if target:
            request = Request(target.rpartition(".")[2], json.loads(content or b"{}"), access_key, region, port)
        else:
            form = dict(pair.partition("=")[::2] for pair in content.decode().split("&"))
            request = Request(form.get("Action", ""), form, access_key, region, port)
        reply = self.wire.take(request)
        self.send_response_only(reply.status)
        for name, value in {"x-amzn-RequestId": REQUEST_ID, **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)
        self.wfile.flush()
