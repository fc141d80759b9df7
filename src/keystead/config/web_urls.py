"""URLs of services that are read over the network: encrypted, unless they are on this machine."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from keystead.errors import ConfigurationError

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
LONGEST: Final = 2048


def require_web_url(url: str, *, may_have_query: bool = False, may_be_plain: bool = True) -> None:
    """Raise unless a URL can be read as it stands.

    Args:
        may_be_plain: whether ``http`` is taken where the host is this machine.

    Raises:
        ConfigurationError: it cannot; the message does not repeat it.
    """
    form = "a URL reads https://host[:port][/path], without credentials" + ("" if may_have_query else " and query")
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > LONGEST:
        raise ConfigurationError(form)
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigurationError(form) from None
    if not is_whole or parts.scheme not in ("http", "https") or "@" in parts.netloc or "#" in url:
        raise ConfigurationError(form)
    if "?" in url and not may_have_query:
        raise ConfigurationError(form)
    if parts.scheme == "http" and not (may_be_plain and is_loopback(url)):
        raise ConfigurationError("a URL begins with https://; http:// is for this machine alone")


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine."""
    return urlsplit(url).hostname in LOOPBACK
