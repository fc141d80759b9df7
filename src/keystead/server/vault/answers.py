"""Answers in the form that clients of Vault read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from starlette.responses import Response

from keystead.server.errors import Answer, answer_of, retry_header

VERSION: Final = "/v1"
ROOMS: Final = (f"{VERSION}/transit/", f"{VERSION}/auth/", f"{VERSION}/sys/")
"""Below these paths the protocol is spoken; everything else is the service's own."""
JSON: Final = "application/json"
DENIED: Final = "permission denied"
NO_WRAPPING: Final = "response wrapping is not supported: leave X-Vault-Wrap-TTL out"
SEALED: Final = "Vault is sealed"
_HEADERS: Final = {"Cache-Control": "no-store"}
_ENVELOPE: Final[dict[str, Any]] = {"lease_id": "", "renewable": False, "lease_duration": 0}


@dataclass(frozen=True, slots=True)
class VaultAnswer:
    """What an endpoint answers.

    Attributes:
        data, auth, warnings: of the envelope.
        bare: an answer without envelope, as some of ``sys`` are; the others are ignored then.
        beside: members beside those of the envelope, which stay as they are.
    """

    data: Mapping[str, Any] | None = None
    auth: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()
    status: int = 200
    bare: Mapping[str, Any] | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)


NOTHING: Final = VaultAnswer(status=204)
"""Done, and there is nothing to tell."""


class VaultRefusalError(Exception):
    """What an endpoint refuses in words of its own; errors of ``keystead.errors`` need none, see ``refusal_of``."""

    def __init__(self, status: int, *errors: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(*errors)
        self.status = status
        self.errors = errors
        self.headers = headers or {}


def response_of(answer: VaultAnswer, request_id: str, warnings: Sequence[str] = ()) -> Response:
    """Return an answer as it is sent.

    Args:
        warnings: beside those of the answer, and after them.
    """
    if answer.status == NOTHING.status:
        return Response(None, answer.status, _HEADERS, JSON)
    content = answer.bare
    if content is None:
        told = [*answer.warnings, *warnings]
        content = {
            **answer.beside,
            "request_id": request_id,
            **_ENVELOPE,
            "data": answer.data,
            "wrap_info": None,
            "warnings": told or None,
            "auth": answer.auth,
        }
    return Response(_encoded(content), answer.status, _HEADERS, JSON)


def refused(status: int, *errors: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a refusal."""
    return Response(_encoded({"errors": errors}), status, {**_HEADERS, **(headers or {})}, JSON)


def refusal_of(error: Exception, *, to_administrator: bool = False) -> Response:
    """Return what is answered to what was raised: the one place where errors of ours take the form of Vault's.

    The status is the one that the service's table has for the error, but for who shows no good token: 403, as Vault.
    """
    if isinstance(error, VaultRefusalError):
        return refused(error.status, *error.errors, headers=error.headers)
    answer: Answer = answer_of(error, to_administrator=to_administrator)
    if answer.status == 401:
        return refused(403, DENIED)
    if answer.status == 403 and answer.approval_id is None:
        return refused(403, many(DENIED))
    return refused(answer.status, answer.message, headers=retry_header(answer.retry_after_s))


def many(text: str) -> str:
    """Return a text as Vault words what its router and its policies refuse."""
    return f"1 error occurred:\n\t* {text}\n\n"


def _encoded(content: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(content, default=dict)
    except TypeError:  # half of a surrogate pair, which somebody sent in a reference
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
