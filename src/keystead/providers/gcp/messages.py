"""Requests to Cloud KMS and its answers, whose content goes with checksums in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keystead.errors import ProviderConnectionError


@dataclass(frozen=True, slots=True)
class Messages:
    """The SDK's messages, once it is loaded: ``service`` and ``resources``."""

    service: Any
    resources: Any
    _crc32c: Any

    def crc32c(self, data: bytes) -> int:
        """Return the checksum that goes with ``data``, and comes back with an answer."""
        return int(self._crc32c.value(data))

    def request(self, kind: str, name: str, **data: bytes) -> Any:
        """Return a request about the key ``name`` that holds ``data``, each with its checksum.

        Made of the message inside the SDK's: its own constructor takes some times as long.
        """
        made = getattr(self.service, kind)
        sums = {f"{field}_crc32c": {"value": self.crc32c(content)} for field, content in data.items()}
        return made.wrap(made.pb()(name=name, **data, **sums))

    def content(self, answer: Any, field: str) -> bytes:
        """Return what a field of an answer holds.

        Raises:
            ProviderConnectionError: its checksum is not there, or does not fit.
        """
        message = type(answer).pb(answer)
        content: bytes = getattr(message, field)
        told = f"{field}_crc32c"
        # One that is missing reads as 0, which is the checksum of nothing.
        is_intact = message.HasField(told) and getattr(message, told).value == self.crc32c(content)
        require_intact(is_intact, f"the {field} and its checksum differ")
        return content


class HiddenRequest:
    """A request with a plaintext in it, which the SDK's own repr would show in the frames of a traceback."""

    __slots__ = ("message",)

    def __init__(self, message: Any) -> None:
        self.message = message


def inner(request: Any) -> Any:
    """Return the SDK's message of a request, hidden or not."""
    return request.message if isinstance(request, HiddenRequest) else request


def require_intact(is_intact: bool, what: str) -> None:
    """Refuse an answer whose checksums or names do not fit; asking again may help.

    Raises:
        ProviderConnectionError: naming what did not fit.
    """
    if not is_intact:
        raise ProviderConnectionError(f"an answer of Cloud KMS was altered on its way: {what}")
