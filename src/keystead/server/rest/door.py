"""What every request passes before its route sees it: who calls, what it may do, and what it sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from keystead.access.callers import Scope
from keystead.errors import InvalidInputError
from keystead.server.actors import on_behalf_of
from keystead.server.admin import Admin
from keystead.server.body import read_body
from keystead.server.headers import named_user
from keystead.server.requests import told_of
from keystead.server.rest.problems import NO_STORE, WrongTypeError, problem_of
from keystead.server.service import Service

JSON: Final = "application/json"


class Needs:
    """A dependency: a scope that a route takes. A route that has none cannot be made.

    Args:
        is_of_store: what the route is about belongs to no tenant, and so callers of a tenant are refused.
    """

    def __init__(self, scope: Scope, *, is_of_store: bool = False) -> None:
        self.scope = scope
        self.is_of_store = is_of_store

    def __call__(self, request: Request) -> Admin:
        """Return who was admitted."""
        admitted: Admin = request.state.admin
        return admitted

    async def admit(self, request: Request) -> Admin:
        """Return who calls.

        Raises:
            UnauthenticatedError: nobody shows a good token.
            ForbiddenError: it lacks the scope, or is of a tenant.
        """
        service: Service = request.app.state.standing.service
        by = await service.caller(request.headers.get("authorization"), named_user(request))
        by.require(self.scope)
        if self.is_of_store:
            by.require_all_tenants()
        return Admin(service, by)


class AdminRoute(APIRoute):
    """A route of the administration: what it does is done on behalf of the caller, as the audit trail says."""

    @property
    def needs(self) -> Needs:
        """What the route takes.

        Raises:
            TypeError: not exactly one scope.
        """
        found = [each.call for each in self.dependant.dependencies if isinstance(each.call, Needs)]
        if len(found) != 1:
            raise TypeError(f"{self.path} takes exactly one scope")
        return found[0]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request, whatever is the matter with it."""
        handle, needs = super().get_route_handler(), self.needs
        names = {each.alias for each in self.dependant.query_params}
        takes_body = self.body_field is not None

        async def answer(request: Request) -> Response:
            told_of(request.scope).operation = self.operation_id
            try:
                admin = await needs.admit(request)
                request.state.admin = admin
                await _check(request, admin.service.settings.server.max_body, names, takes_body=takes_body)
                with on_behalf_of(admin.by):
                    response = await handle(request)
            except Exception as exc:
                return problem_of(exc)
            response.headers.update(NO_STORE)
            return response

        return answer


async def _check(request: Request, most: int, names: set[str], *, takes_body: bool) -> None:
    """Read the body, and refuse what the route would not look at.

    Raises:
        BodyTooLargeError: a body of more than ``most`` bytes.
        WrongTypeError: one that is not JSON by its type.
        InvalidInputError: one that is not JSON, or where none is taken; a parameter that there is not.
    """
    # From here on the body is there for whoever asks the request.
    request._body = body = await read_body(request, most)
    if not set(request.query_params) <= names:
        raise InvalidInputError(f"the query has a parameter that is not known; there are: {_listed(names)}")
    if not body:
        return
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise WrongTypeError(f"a body is {JSON}")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInputError("the body is no JSON") from None
    if not takes_body and given != {}:
        raise InvalidInputError("this takes no body")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
