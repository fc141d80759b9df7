"""What is answered where something is wrong: problem details, RFC 9457, always in one shape."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from keystead.errors import InvalidInputError, KMSError
from keystead.server.body import BodyTooLargeError
from keystead.server.error_page import PATH
from keystead.server.errors import INTERNAL, Answer, answer_headers, answer_of

log = logging.getLogger("keystead.server")

MEDIA_TYPE: Final = "application/problem+json"
BAD_INPUT: Final = "BAD_USER_INPUT"
NO_STORE: Final = {"Cache-Control": "no-store"}
_CODES: Final = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
_TOLD: Final = 5
"""How many faults of one request are named."""


class Problem(BaseModel):
    """What is wrong. Programs act on ``code``, or on ``type`` where they need to know more exactly."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)

    type: str = Field(
        description="The error's section in the page of errors that the service shows; `about:blank` where the status "
        "says it all.",
        examples=["/errors.md#key_not_found"],
    )
    title: str = Field(description="The kind of problem, in words.", examples=["Key not found"])
    status: int = Field(description="The status of the answer.", ge=400, le=599, examples=[404])
    detail: str = Field(
        description="What is wrong here, and what to do about it. It may change between releases.",
        examples=["no keyring 'orders' in this store; `keystead key create orders` makes it"],
    )
    code: str = Field(description="The kind of problem, for programs.", examples=["NOT_FOUND"])
    retry_after: float | None = Field(default=None, description="Seconds until it may succeed, where they are known.")
    approval_id: str | None = Field(
        default=None, description="What somebody else has to approve first, where the store asks for two people."
    )


class WrongTypeError(Exception):
    """The body is not of the type that is taken."""


def problem(answer: Answer, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an answer as problem details."""
    given = Problem(
        type="about:blank" if answer.error is None else f"{PATH}#{answer.error}",
        title=_title(answer),
        status=answer.status,
        detail=answer.message,
        code=answer.code,
        retry_after=answer.retry_after_s,
        approval_id=answer.approval_id,
    )
    told = {**NO_STORE, **(headers or {}), **answer_headers(answer)}
    body = given.model_dump(by_alias=True, exclude_none=True)
    return JSONResponse(body, answer.status, told, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> JSONResponse:
    """Return what is answered to whatever a route or what stands before it has raised."""
    answer = _answer(error)
    if answer.status >= 500:
        log.error("a request failed", exc_info=error)
    return problem(answer)


def refuses(router: APIRouter) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    """Return what answers where no route takes a request; of a path of the router every method is told."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            return problem(INTERNAL)
        headers = dict(error.headers or {})
        taken = {
            method
            for route in router.routes
            if isinstance(route, APIRoute) and route.path_regex.match(request.scope["path"])
            for method in route.methods or ()
        }
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and taken:
            headers["Allow"] = ", ".join(sorted(taken))
        return problem(_by_status(error.status_code), headers)

    return refused


def _answer(error: Exception) -> Answer:
    if isinstance(error, KMSError):
        return answer_of(error, to_administrator=True)
    if isinstance(error, RequestValidationError):
        return _bad_input(400, "; ".join(map(_fault, error.errors()[:_TOLD])))
    if isinstance(error, BodyTooLargeError):
        return _bad_input(413, str(error))
    if isinstance(error, WrongTypeError):
        return _bad_input(415, str(error))
    if isinstance(error, HTTPException):
        return _by_status(error.status_code)
    return INTERNAL


def _by_status(status: int) -> Answer:
    phrase = HTTPStatus(status).phrase
    return Answer(_CODES.get(status, BAD_INPUT if status < 500 else INTERNAL.code), status, phrase)


def _bad_input(status: int, detail: str) -> Answer:
    return Answer(BAD_INPUT, status, detail, error=InvalidInputError.code)


def _title(answer: Answer) -> str:
    if answer.error is None:
        return HTTPStatus(answer.status).phrase
    return answer.error.replace("_", " ").capitalize()


def _fault(fault: Mapping[str, Any]) -> str:
    """Return what is wrong with a request and where, without anything that was sent."""
    place: Sequence[object] = fault["loc"]
    if fault["type"] == "extra_forbidden":
        return f"{_place(place[:-1])} has a member that is not known"
    return f"{_place(place)}: {str(fault['msg']).removeprefix('Value error, ')}"


def _place(place: Sequence[object]) -> str:
    return ".".join(map(str, place))
