"""Which answers a route declares besides the one it is for."""

from __future__ import annotations

from typing import Any, Final

from keystead.server.rest.problems import MEDIA_TYPE

ABSENT: Final = 404
CONFLICT: Final = 409
_DONE: Final = {200: "What was asked for, or what has become of it.", 201: "What was made.", 204: "It was done."}
_TOLD: Final = {
    400: ("BadRequest", "The request is not one that can be, or names what may not be."),
    401: ("Unauthorized", "No good token was sent."),
    403: ("Forbidden", "The token lacks the scope, or its tenant does not administer this."),
    404: ("NotFound", "There is nothing of this name."),
    409: ("Conflict", "The state of what is to be changed does not allow it, or somebody else changed it meanwhile."),
    413: ("TooLarge", "The body is longer than the service reads."),
    415: ("WrongType", "The body is not `application/json` by its type."),
    500: ("Fault", "Something went wrong in the service; its log has more."),
    503: (
        "Unavailable",
        "The service cannot reach its database or its key management service, or its store is restored.",
    ),
}
ALWAYS: Final = (400, 401, 403, 413, 415, 500, 503)
"""What every route may answer."""


_CHALLENGE: Final = {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the declaration of what every route may answer, and of some statuses more."""
    return {status: {"description": _TOLD[status][1]} for status in sorted({*ALWAYS, *statuses})}


def described(status: int, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as the document has it: those of what is wrong are there once for all operations."""
    if status in _TOLD:
        return {"$ref": f"#/components/responses/{_TOLD[status][0]}"}
    return {**answer, "description": _DONE[status]}


def declared() -> dict[str, dict[str, Any]]:
    """Return the answers that the document refers to, by name."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        name: {
            "description": told,
            "content": {MEDIA_TYPE: {"schema": schema}},
            **({"headers": _CHALLENGE} if status == 401 else {}),
        }
        for status, (name, told) in _TOLD.items()
    }
