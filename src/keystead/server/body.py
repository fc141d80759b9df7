"""Bodies of requests, of which no more is read than is allowed."""

from __future__ import annotations

from fastapi import Request


class BodyTooLargeError(Exception):
    """The body is longer than a request's may be."""


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        BodyTooLargeError: it is longer than ``most`` bytes; no more than these were kept.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise BodyTooLargeError(f"a request has up to {most} bytes")
        parts.append(part)
    return b"".join(parts)
