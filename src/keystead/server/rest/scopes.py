"""Scopes as the administration takes and tells them."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from keystead.access.callers import MAX_SCOPES, Scope, scopes_of
from keystead.access.transit_scopes import MAX_SCOPE, PATTERN
from keystead.errors import InvalidInputError

_SCHEMA: Final = {
    "anyOf": [
        {"type": "string", "enum": sorted(Scope)},
        {"type": "string", "pattern": PATTERN, "maxLength": MAX_SCOPE, "examples": ["transit:encrypt:orders-*"]},
    ]
}


def _scope(text: str) -> str:
    try:
        scopes_of([text])
    except InvalidInputError as exc:
        raise ValueError(str(exc)) from None
    return text


Scopes = Annotated[
    list[Annotated[str, AfterValidator(_scope), WithJsonSchema(_SCHEMA)]],
    Field(min_length=1, max_length=MAX_SCOPES, description="What it may do.", examples=[["transit:encrypt:orders-*"]]),
]
"""Scopes of the service, and of the engine."""
