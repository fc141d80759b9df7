"""What Keystead answers otherwise than OpenBao, on purpose: every difference from the recordings, with its reason.

The first row that covers an exchange speaks for it, so those that name exchanges stand first. Such a row must be needed
for each of them that is sent; otherwise the test fails. Where a key is not made because of a row, or a value not had,
that accounts for what later exchanges miss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.transit.deviations import access, http, keys
from tests.transit.replay.deviations import Allowed

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

OF_KEYSTEAD: Final = Allowed(
    (*http.OF_EXCHANGES, *access.OF_EXCHANGES, *keys.OF_EXCHANGES, *http.ROWS, *access.ROWS, *keys.ROWS),
    answers_user_errors_400=True,
    more_bytes_of_ciphertext=26,
)
