"""What OpenBao's administrators ask for, done by Keystead's administrative API.

Policies become scopes. Roles of AppRole and JWT are Keystead's own. A token that OpenBao can renew or count is here one
that somebody has logged in for, so such a one is made of a role of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tests.transit.replay.wire import Answer, Line, Request
from tests.transit.targets.roles import app_role, jwt_role, seconds_of, token_options
from tests.transit.targets.scopes import scopes_of_policy
from tests.transit.targets.target import AppRole

ADMINISTRATOR: Final = ("tokens:write", "transit:*:*")
"""The scopes of a token that may do everything here."""
DEFAULT_POLICY: Final = ("transit:read:-",)
"""What a token may do that has no policy but ``default``. A token has to have a scope, so it is one of no use."""
TOKENS: Final = "/v1/tokens"
APP_ROLES: Final = "/v1/admin/approle/roles"
JWT_ROLES: Final = "/v1/admin/jwt/roles"
LOGIN: Final = "/v1/auth/approle/login"
_OF_TOKENS: Final = frozenset({"policies", "no_default_policy", "ttl", "explicit_max_ttl", "num_uses", "renewable"})
_MOST_POLICIES: Final = 20
_Act = Callable[[str, Mapping[str, Any]], Answer | None]


class Administration:
    """The administrator of a service, who is asked in OpenBao's words."""

    def __init__(self, url: str, token: str) -> None:
        self._line = Line(url)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._policies: dict[str, list[str]] = {"default": list(DEFAULT_POLICY), "root": list(ADMINISTRATOR)}
        self._mounted: set[str] = set()
        self._jwt: Mapping[str, Any] = {}
        self._role_ids: dict[str, str] = {}
        self._chosen_ids: dict[str, str] = {}
        self._made_for_tokens = 0

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def new_token(self, scopes: Sequence[str]) -> str:
        """Return a new token."""
        return str(self._made(TOKENS, {"user": "somebody", "scopes": list(scopes)})["token"])

    def new_app_role(self, name: str, scopes: Sequence[str], given: Mapping[str, Any]) -> AppRole:
        """Make a role, as OpenBao is told of one, and return what logs in with it."""
        body = app_role(name, scopes, given)
        assert body is not None, f"Keystead has no such role: {given}"
        made = self._made(APP_ROLES, body)
        return AppRole(str(made["roleId"]), str(self._made(f"{APP_ROLES}/{name}/secret-ids", None)["secretId"]))

    def new_jwt_role(
        self, name: str, scopes: Sequence[str], given: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        """Make a role for the tokens of an issuer, as OpenBao is told of both."""
        body = jwt_role(name, scopes, given, config)
        assert body is not None, f"Keystead has no such role: {given}"
        self._made(JWT_ROLES, body)

    def revoke(self, token_id: str) -> None:
        """Make a token worthless."""
        answer = self._line.send(Request("POST", f"{TOKENS}/{token_id}/revoke", headers=self._headers))
        assert answer.status == 200, answer

    def translated(self, request: Request) -> Request | Answer:
        """Do what a request is for, or return it as Keystead is to be sent it."""
        if request.path == LOGIN and isinstance(request.body, dict):
            chosen = request.body.get("role_id", "")
            return (
                replace(request, body={**request.body, "role_id": self._chosen_ids[chosen]})
                if (chosen in self._chosen_ids)
                else request
            )
        is_administrators = self._headers["Authorization"] == f"Bearer {request.headers.get('X-Vault-Token')}"
        if not is_administrators or "X-Vault-Wrap-TTL" in request.headers:
            return request
        body = request.body if isinstance(request.body, dict) else {}
        for method, pattern, act in self._acts():
            if re.fullmatch(method, request.method) and (named := re.fullmatch(pattern, request.path)) is not None:
                return act(named[1], body) or request
        return request

    def _acts(self) -> tuple[tuple[str, str, _Act], ...]:
        write = "POST|PUT"
        return (
            (write, r"/v1/sys/(?:mounts|auth)/(transit|approle|jwt)", self._mount),
            (write, r"/v1/sys/policies/acl/([^/]+)", self._write_policy),
            (write, r"/v1/auth/token/(create)", self._create_token),
            (write, r"/v1/auth/jwt/(config)", self._configure_jwt),
            (write, r"/v1/auth/jwt/role/([^/]+)", self._write_jwt_role),
            (write, r"/v1/auth/approle/role/([^/]+)", self._write_app_role),
            (write, r"/v1/auth/approle/role/([^/]+)/role-id", self._choose_role_id),
            (write, r"/v1/auth/approle/role/([^/]+)/secret-id", self._new_secret_id),
            ("GET", r"/v1/auth/approle/role/([^/]+)/role-id", self._tell_role_id),
            ("DELETE", r"/v1/auth/approle/role/([^/]+)", self._delete_app_role),
            (write, r"/v1/sys/leases/revoke-prefix/auth/(approle)/login", self._revoke_logins),
        )

    def _mount(self, path: str, _: Mapping[str, Any]) -> Answer:
        if path in self._mounted:
            return Answer(400, body={"errors": [f"path is already in use at {path}/"]})
        self._mounted.add(path)
        return Answer(204)

    def _write_policy(self, name: str, body: Mapping[str, Any]) -> Answer | None:
        if "_parameters" in body["policy"]:
            return None
        self._policies[name] = scopes_of_policy(body["policy"]) or list(DEFAULT_POLICY)
        return Answer(204)

    def _create_token(self, _: str, body: Mapping[str, Any]) -> Answer | None:
        policies = body.get("policies", [])
        if not body.keys() <= _OF_TOKENS or len(policies) > _MOST_POLICIES or not set(policies) <= set(self._policies):
            return None
        scopes = self._scopes(policies)
        if body.get("renewable", True):
            self._made_for_tokens += 1
            role = self.new_app_role(f"token-{self._made_for_tokens}", scopes, token_options(body))
            return self._line.send(Request("POST", LOGIN, body={"role_id": role.role_id, "secret_id": role.secret_id}))
        given = {"user": "somebody", "scopes": scopes, "expiresInSeconds": seconds_of(body["ttl"])}
        return Answer(200, body={"auth": {"client_token": self._made(TOKENS, given)["token"]}})

    def _configure_jwt(self, _: str, body: Mapping[str, Any]) -> Answer:
        self._jwt = body
        return Answer(204)

    def _write_jwt_role(self, name: str, body: Mapping[str, Any]) -> Answer | None:
        given = jwt_role(name, self._scopes(body.get("token_policies", [])), body, self._jwt)
        return None if given is None else self._done(JWT_ROLES, given)

    def _write_app_role(self, name: str, body: Mapping[str, Any]) -> Answer | None:
        given = app_role(name, self._scopes(body.get("token_policies", [])), body)
        if given is None:
            return None
        self._role_ids[name] = str(self._made(APP_ROLES, given)["roleId"])
        return Answer(204)

    def _tell_role_id(self, name: str, _: Mapping[str, Any]) -> Answer | None:
        return Answer(200, body={"data": {"role_id": self._role_ids[name]}}) if name in self._role_ids else None

    def _choose_role_id(self, name: str, body: Mapping[str, Any]) -> Answer | None:
        if name not in self._role_ids:
            return None
        self._chosen_ids[body["role_id"]] = self._role_ids[name]
        return Answer(204)

    def _new_secret_id(self, name: str, body: Mapping[str, Any]) -> Answer | None:
        if name not in self._role_ids or body:
            return None
        made = self._made(f"{APP_ROLES}/{name}/secret-ids", None)
        return Answer(200, body={"data": {"secret_id": made["secretId"]}})

    def _delete_app_role(self, name: str, _: Mapping[str, Any]) -> Answer:
        answer = self._line.send(Request("DELETE", f"{APP_ROLES}/{name}", headers=self._headers))
        return Answer(204) if answer.status == 200 else answer

    def _revoke_logins(self, label: str, _: Mapping[str, Any]) -> Answer:
        query = ""
        while True:
            page = self._line.send(Request("GET", TOKENS, query, headers=self._headers))
            assert isinstance(page.body, dict), page
            for token in page.body["items"]:
                if token["label"] == label and token["revokedAt"] is None:
                    self.revoke(token["id"])
            if not page.body["nextCursor"]:
                return Answer(204)
            query = f"cursor={page.body['nextCursor']}"

    def _scopes(self, policies: str | Sequence[str]) -> list[str]:
        names = policies.split(",") if isinstance(policies, str) else policies
        return sorted({scope for name in names for scope in self._policies[name]})

    def _done(self, path: str, body: Mapping[str, Any]) -> Answer:
        answer = self._line.send(Request("POST", path, headers=self._headers, body=dict(body)))
        if answer.status == 201:
            return Answer(204)
        assert isinstance(answer.body, dict)
        return Answer(answer.status, body={"errors": [answer.body["detail"]]})

    def _made(self, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        answer = self._line.send(Request("POST", path, headers=self._headers, body=None if body is None else {**body}))
        assert answer.status == 201, f"POST {path}: {answer}"
        assert isinstance(answer.body, dict)
        return answer.body
