"""POST /graphql: what comes in, what is executed, and what is answered."""

from __future__ import annotations

import json
import logging
from inspect import isawaitable
from typing import Any, Final

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from graphql import DocumentNode, ExecutionResult, GraphQLError, execute
from graphql.execution import Executor
from starlette.types import ASGIApp, Receive, Scope, Send

from keystead.errors import InvalidInputError, KMSError
from keystead.ledger.audit.actor import audit_actor
from keystead.server.body import BodyTooLargeError, read_body
from keystead.server.errors import Answer, answer_headers, answer_of, graphql_error, retry_header
from keystead.server.graphql.context import Request
from keystead.server.graphql.documents import Documents
from keystead.server.graphql.resolvers import resolved_directly
from keystead.server.graphql.schema import new_schema
from keystead.server.headers import named_user
from keystead.server.requests import OTHER, told_of
from keystead.server.service import Service
from keystead.server.standby import GRAPHQL
from keystead.server.standing import Standing

log = logging.getLogger("keystead.server")

_INVALID: Final = "GRAPHQL_VALIDATION_FAILED"
_MEMBERS: Final = frozenset({"query", "variables", "operationName", "extensions"})


class GraphQLDoor:
    """Answers GraphQL requests over a service."""

    def __init__(self, *, is_development: bool) -> None:
        schema = new_schema(is_development=is_development)
        self.sdl: Final = schema.as_str()
        """The schema as text."""
        self._schema = resolved_directly(schema)
        self._documents = Documents(self._schema, shows_itself=is_development)

    async def answer(self, http: HttpRequest, service: Service) -> JSONResponse:
        """Return the answer to a request: 200, also to what fails; 400 and 413 to what cannot be read."""
        told = told_of(http.scope)
        told.operation = OTHER
        try:
            text, variables, name = _read(await read_body(http, service.settings.server.max_body))
        except BodyTooLargeError as exc:
            return _refused(413, str(exc))
        except InvalidInputError as exc:
            return _refused(400, str(exc))
        try:
            caller = await service.caller(http.headers.get("authorization"), named_user(http))
        except KMSError as exc:
            answer = answer_of(exc)
            told.code = answer.code
            refused = {"data": None, "errors": [graphql_error(answer)]}
            return JSONResponse(refused, headers=answer_headers(answer))
        prepared = self._documents.prepare(text)
        if prepared.document is None or prepared.errors:
            told.code = _INVALID
            return JSONResponse({"errors": [_invalid(error) for error in prepared.errors]})
        direct, arguments = prepared.direct, None
        if direct is not None and name in (None, direct.name):
            told.operation, arguments = direct.field, direct.arguments(variables or {})
        elif not prepared.has_one(name):
            return _refused(400, "the document has no operation of this name, or several and none is named")
        else:
            told.operation = prepared.operation(name) or OTHER
        request = Request(service, caller)
        with audit_actor(caller.origin):
            if direct is not None and arguments is not None:
                result = await direct.execute(request, arguments)
            else:
                result = await self._executed(prepared.document, request, variables, name)
        answered: dict[str, Any] = {"data": result.data}
        if result.errors:
            answered["errors"] = [_failed(error) for error in result.errors]
            told.code = answered["errors"][0]["extensions"]["code"]
        if request.told:
            answered["extensions"] = {"keystead": request.told}
            told.code = request.told["code"]
        waits = [error["extensions"].get("retryAfter") for error in answered.get("errors", ())]
        return JSONResponse(answered, headers=retry_header(max((each for each in waits if each), default=None)))

    async def _executed(
        self, document: DocumentNode, request: Request, variables: dict[str, Any] | None, name: str | None
    ) -> ExecutionResult:
        executed = execute(
            self._schema,
            document,
            context_value=request,
            variable_values=variables,
            operation_name=name,
            hide_suggestions=True,
            executor_class=Executor,
        )
        return await executed if isawaitable(executed) else executed


class GraphQLRoute:
    """Gives what comes to ``/graphql`` to the door at once: what a framework's router does costs more than the rest.

    It stands behind ``Standby``, so that the service is open.
    """

    def __init__(self, app: ASGIApp, door: GraphQLDoor, standing: Standing[Service]) -> None:
        self._app = app
        self._door = door
        self._standing = standing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http" or scope["path"] != GRAPHQL:
            await self._app(scope, receive, send)
            return
        if scope["method"] != "POST":
            refused = Answer("BAD_USER_INPUT", 405, "GraphQL is asked by POST")
            response = JSONResponse({"errors": [graphql_error(refused)]}, status_code=405, headers={"Allow": "POST"})
        else:
            service = self._standing.service
            assert service is not None  # noqa: S101 -- Standby lets nothing through before
            response = await self._door.answer(HttpRequest(scope, receive), service)
        await response(scope, receive, send)


def _read(body: bytes) -> tuple[str, dict[str, Any] | None, str | None]:
    """Return document, variables and the operation's name.

    Raises:
        InvalidInputError: the body is not one request.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInputError("the body is no JSON") from None
    if isinstance(given, list):
        raise InvalidInputError("one request at a time: batches are not taken")
    if not isinstance(given, dict) or not isinstance(given.get("query"), str):
        raise InvalidInputError('the body is an object with "query", a text')
    variables, name = given.get("variables"), given.get("operationName")
    if not isinstance(variables, dict | None) or not isinstance(name, str | None):
        raise InvalidInputError('"variables" is an object and "operationName" a text')
    return given["query"], variables, name


def _refused(status: int, message: str) -> JSONResponse:
    return JSONResponse({"errors": [graphql_error(Answer("BAD_USER_INPUT", status, message))]}, status_code=status)


def _invalid(error: GraphQLError) -> dict[str, Any]:
    """Return what is wrong with a document, without what could be right instead."""
    answered = error.formatted
    message = error.message.partition(" Did you mean")[0]
    return {**answered, "message": message, "extensions": {"code": _INVALID}}


def _failed(error: GraphQLError) -> dict[str, Any]:
    original = error.original_error
    if original is None or isinstance(original, GraphQLError):
        # A value that a variable cannot have.
        return {**_invalid(error), "extensions": {"code": "BAD_USER_INPUT"}}
    answer = answer_of(original)
    if answer.status >= 500:
        log.error("an operation failed", exc_info=original, extra={"path": error.path})
    places = {key: value for key, value in error.formatted.items() if key in ("locations", "path")}
    return {**graphql_error(answer), **places}
