"""A server that is older than the one at hand: what it would not have read is taken out of requests."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

from keystead.testing import FaultProxy


class OlderServer(FaultProxy):
    """A proxy that passes on requests without some of their fields, on paths that hold ``part``."""

    def __init__(self, upstream: str, *, without: str, part: str = "") -> None:
        self.without = without
        self.part = part
        super().__init__(upstream)

    def become_older(self, without: str) -> None:
        """Go on without another field, as a server does that takes over from a newer one."""
        self.without = without

    def connect(self) -> HTTPConnection:
        """Return a connection that leaves the fields out."""
        plain = super().connect()
        connection = _Editing(plain.host, plain.port, timeout=plain.timeout)
        connection.server = self
        return connection


class _Editing(HTTPConnection):
    server: OlderServer

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **more: Any) -> None:
        if body and self.server.part in url:
            content = json.loads(body)
            content.pop(self.server.without, None)
            for item in content.get("batch_input") or ():
                item.pop(self.server.without, None)
            body = json.dumps(content).encode()
            headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        super().request(method, url, body, headers, **more)
