"""HTTP with any method: clients of Vault send LIST, which the parser of HTTP does not know."""

from __future__ import annotations

import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PROTOCOL: Final = f"{__name__}:AnyMethodProtocol"
"""What speaks HTTP, as uvicorn is told."""
_KNOWN: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT"})
_METHOD: Final = re.compile(rb"([A-Z]{1,32}) ")
_BEGUN: Final = re.compile(rb"[A-Z]{1,32}")
_GET: Final = b"GET "


class AnyMethodProtocol(HttpToolsProtocol):
    """One connection. A method that is not known is read as a GET, which has the same form, and told as what it is.

    Of requests that are sent ahead of an answer, only the first may have one.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._is_between = True
        self._method: str | None = None
        self._begun = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        """Take what came in."""
        if 0 < self._left < len(data):
            # Who was answered before the body was all here may have sent the next request right behind it.
            data, behind = data[: self._left], data[self._left :]
            super().data_received(data)
            if self.transport.is_closing():
                return
            data = behind
        if self._is_between:
            data, self._begun = self._begun + data, b""
            found = _METHOD.match(data)
            if found is not None and found[1] not in _KNOWN:
                self._method = found[1].decode()
                data = _GET + data[found.end() :]
            elif found is None and _BEGUN.fullmatch(data):
                self._begun = data
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        self._is_between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Give the request to the application."""
        # The parser has seen to it that there is one at most, and that it is a number; none is told of chunks.
        self._left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        super().on_headers_complete()
        if self._method is not None:
            # The application runs in a task of its own, which has not begun.
            self.scope["method"], self._method = self._method, None

    def on_body(self, body: bytes) -> None:
        """Count what is left of the body."""
        self._left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is over."""
        super().on_message_complete()
        self._left = 0
        self._is_between = True
