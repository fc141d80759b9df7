"""OpenBao, fresh for a test, with what its administrators do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.services.openbao import OpenBao, dev_server
from tests.transit.replay.wire import Answer, Request
from tests.transit.targets.target import AppRole, Grant, Operation

_UPDATE: Final = '["create", "update"]'
_PATHS: Final[Mapping[Operation, tuple[tuple[str, str], ...]]] = {
    Operation.CREATE: (("keys/{}", _UPDATE), ("keys/{}/import", '["update"]')),
    Operation.READ: (("keys/{}", '["read"]'),),
    Operation.LIST: (("keys", '["list"]'), ("keys/", '["list"]')),
    Operation.CONFIGURE: (("keys/{}/config", '["update"]'),),
    Operation.ROTATE: (("keys/{}/rotate", '["update"]'),),
    Operation.TRIM: (("keys/{}/trim", '["update"]'),),
    Operation.DELETE: (("keys/{}", '["delete"]'),),
    Operation.ENCRYPT: (("encrypt/{}", '["update"]'),),
    Operation.DECRYPT: (("decrypt/{}", '["update"]'),),
    Operation.REWRAP: (("rewrap/{}", '["update"]'),),
    Operation.DATAKEY: (("datakey/plaintext/{}", '["update"]'), ("datakey/wrapped/{}", '["update"]')),
    Operation.HMAC: (("hmac/{}", '["update"]'), ("hmac/{}/+", '["update"]')),
    Operation.SIGN: (("sign/{}", '["update"]'), ("sign/{}/+", '["update"]')),
    Operation.VERIFY: (("verify/{}", '["update"]'), ("verify/{}/+", '["update"]')),
    Operation.RANDOM: (("random", '["update"]'), ("random/+", '["update"]'), ("random/+/+", '["update"]')),
    Operation.HASH: (("hash", '["update"]'), ("hash/+", '["update"]')),
}


class OpenBaoTarget:
    """A server in development mode, in which nothing is mounted at ``transit/``."""

    name = "OpenBao"

    def __init__(self, server: OpenBao) -> None:
        self.server = server
        self._methods: set[str] = set()

    @property
    def url(self) -> str:
        """Where it is."""
        return self.server.url

    @property
    def root_token(self) -> str:
        """A token that may do everything."""
        return self.server.token

    def translated(self, request: Request) -> Request | Answer:
        """Translate nothing: the recordings are of this server."""
        return request

    def mount(self) -> None:
        """Mount Transit."""
        self.server.do("POST", "sys/mounts/transit", {"type": "transit"})

    def new_token(self, grants: Sequence[Grant]) -> str:
        """Make a token with a policy of its own."""
        return self.server.new_token(self.server.policy(policy_text(grants)), no_default_policy=True)

    def new_app_role(self, name: str, grants: Sequence[Grant], **options: Any) -> AppRole:
        """Make a role with a policy of its own."""
        self._enable("approle")
        given = {"token_policies": ["default", self.server.policy(policy_text(grants))], **options}
        self.server.do("POST", f"auth/approle/role/{name}", given)
        role_id = self.server.do("GET", f"auth/approle/role/{name}/role-id")["role_id"]
        return AppRole(role_id, self.server.do("POST", f"auth/approle/role/{name}/secret-id")["secret_id"])

    def new_jwt_role(
        self, name: str, grants: Sequence[Grant], *, issuer: str, keys: Sequence[str], bound: Mapping[str, Any]
    ) -> None:
        """Make a role with a policy of its own, and name the issuer."""
        self._enable("jwt")
        self.server.do("POST", "auth/jwt/config", {"bound_issuer": issuer, "jwt_validation_pubkeys": list(keys)})
        given = {"role_type": "jwt", "user_claim": "sub", "token_policies": [self.server.policy(policy_text(grants))]}
        self.server.do("POST", f"auth/jwt/role/{name}", {**given, **bound})

    def _enable(self, method: str) -> None:
        if method not in self._methods:
            self.server.do("POST", f"sys/auth/{method}", {"type": method})
            self._methods.add(method)


@contextmanager
def openbao_target(folder: Path) -> Iterator[OpenBaoTarget]:
    """Start a server and end it."""
    with dev_server(folder, has_transit=False) as server:
        yield OpenBaoTarget(server)


def policy_text(grants: Iterable[Grant]) -> str:
    """Return the policy that allows what the grants say.

    A pattern of key names ends in ``*`` at most: OpenBao has no other.
    """
    wanted: dict[str, set[str]] = {}
    for grant in grants:
        for path, capabilities in _PATHS[grant.operation]:
            named = path.format("+" if grant.keys == "*" else grant.keys)
            wanted.setdefault(named, set()).update(capabilities.strip("[]").split(", "))
    return "\n".join(
        f'path "transit/{path}" {{ capabilities = [{", ".join(sorted(capabilities))}] }}'
        for path, capabilities in sorted(wanted.items())
    )
