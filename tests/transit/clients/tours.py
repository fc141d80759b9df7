"""What a tour needs of a server, and what it must have done there when it says so."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from tests.services.vault_clients import CLIENTS
from tests.transit.replay.wire import Line, Request
from tests.transit.targets.target import AppRole, Grant, Operation, Target

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


@dataclass(frozen=True, slots=True)
class Visitor:
    """A client that a server lets in, as a role of its own."""

    client: str
    target: Target = field(repr=False)
    role: AppRole = field(repr=False)
    prefix: str

    def tour(self) -> Toured:
        """Make the tour, which can be made once."""
        variables = {
            "VAULT_ADDR": self.target.url,
            "VAULT_ROLE_ID": self.role.role_id,
            "VAULT_SECRET_ID": self.role.secret_id,
            "KEY_PREFIX": self.prefix,
        }
        done = CLIENTS[self.client].tour(variables)
        trouble = f"exit code {done.returncode}: {done.stderr}" if done.returncode else ""
        steps = tuple(line.removeprefix("ok: ") for line in done.stdout.splitlines() if line.startswith("ok: "))
        return Toured(steps, trouble, _versions(self.target, f"{self.prefix}-data"))


def admit(client: str, target: Target) -> Visitor:
    """Make the role of a client on a server that has Transit."""
    prefix = f"{client}-{secrets.token_hex(4)}"
    return Visitor(client, target, target.new_app_role(prefix, [Grant(each, f"{prefix}-*") for each in USED]), prefix)


def _versions(target: Target, key: str) -> Any:
    line = Line(target.url)
    try:
        answer = line.send(Request("GET", f"/v1/transit/keys/{key}", headers={"X-Vault-Token": target.root_token}))
    finally:
        line.close()
    return answer.body["data"]["latest_version"] if answer.status == 200 else None
