"""Requests as bytes on a connection, and what comes back, with nothing in between that would mend either."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 120
IDLE_S: Final = 1.0
_DOTS: Final = re.compile(r"/[^/]+/\.\./")


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    Attributes:
        path, query: with their escapes; dot segments of the path are resolved before it is sent.
        headers: a body is JSON where they name no ``Content-Type``.
        body: a JSON value, or None for no body; ``raw`` is sent in its place where it is given.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    raw: bytes | None = None

    @property
    def sent_path(self) -> str:
        """The path as it is sent."""
        return _DOTS.sub("/", self.path)

    @property
    def target(self) -> str:
        """Path and query as they are sent."""
        return self.sent_path + (f"?{self.query}" if self.query else "")

    @property
    def content(self) -> bytes | None:
        """The body, as it is sent."""
        if self.raw is not None:
            return self.raw
        return None if self.body is None else json.dumps(self.body).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: None where the connection was closed instead.
        headers: with their names in lower case.
        body: a JSON value; ``{"$text": ...}`` where it is none; None where it is empty.
    """

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def errors(self) -> list[str]:
        """The texts of its errors; none where it has none, or they are not as they should be."""
        errors = self.body.get("errors") if isinstance(self.body, dict) else None
        return [each for each in errors if isinstance(each, str)] if isinstance(errors, list) else []


class Line:
    """A connection to a server, opened again when it was closed, or has not been used for a while."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        self._used_at = time.monotonic()

    def send(self, request: Request) -> Answer:
        """Return the answer to a request."""
        # A server may close what nobody uses at the moment when it is used again.
        if time.monotonic() - self._used_at > IDLE_S:
            self._connection.close()
        try:
            response = self._sent(request)
            content = response.read()
        except (HTTPException, ConnectionError):
            self._connection.close()
            return Answer(None)
        finally:
            self._used_at = time.monotonic()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, _value(content))

    def _sent(self, request: Request) -> HTTPResponse:
        kind = {} if request.content is None else {"Content-Type": "application/json"}
        # A server that refuses a body without reading it answers all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.request(request.method, request.target, request.content, {**kind, **request.headers})
        return self._connection.getresponse()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _value(content: bytes) -> Any:
    if not content:
        return None
    with contextlib.suppress(ValueError):
        return json.loads(content)
    return {"$text": content.decode(errors="replace")}
