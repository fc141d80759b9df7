"""The parameters of a request out of its body, read as Vault does."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from keystead.server.body import BodyTooLargeError, read_body
from keystead.server.vault.answers import VaultRefusalError

MAX_BODY: Final = 32 * 1024 * 1024
MAX_STRINGS: Final = 1000
"""JSON strings in a body, names among them."""
_FORM: Final = "application/x-www-form-urlencoded"
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


async def parameters(request: Request, most: int = MAX_BODY) -> dict[str, Any]:
    """Return the parameters; none where the body is empty or ``null``. Of a name that is there twice the last counts.

    A body is JSON, whatever its type says: only one that is declared a form and does not begin as JSON is a form.

    Raises:
        VaultRefusalError: it is longer than ``most`` bytes (413), no object, or of too many strings (400).
    """
    try:
        body = await read_body(request, most)
    except BodyTooLargeError:
        raise VaultRefusalError(413, "http: request body too large") from None
    if not body or body.isspace():
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _FORM and body.lstrip()[:1] not in (b"{", b"["):
        return _form(body)
    return _object(body)


def _object(body: bytes) -> dict[str, Any]:
    # Two marks to a string: with fewer marks there cannot be more strings, and nothing need be counted.
    if body.count(b'"') > 2 * MAX_STRINGS and sum(1 for _ in _STRING.finditer(body)) > MAX_STRINGS:
        raise _too_complex()
    try:
        given = json.loads(body)
    except RecursionError:
        raise _too_complex("exceeded maximum nesting depth") from None
    except ValueError as exc:
        told = exc.msg if isinstance(exc, json.JSONDecodeError) else "no UTF-8"
        raise VaultRefusalError(400, f"failed to decode JSON input: {told}") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise VaultRefusalError(400, "failed to decode JSON input: it is no object")
    return given


def _form(body: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_STRINGS // 2)
    except ValueError:
        raise VaultRefusalError(400, "failed to parse form input") from None
    return dict(pairs)


def _too_complex(why: str = "exceeded maximum number of strings") -> VaultRefusalError:
    return VaultRefusalError(400, f"refused JSON input due to high complexity: {why}")
