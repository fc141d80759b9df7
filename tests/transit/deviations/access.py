"""Of logins, tokens and what they may do."""

from __future__ import annotations

from typing import Final

from tests.transit.replay.deviations import Deviation

_SCOPES: Final = ("body.auth.policies.*", "body.auth.token_policies.*", "body.data.policies.*")
_ELSEWHERE: Final = "Tokens, roles and secret ids are administered at /v1/tokens and /v1/admin, or by `keystead token`."
OF_EXCHANGES: Final = (
    Deviation(
        "The ways to log in are always there, and at first have no role.",
        scenario="auth-approle",
        indexes=frozenset({1}),
        status=400,
    ),
    Deviation(
        "The ways to log in are always there, and at first have no role.",
        scenario="auth-jwt",
        indexes=frozenset({1, 3}),
        status=400,
    ),
    Deviation(
        "Secret ids are drawn, never chosen: whoever can choose one can choose one that is guessed.",
        scenario="auth-approle",
        indexes=frozenset({22}),
        status=400,
    ),
    Deviation(
        "A role has secret ids: its id alone is no secret.",
        scenario="auth-approle",
        indexes=frozenset({61}),
        status=400,
    ),
    Deviation(
        "What is no JWT is refused in other words.",
        scenario="auth-jwt",
        indexes=frozenset({20, 21}),
        places=("body.errors.0",),
    ),
    Deviation(
        "A login names its role: there is none that everybody has who does not.",
        scenario="auth-jwt",
        indexes=frozenset({27}),
        status=400,
    ),
    Deviation(
        "A JWT role has audiences: a token that was made for another service is not taken.",
        scenario="auth-jwt",
        indexes=frozenset({35, 36}),
        status=400,
    ),
    Deviation(
        "Tokens have no accessors: one is revoked by its id, by an administrator.",
        scenario="auth-token",
        indexes=frozenset({40}),
        status=200,
    ),
    Deviation(
        "A token may always look itself up and renew itself, whatever else it may.",
        scenario="auth-token",
        indexes=frozenset({51, 52}),
        status=200,
    ),
    Deviation(
        "A token may always look itself up, whatever else it may.",
        scenario="policies",
        indexes=frozenset(range(31, 272, 24)),
        status=200,
    ),
    Deviation(
        "A token may always ask what it may do.",
        scenario="policies",
        indexes=frozenset({280}),
        status=200,
    ),
    Deviation(
        "A scope is of data keys in clear and wrapped alike: whoever may decrypt one could have it in clear.",
        scenario="policies",
        indexes=frozenset({65}),
        status=200,
    ),
    Deviation(
        "Scopes say which operations on which keys; none looks at the fields of a request.",
        scenario="policies",
        indexes=frozenset({272}),
        status=404,
    ),
    Deviation(
        "Scopes say which operations on which keys; none looks at the fields of a request.",
        scenario="policies",
        indexes=frozenset({273}),
        status=400,
    ),
    Deviation(
        "Tokens have no periods and no parents, and there are no batch tokens.",
        scenario="auth-token",
        indexes=frozenset({24, 45}),
        status=400,
    ),
    Deviation(
        "Tokens have no parents, and make none.",
        scenario="auth-token",
        indexes=frozenset({42}),
        status=400,
    ),
)
ROWS: Final = (
    Deviation(_ELSEWHERE, path="/v1/auth/(approle/role/.*|token/(lookup|renew|revoke|[a-z]+-accessor))", status=404),
    Deviation(
        "A token that can be renewed is had by a login, and is nobody's child; when it was is in the audit trail.",
        scenario="auth-token",
        path="/v1/auth/token/(lookup|renew)-self",
        places=(
            *_SCOPES,
            *(f"body.data.{name}" for name in ("display_name", "path", "orphan", "explicit_max_ttl", "last_renewal*")),
            *("body.data.meta*", "body.auth.orphan", "body.auth.metadata*"),
        ),
    ),
    Deviation(
        "Scopes stand in the place of policies.",
        path="/v1/auth/(token/(lookup|renew)-self|(approle|jwt)/login)",
        places=_SCOPES,
    ),
)
