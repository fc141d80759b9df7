"""What Keystead answers otherwise than OpenBao, on purpose: every difference from the recordings, with its reason.

A row that names exchanges must be needed for each of them that is sent; otherwise the test fails. Where a key is not
made because of a row, or a value not had, that accounts for what later exchanges miss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.transit.replay.deviations import Allowed, Deviation
from tests.transit.replay.wire import Request

NOT_RECORDED_HERE: Final[Mapping[str, str]] = {
    "auth-kubernetes": "Kubernetes login is not offered: a cluster's tokens are JWTs, and log in as such.",
    "derive-key-csr": "Key agreement, certificate requests and keys that live elsewhere are not offered.",
    "sys-seal": "Keystead is not sealed: it opens its store by its KEK when it starts.",
    "sys-standby": "Keystead's nodes are alike: none stands by, and what one wrote all of them read.",
}
"""Scenarios that were recorded and are not kept, and why."""

NOT_PLAYED: Final[Mapping[str, str]] = {
    "namespaces": "A namespace is a token's tenant, and none is made through this API: another one is 403.",
    "sys": "Engines and auth methods are where they are: they cannot be mounted, moved or tuned.",
}
"""Scenarios that are all about what Keystead does not have."""


def _body(request: Request) -> Mapping[str, Any]:
    return request.body if isinstance(request.body, dict) else {}


def _items(request: Request) -> list[Mapping[str, Any]]:
    batch = _body(request).get("batch_input")
    return [each for each in batch if isinstance(each, dict)] if isinstance(batch, list) else []


def _has_null_plaintext(request: Request) -> bool:
    given = _items(request) or [_body(request)]
    return any("plaintext" in each and each["plaintext"] is None for each in given)


def _names_xchacha(request: Request) -> bool:
    return _body(request).get("type") == "xchacha20-poly1305"


def _names_namespace(request: Request) -> bool:
    return request.headers.get("X-Vault-Namespace", "").strip("/") not in ("", "root")


def _is_raw(request: Request) -> bool:
    return request.raw is not None


def _rewraps_associated_data(request: Request) -> bool:
    return any("associated_data" in each for each in [_body(request), *_items(request)])


_ROWS: Final = (
    Deviation(
        'A null plaintext is refused: whoever sends one has lost it on the way, and an empty one is "".',
        path="/v1/transit/encrypt/.*",
        when=_has_null_plaintext,
        status=400,
    ),
    Deviation(
        "A number of random bytes that is none is refused in a path, too, where OpenBao reads past it.",
        path="/v1/transit/random/-.*",
        status=400,
    ),
    Deviation(
        "Key material does not leave: export, backup and restore are refused, and `keystead` has its own backups.",
        path="/v1/transit/(export|byok-export|backup|restore)(/.*)?",
        status=400,
    ),
    Deviation(
        "XChaCha20-Poly1305 is not offered: its long nonces are not needed where no nonce is drawn twice.",
        when=_names_xchacha,
        status=400,
    ),
    Deviation(
        "A rewrap takes associated data, so that what was encrypted with it can be rewrapped.",
        path="/v1/transit/rewrap/.*",
        when=_rewraps_associated_data,
        places=("status", "body.*", "headers.*"),
    ),
    Deviation(
        "A namespace is a token's tenant: any other is forbidden, whether there is such a tenant or not.",
        when=_names_namespace,
        status=403,
    ),
    Deviation(
        "What is no JSON is refused in other words.",
        path="/v1/transit/.*",
        when=_is_raw,
        places=("body.errors.*",),
    ),
    Deviation(
        "XChaCha20-Poly1305 is not offered, and so no key of it is listed.",
        scenario="keys",
        indexes=frozenset({102, 103, 104, 109, 110}),
        places=("body.data.keys.*",),
    ),
    Deviation(
        "XChaCha20-Poly1305 is not offered: the name is that of a key that encrypting has made.",
        scenario="derived-and-convergent",
        indexes=frozenset({71, 75}),
        places=("body.data.ciphertext",),
    ),
    Deviation(
        "The engine is always there, and has no key at first.",
        scenario="keys",
        indexes=frozenset({1}),
        places=("body.errors*",),
    ),
    Deviation(
        "Keys that live elsewhere are not offered, and are a type that is not known.",
        scenario="keys",
        indexes=frozenset({35}),
        places=("body.errors.0",),
    ),
    Deviation(
        "What is kept in memory of keys is bounded by the service itself, not by this API.",
        path="/v1/transit/cache-config",
        status=404,
    ),
    Deviation(
        "A ciphertext names its data key and its salt, and so is 26 bytes longer.",
        path="/v1/transit/encrypt/.*",
        places=("body.data.ciphertext.$string.length",),
    ),
    Deviation(
        "Response wrapping is not offered: a secret id is given out over TLS, once.",
        path="/v1/sys/wrapping/.*",
        is_sent=False,
    ),
    Deviation(
        "Response wrapping is not offered: a request for it is refused, not answered in clear.",
        when=lambda request: "X-Vault-Wrap-TTL" in request.headers,
        status=400,
    ),
    Deviation(
        "Keystead is not sealed.",
        scenario="errors",
        indexes=frozenset(range(55, 65)),
        is_sent=False,
    ),
    Deviation(
        "Rate limits are settings of the service, not of this API; the texts are its own.",
        scenario="limits",
        indexes=frozenset(range(19, 26)),
        is_sent=False,
    ),
    Deviation(
        "Scopes say which operations on which keys; none looks at the fields of a request.",
        scenario="policies",
        indexes=frozenset(range(272, 276)),
        is_sent=False,
    ),
    Deviation(
        "Tokens have no accessors, parents or uses that are counted, and there are no batch tokens.",
        scenario="auth-token",
        indexes=frozenset({*range(24, 30), 36, 39, 40, *range(41, 49)}),
        is_sent=False,
    ),
    Deviation(
        "A token's own capabilities are told by `keystead token list`.",
        path="/v1/sys/capabilities-self",
        is_sent=False,
    ),
)

OF_KEYSTEAD: Final = Allowed(_ROWS, answers_user_errors_400=True)
