"""What a tour needs of a server, and what it must have done there when it says so."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.services.vault_clients import CLIENTS
from tests.transit.replay.wire import Line, Request
from tests.transit.targets.target import Grant, Operation, Target

STEPS: Final = (
    "log in",
    "create keys",
    "encrypt and decrypt",
    "associated data",
    "batch",
    "data key",
    "hmac",
    "sign and verify",
    "rotate and rewrap",
    "refusals",
    "log out",
)
USED: Final = (
    Operation.CREATE,
    Operation.READ,
    Operation.ENCRYPT,
    Operation.DECRYPT,
    Operation.REWRAP,
    Operation.DATAKEY,
    Operation.HMAC,
    Operation.SIGN,
    Operation.VERIFY,
    Operation.ROTATE,
)
"""What the role of a tour may do with its own keys; with others it may do nothing."""


@dataclass(frozen=True, slots=True)
class Toured:
    """What became of a tour.

    Attributes:
        steps: those that the program says went well.
        trouble: its exit code and what it wrote to stderr, where it failed.
        versions: how many versions the server says the tour's key has.
    """

    steps: tuple[str, ...]
    trouble: str
    versions: Any
    is_good: bool = field(init=False)

    def __post_init__(self) -> None:
        is_good = not self.trouble and self.steps == STEPS and self.versions == 2
        object.__setattr__(self, "is_good", is_good)


def tour(client: str, target: Target, *, prefix: str | None = None) -> Toured:
    """Let a client make its tour on a server with Transit, as a role of its own."""
    name = prefix or f"{client}-{secrets.token_hex(4)}"
    role = target.new_app_role(name, [Grant(operation, f"{name}-*") for operation in USED])
    done = CLIENTS[client].tour(_variables(target.url, role.role_id, role.secret_id, name))
    trouble = f"exit code {done.returncode}: {done.stderr}" if done.returncode else ""
    steps = tuple(line.removeprefix("ok: ") for line in done.stdout.splitlines() if line.startswith("ok: "))
    return Toured(steps, trouble, _versions(target, f"{name}-data"))


def _variables(url: str, role_id: str, secret_id: str, prefix: str) -> Mapping[str, str]:
    return {"VAULT_ADDR": url, "VAULT_ROLE_ID": role_id, "VAULT_SECRET_ID": secret_id, "KEY_PREFIX": prefix}


def _versions(target: Target, key: str) -> Any:
    line = Line(target.url)
    try:
        answer = line.send(Request("GET", f"/v1/transit/keys/{key}", headers={"X-Vault-Token": target.root_token}))
    finally:
        line.close()
    return answer.body["data"]["latest_version"] if answer.status == 200 else None
