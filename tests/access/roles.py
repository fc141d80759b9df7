"""Roles as tests make them."""

from __future__ import annotations

from typing import Any, Final

from keystead.access.callers import AnyScope, scopes_of
from keystead.access.role_rules import AppRoleRules, JwtRules
from keystead.manager.access import Access, access
from keystead.manager.manager import KeyManager

SCOPES: Final[frozenset[AnyScope]] = scopes_of(["transit:encrypt:orders-*"])


def approle(**given: Any) -> AppRoleRules:
    """Return the rules of an AppRole, some of them changed."""
    rules = {"token_ttl_s": 3600, "secret_id_ttl_s": 86_400, "secret_id_uses": 100}
    return AppRoleRules(**{**rules, **given})


def jwt_role(**given: Any) -> JwtRules:
    """Return the rules of a role that JWTs show, some of them changed."""
    rules = {"token_ttl_s": 3600, "audiences": ("keystead",)}
    return JwtRules(**{**rules, **given})


class Program:
    """A program that logs in to an AppRole at a node.

    Attributes:
        role_id, secret_id: what it shows.
    """

    def __init__(self, room: Access, role_id: str, secret_id: str) -> None:
        self.room = room
        self.role_id = role_id
        self.secret_id = secret_id

    async def logs_in(self, room: Access | None = None) -> str:
        """Return the text of a new token, got at the node or at another."""
        login = await (room or self.room).logins.approle(self.role_id, self.secret_id)
        return "".join(login.token.text)


async def program(km: KeyManager, name: str = "orders", *, tenant: str = "", **rules: Any) -> Program:
    """Make an AppRole, and a program that has a secret id of it."""
    room = await access(km)
    role = await room.roles.create(name, SCOPES, approle(**rules), tenant=tenant)
    made = await room.roles.create_secret_id(name, tenant=tenant)
    return Program(room, role.id, "".join(made.text))
