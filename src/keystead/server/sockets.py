"""Sockets of several processes on one port: one for each, so that the kernel spreads connections over all of them.

Of one socket that all of them listen on, whoever wakes first takes every connection that waits.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from keystead.errors import ConfigurationError


class PortOfSeveral:
    """A port that is taken; each process that this is sent to gets a socket of its own on it.

    Attributes:
        number: of the port, also where any was asked for.

    Raises:
        ConfigurationError: it is taken already, or not to be had.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host: Final = host
        if not hasattr(socket, "SO_REUSEPORT"):
            raise ConfigurationError("several processes cannot share a port on this system: leave --workers out")
        try:
            # Programs of one user may share a port, and would not be told: so it is asked for alone first.
            with _bound(host, port, is_shared=False) as alone:
                self.number: Final[int] = alone.getsockname()[1]
            self._held = _bound(host, self.number, is_shared=True)
        except OSError as exc:
            raise ConfigurationError(f"server.port: {host}:{port} cannot be listened on: {exc.strerror}") from None

    def url(self, *, is_tls: bool) -> str:
        """Return where it is reached."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if is_tls else 'http'}://{host}:{self.number}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_one, (self._host, self.number)


def _of_one(host: str, port: int) -> socket.socket:
    return _bound(host, port, is_shared=True)


def _bound(host: str, port: int, *, is_shared: bool) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made
