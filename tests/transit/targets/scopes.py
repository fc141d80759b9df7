"""The scopes of Keystead that grants are, and policies of the recordings: ``transit:<operation>:<pattern>``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from tests.transit.targets.target import Grant, Operation

_RULE: Final = re.compile(r'path "(?:transit/)?([^"]*)" \{ capabilities = \[([^]]*)\]')
_OPERATION_OF_PATH: Final[tuple[tuple[str, Operation], ...]] = (
    (r"keys/?", Operation.LIST),
    (r"keys/([^/]+)/config", Operation.CONFIGURE),
    (r"keys/([^/]+)/rotate", Operation.ROTATE),
    (r"keys/([^/]+)/trim", Operation.TRIM),
    (r"keys/([^/]+)", Operation.READ),
    (r"encrypt/([^/]+)", Operation.ENCRYPT),
    (r"decrypt/([^/]+)", Operation.DECRYPT),
    (r"rewrap/([^/]+)", Operation.REWRAP),
    (r"datakey/(?:plaintext|wrapped|\+)/([^/]+)", Operation.DATAKEY),
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
            keys = named[1].replace("+", "*") if named.re.groups else "*"
            if operation != Operation.ENCRYPT or capabilities != {"create"}:
                yield f"transit:{operation}:{keys}"
            if operation == Operation.ENCRYPT and "create" in capabilities:
                yield f"transit:{Operation.CREATE}:{keys}"
            return
