"""What OpenBao's administrators ask for, in the words of Keystead's administrative API.

Policies become scopes, ``transit:<operation>:<pattern of key names>``. Roles of AppRole and JWT are Keystead's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tests.transit.replay.wire import Answer, Line, Request
from tests.transit.targets.target import AppRole, Grant, Operation

ADMINISTRATOR: Final = ("tokens:write", "transit:*:*")
"""The scopes of a token that may do everything here."""
DEFAULT_POLICY: Final = ("transit:read:-",)
"""What a token may do that has no policy but ``default``. A token has to have a scope, so it is one of no use."""

TOKENS: Final = "/v1/tokens"
APP_ROLES: Final = "/v1/admin/approle/roles"
JWT_ROLES: Final = "/v1/admin/jwt/roles"

_RULE: Final = re.compile(r'path "(?:transit/)?([^"]*)" \{ capabilities = \[([^]]*)\]')
_OPERATION_OF_PATH: Final[tuple[tuple[str, str], ...]] = (
    (r"keys/?", Operation.LIST),
    (r"keys/([^/]+)/config", Operation.CONFIGURE),
    (r"keys/([^/]+)/rotate", Operation.ROTATE),
    (r"keys/([^/]+)/trim", Operation.TRIM),
    (r"keys/([^/]+)", Operation.READ),
    (r"encrypt/([^/]+)", Operation.ENCRYPT),
    (r"decrypt/([^/]+)", Operation.DECRYPT),
    (r"rewrap/([^/]+)", Operation.REWRAP),
    (r"datakey/wrapped/([^/]+)", "datakey-wrapped"),
    (r"datakey/plaintext/([^/]+)", Operation.DATAKEY),
    (r"hmac/([^/]+)(?:/.*)?", Operation.HMAC),
    (r"sign/([^/]+)(?:/.*)?", Operation.SIGN),
    (r"verify/([^/]+)(?:/.*)?", Operation.VERIFY),
)


def scopes_of(grants: Iterable[Grant]) -> list[str]:
    """Return the scopes that grants are."""
    return sorted({f"transit:{grant.operation}:{grant.keys}" for grant in grants})


def scopes_of_policy(text: str) -> list[str]:
    """Return the scopes that a policy of the recordings is."""
    allowed: set[str] = set()
    denied: set[str] = set()
    for path, listed in _RULE.findall(text):
        capabilities = set(re.findall(r'"([a-z]+)"', listed))
        scopes = set(_scopes(path, capabilities))
        if "deny" in capabilities:
            denied |= {scope.split(":")[1] for scope in scopes}
        else:
            allowed |= scopes
    return sorted(scope for scope in allowed if scope.split(":")[1] not in denied)


def _scopes(path: str, capabilities: set[str]) -> Iterable[str]:
    if path == "*":
        yield from (f"transit:{operation}:*" for operation in Operation)
        return
    for pattern, operation in _OPERATION_OF_PATH:
        if (named := re.fullmatch(pattern, path)) is not None:
            keys = named[1] if named.re.groups else "*"
            if operation != Operation.ENCRYPT or capabilities != {"create"}:
                yield f"transit:{operation}:{keys}"
            if operation == Operation.ENCRYPT and "create" in capabilities:
                yield f"transit:{Operation.CREATE}:{keys}"
            return


class Administration:
    """The administrator of a service, who is asked in OpenBao's words."""

    def __init__(self, url: str, token: str) -> None:
        self._line = Line(url)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._policies: dict[str, list[str]] = {"default": list(DEFAULT_POLICY), "root": list(ADMINISTRATOR)}
        self._mounted: set[str] = set()
        self._jwt: Mapping[str, Any] = {}

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def new_token(self, scopes: Sequence[str], **options: Any) -> str:
        """Return a new token."""
        given = {"user": "somebody", "scopes": list(scopes), **options}
        return str(self._made(TOKENS, given)["token"])

    def new_app_role(self, name: str, scopes: Sequence[str], **options: Any) -> AppRole:
        """Make a role and return what logs in with it."""
        made = self._made(APP_ROLES, {"name": name, "scopes": list(scopes), **options})
        secret = self._made(f"{APP_ROLES}/{name}/secret-ids", {})
        return AppRole(str(made["role_id"]), str(secret["secret_id"]))

    def new_jwt_role(
        self, name: str, scopes: Sequence[str], *, issuer: str, keys: Sequence[str], bound: Mapping[str, Any]
    ) -> None:
        """Make a role for the tokens of an issuer."""
        self._made(JWT_ROLES, {"name": name, "scopes": list(scopes), "issuer": issuer, "keys": list(keys), **bound})

    def translated(self, request: Request) -> Answer | None:
        """Do what a request is for; None where Keystead is to be sent it as it stands."""
        if self._headers["Authorization"] != f"Bearer {request.headers.get('X-Vault-Token')}":
            return None
        body = request.body if isinstance(request.body, dict) else {}
        if request.method in ("POST", "PUT"):
            for pattern, act in (
                (r"/v1/sys/(?:mounts|auth)/(transit|approle|jwt)", self._mount),
                (r"/v1/sys/policies/acl/([^/]+)", self._write_policy),
                (r"/v1/auth/token/(create)", self._create_token),
                (r"/v1/auth/jwt/(config)", self._configure_jwt),
                (r"/v1/auth/jwt/role/([^/]+)", self._write_jwt_role),
                (r"/v1/auth/approle/role/([^/]+)", self._write_app_role),
                (r"/v1/auth/approle/role/([^/]+)/role-id", self._set_role_id),
                (r"/v1/auth/approle/role/([^/]+)/secret-id", self._new_secret_id),
            ):
                if (named := re.fullmatch(pattern, request.path)) is not None:
                    return act(named[1], body)
        return None

    def _mount(self, path: str, _: Mapping[str, Any]) -> Answer:
        if path in self._mounted:
            return Answer(400, body={"errors": [f"path is already in use at {path}/"]})
        self._mounted.add(path)
        return Answer(204)

    def _write_policy(self, name: str, body: Mapping[str, Any]) -> Answer:
        self._policies[name] = scopes_of_policy(body["policy"]) or list(DEFAULT_POLICY)
        return Answer(204)

    def _create_token(self, _: str, body: Mapping[str, Any]) -> Answer:
        options = {"expiresInSeconds": seconds_of(body["ttl"])} if "ttl" in body else {}
        token = self.new_token(self._scopes(body.get("policies", [])), **options)
        return Answer(200, body={"auth": {"client_token": token}})

    def _configure_jwt(self, _: str, body: Mapping[str, Any]) -> Answer:
        self._jwt = body
        return Answer(204)

    def _write_jwt_role(self, name: str, body: Mapping[str, Any]) -> Answer | None:
        bound = {field: value for field, value in body.items() if field.startswith(("bound_", "user_claim"))}
        self.new_jwt_role(
            name,
            self._scopes(body.get("token_policies", [])),
            issuer=self._jwt.get("bound_issuer", ""),
            keys=self._jwt.get("jwt_validation_pubkeys", []),
            bound=bound,
        )
        return Answer(204)

    def _write_app_role(self, name: str, body: Mapping[str, Any]) -> Answer:
        options = {field: value for field, value in body.items() if field != "token_policies"}
        self._made(APP_ROLES, {"name": name, "scopes": self._scopes(body.get("token_policies", [])), **options})
        return Answer(204)

    def _set_role_id(self, name: str, body: Mapping[str, Any]) -> Answer:
        self._made(f"{APP_ROLES}/{name}/role-id", body)
        return Answer(204)

    def _new_secret_id(self, name: str, body: Mapping[str, Any]) -> Answer:
        return Answer(200, body={"data": self._made(f"{APP_ROLES}/{name}/secret-ids", body)})

    def _scopes(self, policies: str | Sequence[str]) -> list[str]:
        names = policies.split(",") if isinstance(policies, str) else policies
        return sorted({scope for name in names for scope in self._policies[name]})

    def _made(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._line.send(Request("POST", path, headers=self._headers, body=dict(body)))
        assert answer.status is not None, f"POST {path}: {answer}"
        assert answer.status < 300, f"POST {path}: {answer}"
        return answer.body if isinstance(answer.body, dict) else {}


def seconds_of(text: str | int) -> int:
    """Return the seconds of a duration such as ``2s``, ``1h`` or ``100000h``."""
    if isinstance(text, int):
        return text
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]
