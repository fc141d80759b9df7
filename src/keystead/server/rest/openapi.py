"""The document that describes the administration: OpenAPI 3.1, public as the code is."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from keystead import __version__
from keystead.server.rest.answers import declared, described
from keystead.server.rest.door import AdminRoute
from keystead.server.rest.problems import Problem

_ABOUT: Final = """\
Administration of a key service: keyrings and data keys, API tokens and sessions, devices and lockouts, jobs and the
audit trail. Keys themselves never leave it, and nothing is encrypted or signed here.

Every operation takes a token, and one scope of it. A token of a tenant administers that tenant's tokens, sessions,
devices and lockouts, and nothing that belongs to the whole store. A back end with the scope `act-as` names its user in
`X-Keystead-User`, in UTF-8; the scopes stay those of its token.

What fails is answered as problem details (RFC 9457). No answer is to be kept by a cache.
"""
_TAGS: Final = {
    "keyrings": "Keyrings, and where their ciphertexts lie.",
    "keys": "Data keys, each a version of a keyring, over their lives.",
    "store": "The store as a whole.",
    "tokens": "API tokens: who may call, and what for.",
    "roles": "Roles by which programs get tokens: AppRoles and their secret ids, and roles that JWTs show.",
    "approvals": "What waits for a second person, where the store asks for two.",
    "sessions": "Sessions of people at the console.",
    "devices": "Devices of the caller's tenant, and their key pairs.",
    "users": "Users of the caller's tenant.",
    "lockouts": "Secrets of users of the caller's tenant that are locked after wrong attempts.",
    "jobs": "What is done from time to time, and re-encryptions of live tables.",
    "audit": "The audit trail of the store.",
}
_BEARER: Final = "token"


def document(router: APIRouter) -> dict[str, Any]:
    """Return the document over the routes of a router."""
    made = get_openapi(
        title="Keystead administration",
        version=__version__,
        summary="REST for administration of a key service",
        description=_ABOUT,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        tags=[{"name": name, "description": told} for name, told in _TAGS.items()],
        routes=router.routes,
    )
    schemas: dict[str, Any] = made["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema(mode="serialization", by_alias=True)
    made["components"]["responses"] = declared()
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    made["components"]["securitySchemes"] = {
        _BEARER: {"type": "http", "scheme": "bearer", "description": "A token, as `keystead token create` shows it."}
    }
    for route in router.routes:
        if isinstance(route, AdminRoute):
            _complete(route, made["paths"][route.path_format])
    untitled: dict[str, Any] = _untitled(made)
    untitled["info"]["title"] = made["info"]["title"]
    return untitled


def _complete(route: AdminRoute, operations: dict[str, Any]) -> None:
    """Say which scope an operation takes, and leave out what never happens."""
    scope = route.needs.scope
    for method in route.methods or ():
        operation = operations[method.lower()]
        operation["responses"] = {
            status: described(int(status), answer)
            for status, answer in sorted(operation["responses"].items())
            # What cannot be is answered with 400, whoever finds it out.
            if status != "422"
        }
        operation["summary"] = _words(route)
        operation["description"] = f"{operation['description']}\n\nScope: `{scope}`."
        operation["security"] = [{_BEARER: [str(scope)]}]


def _untitled(part: Any) -> Any:
    """Return a part of the document without the names that are made of other names."""
    if isinstance(part, list):
        return [_untitled(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {name: _untitled(each) for name, each in part.items() if not (name == "title" and isinstance(each, str))}


def _words(route: APIRoute) -> str:
    """Return the operation's name as words."""
    spelled = "".join(f" {sign.lower()}" if sign.isupper() else sign for sign in route.operation_id or "")
    return spelled.capitalize()
