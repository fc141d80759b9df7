"""Headers of requests."""

from __future__ import annotations

from fastapi import Request

from keystead.errors import InvalidInputError


def named_user(http: Request) -> str | None:
    """Return the user that a caller acts for; HTTP has its bytes as Latin-1, and they are UTF-8.

    Raises:
        InvalidInputError: they are not.
    """
    named = http.headers.get("x-keystead-user")
    try:
        return None if named is None else named.encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise InvalidInputError("X-Keystead-User is text in UTF-8") from None
