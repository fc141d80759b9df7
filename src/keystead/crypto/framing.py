"""Several values as one: a domain, then each value behind its length, so that no two lists give the same bytes."""

from __future__ import annotations

from struct import pack


def framed(domain: str, *values: str | bytes) -> bytes:
    """Return the domain, a zero byte, and each value, text as UTF-8, behind its length in four bytes."""
    encoded = (value.encode() if isinstance(value, str) else value for value in values)
    return domain.encode() + b"\x00" + b"".join(pack(">I", len(each)) + each for each in encoded)
