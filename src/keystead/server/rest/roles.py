"""``/v1/admin/approle`` and ``/v1/admin/jwt``: how programs get tokens. Words are those of ``keystead token role``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Response

from keystead.access.callers import Scope, scopes_of
from keystead.ports import RoleKind, RoleRecord
from keystead.server.admin import Admin, tenant_of
from keystead.server.rest.answers import ABSENT, CONFLICT, answers
from keystead.server.rest.door import Needs
from keystead.server.rest.role_shapes import (
    NAME,
    AppRole,
    DeletedRole,
    JwtRole,
    NewAppRole,
    NewJwtRole,
    SecretId,
    ShownSecretId,
)
from keystead.server.rest.shapes import LIMIT, SHORT_ID, Cursor, Limit, Page, Subject, newest_after, newest_of

_TAGS: Final[list[str | Enum]] = ["roles"]
APPROLES: Final = "/admin/approle/roles"
JWT_ROLES: Final = "/admin/jwt/roles"
Writes = Annotated[Admin, Depends(Needs(Scope.TOKENS_WRITE))]
Name = Annotated[str, Path(alias="role", pattern=NAME, description="The role's name.", examples=["orders"])]
Id = Annotated[str, Path(alias="secretId", pattern=SHORT_ID, description="The secret id's id, never its text.")]
Tenant = Annotated[Subject | None, Query(description="Whose role it is; without it the default tenant's.")]


def register(router: APIRouter) -> None:
    """Add the routes."""
    absent = answers(ABSENT)
    router.get(APPROLES, tags=_TAGS, operation_id="listAppRoles")(list_approles)
    made = answers(CONFLICT)
    router.post(APPROLES, tags=_TAGS, operation_id="createAppRole", status_code=201, responses=made)(create_approle)
    one = f"{APPROLES}/{{role}}"
    router.get(one, tags=_TAGS, operation_id="showAppRole", responses=absent)(show_approle)
    router.delete(one, tags=_TAGS, operation_id="deleteAppRole", responses=absent)(delete_approle)
    ids = f"{one}/secret-ids"
    router.get(ids, tags=_TAGS, operation_id="listSecretIds", responses=absent)(list_secret_ids)
    router.post(ids, tags=_TAGS, operation_id="createSecretId", status_code=201, responses=absent)(create_secret_id)
    router.delete(f"{ids}/{{secretId}}", tags=_TAGS, operation_id="deleteSecretId", status_code=204, responses=absent)(
        delete_secret_id
    )
    router.get(JWT_ROLES, tags=_TAGS, operation_id="listJwtRoles")(list_jwt_roles)
    router.post(JWT_ROLES, tags=_TAGS, operation_id="createJwtRole", status_code=201, responses=made)(create_jwt_role)
    one = f"{JWT_ROLES}/{{role}}"
    router.get(one, tags=_TAGS, operation_id="showJwtRole", responses=absent)(show_jwt_role)
    router.delete(one, tags=_TAGS, operation_id="deleteJwtRole", responses=absent)(delete_jwt_role)


async def list_approles(
    by: Writes,
    tenant: Annotated[Subject | None, Query(description="Only this one's.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[AppRole]:
    """List AppRoles, the newest first; no secret id is shown."""
    shown, behind = await _listed(by, RoleKind.APPROLE, tenant, limit, cursor)
    return Page(items=[AppRole.of(row) for row in shown], next_cursor=behind)


async def create_approle(by: Writes, given: NewAppRole, response: Response) -> AppRole:
    """Make an AppRole: programs get tokens of it by its `roleId` and a secret id.

    Whoever holds `tokens:write` may give every scope, as with tokens. A role is not changed: it is deleted, and made
    anew.
    """
    return AppRole.of(await _created(by, given, response, APPROLES))


async def show_approle(by: Writes, role: Name, tenant: Tenant = None) -> AppRole:
    """Tell what an AppRole is; its secret ids are a list of their own."""
    return AppRole.of(await by.service.access.roles.get(RoleKind.APPROLE, role, tenant=tenant_of(by, tenant) or ""))


async def delete_approle(by: Writes, role: Name, tenant: Tenant = None) -> DeletedRole:
    """Delete an AppRole with its secret ids, and have its tokens be refused, on every node within five seconds."""
    revoked = await by.service.access.roles.delete(RoleKind.APPROLE, role, tenant=tenant_of(by, tenant) or "")
    return DeletedRole(revoked_tokens=revoked)


async def list_secret_ids(
    by: Writes, role: Name, tenant: Tenant = None, limit: Limit = LIMIT, cursor: Cursor = None
) -> Page[SecretId]:
    """List the secret ids of an AppRole, the newest first, those that are used up or have ended among them."""
    rows = await by.service.access.roles.secret_ids(
        role, tenant=tenant_of(by, tenant) or "", after=newest_after(cursor), limit=limit + 1
    )
    shown, behind = newest_of(rows, limit)
    return Page(items=[SecretId.model_validate(row) for row in shown], next_cursor=behind)


async def create_secret_id(by: Writes, role: Name, tenant: Tenant = None) -> ShownSecretId:
    """Make a secret id of an AppRole and show it, this once."""
    made = await by.service.access.roles.create_secret_id(role, tenant=tenant_of(by, tenant) or "")
    return ShownSecretId.of(made.row, "".join(made.text))


async def delete_secret_id(by: Writes, role: Name, secret_id: Id, tenant: Tenant = None) -> None:
    """Delete a secret id: nobody logs in by it any more. Tokens that were got by it are good until they end."""
    await by.service.access.roles.delete_secret_id(role, secret_id, tenant=tenant_of(by, tenant) or "")


async def list_jwt_roles(
    by: Writes,
    tenant: Annotated[Subject | None, Query(description="Only this one's.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[JwtRole]:
    """List the roles that JWTs show, the newest first, with the public keys that they name."""
    shown, behind = await _listed(by, RoleKind.JWT, tenant, limit, cursor)
    return Page(items=[JwtRole.of(row) for row in shown], next_cursor=behind)


async def create_jwt_role(by: Writes, given: NewJwtRole, response: Response) -> JwtRole:
    """Make a role of which programs get tokens by a JWT that somebody else signs.

    Whoever signs is `issuer`, whose keys are read, or has `publicKeys`. A role is not changed: it is deleted, and made
    anew.
    """
    return JwtRole.of(await _created(by, given, response, JWT_ROLES))


async def show_jwt_role(by: Writes, role: Name, tenant: Tenant = None) -> JwtRole:
    """Tell what a role is that JWTs show, and which JWTs those are."""
    return JwtRole.of(await by.service.access.roles.get(RoleKind.JWT, role, tenant=tenant_of(by, tenant) or ""))


async def delete_jwt_role(by: Writes, role: Name, tenant: Tenant = None) -> DeletedRole:
    """Delete a role that JWTs show, and have its tokens be refused, on every node within five seconds."""
    revoked = await by.service.access.roles.delete(RoleKind.JWT, role, tenant=tenant_of(by, tenant) or "")
    return DeletedRole(revoked_tokens=revoked)


async def _listed(
    by: Admin, kind: RoleKind, tenant: str | None, limit: int, cursor: str | None
) -> tuple[Sequence[RoleRecord], str | None]:
    rows = await by.service.access.roles.all(
        kind, tenant=tenant_of(by, tenant), after=newest_after(cursor), limit=limit + 1
    )
    return newest_of(rows, limit)


async def _created(by: Admin, given: NewAppRole | NewJwtRole, response: Response, path: str) -> RoleRecord:
    row = await by.service.access.roles.create(
        given.name, scopes_of(given.scopes), given.rules(), tenant=tenant_of(by, given.tenant) or ""
    )
    response.headers["Location"] = f"/v1{path}/{row.name}"
    return row
