"""Of paths, namespaces and bodies: what every request has."""

from __future__ import annotations

from typing import Final

from tests.transit.replay.deviations import Deviation
from tests.transit.replay.wire import Request

_ANY: Final = ("status", "headers.*", "body", "body.*")


def _names_namespace(request: Request) -> bool:
    return request.headers.get("X-Vault-Namespace", "").strip("/") not in ("", "root")


def _is_raw(request: Request) -> bool:
    return request.raw is not None


def _is_wrapped(request: Request) -> bool:
    return "X-Vault-Wrap-TTL" in request.headers


OF_EXCHANGES: Final = (
    Deviation(
        "The service has a page of its own at its root.",
        scenario="errors",
        indexes=frozenset({11}),
        places=_ANY,
    ),
    Deviation(
        "Two JSON values in one body are refused: the second would count for nothing.",
        scenario="errors",
        indexes=frozenset({24}),
        status=400,
    ),
    Deviation(
        "Outside of the engine, logins and `sys` the paths are the service's own, and an unknown one is no secret.",
        scenario="errors",
        indexes=frozenset({41, 42}),
        places=("status", "headers.Content-Type", "body.*"),
    ),
    Deviation(
        "A path with an empty segment is one that there is not: it is not mended by a redirect.",
        scenario="errors",
        indexes=frozenset({50}),
        places=_ANY,
    ),
    Deviation(
        "Keystead is not sealed.",
        scenario="errors",
        indexes=frozenset(range(56, 65)),
        is_sent=False,
    ),
    Deviation(
        "How many requests a token may send in a second is a setting of the service, not of this API.",
        scenario="limits",
        indexes=frozenset({21, 22, 23, 25}),
        is_sent=False,
    ),
)
ROWS: Final = (
    Deviation(
        "A namespace is a token's tenant: any other is forbidden, whether there is such a tenant or not.",
        path="/v1/transit/.*",
        when=_names_namespace,
        status=403,
    ),
    Deviation(
        "Response wrapping is not offered: a request for it is refused, not answered in clear.",
        path="/v1/(?!auth/approle/role/).*",
        when=_is_wrapped,
        status=400,
    ),
    Deviation(
        "Response wrapping is not offered: a secret id is given out over TLS, once.",
        path="/v1/sys/wrapping/.*",
        status=400,
    ),
    Deviation(
        "Keystead is not sealed, and what it limits and mounts are settings, not of this API.",
        path="/v1/sys/(seal|quotas/.*|auth/.*|mounts/.*|policies/.*)",
        status=404,
    ),
    Deviation(
        "Outside of the engine, logins and `sys` the paths are the service's own, with problem+json.",
        path="/v1/(?!transit/|auth/|sys/).*|/v2/.*",
        places=("headers.Content-Type", "body.*"),
    ),
    Deviation(
        "What is no JSON is refused in other words.",
        path="/v1/transit/.*",
        when=_is_raw,
        places=("body.errors.*",),
    ),
)
