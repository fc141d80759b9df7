"""Roles as OpenBao's administrators describe them, in the words of Keystead's administrative API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

USUAL_S: Final = 768 * 3600
"""Seconds that OpenBao's tokens live where nobody says how long; none lives longer."""
LONGEST_S: Final = 10 * 365 * 86_400
MOST_USES: Final = 1_000_000_000
"""Of a secret id that is good for any number of logins: Keystead's has a number, and an end."""
_OF_TOKENS: Final = frozenset({"token_ttl", "token_max_ttl", "token_num_uses", "token_policies"})
_OF_APP_ROLES: Final = _OF_TOKENS | {"secret_id_ttl", "secret_id_num_uses"}
_OF_JWT_ROLES: Final = _OF_TOKENS | {"role_type", "user_claim", "bound_audiences", "bound_subject", "bound_claims"}
_TEXTS: Final = {"user_claim": "userClaim", "bound_audiences": "audiences", "bound_subject": "boundSubject",
                 "bound_claims": "boundClaims"}  # fmt: skip


def app_role(name: str, scopes: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the body that makes an AppRole; None if it is to have what Keystead's have not."""
    if not given.keys() <= _OF_APP_ROLES:
        return None
    return {
        **_tokens(name, scopes, given),
        "secretIdTtlSeconds": seconds_of(given.get("secret_id_ttl", 0)) or LONGEST_S,
        "secretIdUses": given.get("secret_id_num_uses", 0) or MOST_USES,
    }


def jwt_role(
    name: str, scopes: Sequence[str], given: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the body that makes a role for the JWTs of an issuer; None if it is to have what Keystead's have not.

    Args:
        config: the issuer, as ``auth/jwt/config`` is told of it.
    """
    if not given.keys() <= _OF_JWT_ROLES:
        return None
    return {
        **_tokens(name, scopes, given),
        **{theirs: given[ours] for ours, theirs in _TEXTS.items() if ours in given},
        "issuer": config.get("bound_issuer"),
        "publicKeys": config.get("jwt_validation_pubkeys", []),
    }


def token_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a role is to say, of a token that ``auth/token/create`` is asked for."""
    named = {"ttl": "token_ttl", "explicit_max_ttl": "token_max_ttl", "num_uses": "token_num_uses"}
    return {theirs: given[ours] for ours, theirs in named.items() if ours in given}


def _tokens(name: str, scopes: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    ttl_s = min(seconds_of(given.get("token_ttl", 0)) or USUAL_S, USUAL_S)
    # One that cannot live longer cannot be renewed here; there it can, to no use.
    longest_s = seconds_of(given.get("token_max_ttl", 0)) or max(USUAL_S, ttl_s + 1)
    uses = given.get("token_num_uses", 0)
    told = {"name": name, "scopes": list(scopes), "tokenTtlSeconds": ttl_s, "tokenMaxTtlSeconds": longest_s}
    return told | ({"tokenUses": uses} if uses else {})


def seconds_of(text: str | int) -> int:
    """Return the seconds of a duration such as ``2s``, ``1h`` or ``100000h``."""
    if isinstance(text, int):
        return text
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]
