"""HTTP with the method LIST, which clients of Vault send and the parser of HTTP does not know."""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PROTOCOL: Final = f"{__name__}:ListingProtocol"
"""What speaks HTTP, as uvicorn is told."""
_LIST: Final = b"LIST "
_GET: Final = b"GET "


class ListingProtocol(HttpToolsProtocol):
    """One connection. A LIST is read as a GET, which has the same form, and told to the application as what it is.

    Of requests that are sent ahead of an answer, only the first may be one.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._is_between = True
        self._is_list = False
        self._begun = b""

    def data_received(self, data: bytes) -> None:
        """Take what came in."""
        if self._is_between:
            data = self._begun + data
            self._begun = b""
            if data.startswith(_LIST):
                self._is_list = True
                data = _GET + data[len(_LIST) :]
            elif data and _LIST.startswith(data):
                self._begun = data
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        self._is_between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Give the request to the application."""
        super().on_headers_complete()
        if self._is_list:
            # The application runs in a task of its own, which has not begun.
            self.scope["method"] = "LIST"
            self._is_list = False

    def on_message_complete(self) -> None:
        """Note that a request is over."""
        super().on_message_complete()
        self._is_between = True
