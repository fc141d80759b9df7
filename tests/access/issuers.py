"""An issuer as the service knows it, over the one that tests run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from keystead.access.issuer_keys import IssuerAddress
from keystead.access.issuers import Issuer, IssuerRules
from keystead.errors import UnauthenticatedError
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import AUDIENCE, FakeIssuer, ec_key, ed_key, rsa_key

KEYS: Final = (rsa_key(), ec_key(), ed_key(), rsa_key("pss", "PS256"))
ALGORITHMS: Final = tuple(key.algorithm for key in KEYS)
RULES: Final = IssuerRules(
    audience=AUDIENCE,
    subject_claim="sub",
    tenant_claim=None,
    scope_claim="scope",
    scopes={},
    leeway_s=30,
    max_lifetime_s=86_400,
)


def issuer_of(provider: FakeIssuer, clock: FakeClock, **rules: Any) -> Issuer:
    """Return the issuer, with rules changed."""
    return Issuer(IssuerAddress(provider.url, None, ALGORITHMS), replace(RULES, **rules), clock)


async def refused(issuer: Issuer, text: str) -> None:
    """Have a token be refused, and nothing be told about why."""
    with pytest.raises(UnauthenticatedError, match=r"^no valid token was sent$"):
        await issuer.authenticate(text)
