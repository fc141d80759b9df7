"""Which answers a route declares besides the one it is for."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from keystead.server.rest.problems import MEDIA_TYPE

ABSENT: Final = 404
CONFLICT: Final = 409
_TOLD: Final = {
    400: "The request is not one that can be, or names what may not be.",
    401: "No good token was sent.",
    403: "The token lacks the scope, or its tenant does not administer this.",
    404: "There is nothing of this name.",
    409: "The state of what is to be changed does not allow it, or somebody else changed it at the same moment.",
    413: "The body is longer than the service reads.",
    415: "The body is not `application/json` by its type.",
    500: "Something went wrong in the service; its log has more.",
    503: "The service cannot reach its database or its key management service, or its store is restored.",
}
ALWAYS: Final = (400, 401, 403, 413, 415, 500, 503)
"""What every route may answer."""


_CHALLENGE: Final = {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the declaration of what every route may answer, and of some statuses more."""
    return {status: {"description": _TOLD[status]} for status in sorted({*ALWAYS, *statuses})}


def reference(status: int) -> dict[str, str]:
    """Return what stands for an answer in the document."""
    return {"$ref": f"#/components/responses/{_name(status)}"}


def declared() -> dict[str, dict[str, Any]]:
    """Return the answers that the document refers to, by name."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        _name(status): {
            "description": told,
            "content": {MEDIA_TYPE: {"schema": schema}},
            **({"headers": _CHALLENGE} if status == HTTPStatus.UNAUTHORIZED else {}),
        }
        for status, told in _TOLD.items()
    }


def _name(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")
