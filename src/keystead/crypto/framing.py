"""Several values as one: a domain, then each value behind its length, so that no two lists give the same bytes."""

from __future__ import annotations


def framed(domain: str, *values: str | bytes) -> bytes:
    """Return the domain, a zero byte, and each value, text as UTF-8, behind its length in four bytes."""
    parts = [domain.encode(), b"\x00"]
    for value in values:
        encoded = value.encode() if isinstance(value, str) else value
        parts += len(encoded).to_bytes(4, "big"), encoded
    return b"".join(parts)
