"""An identity provider, and the issuer that the service makes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keystead.access.issuers import Issuer
from tests.access.issuers import KEYS, issuer_of
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import FakeIssuer


@pytest.fixture
def provider(clock: FakeClock) -> Iterator[FakeIssuer]:
    """An identity provider with a key of each kind."""
    with FakeIssuer(clock) as started:
        started.publish(*KEYS)
        yield started


@pytest.fixture
def issuer(provider: FakeIssuer, clock: FakeClock) -> Issuer:
    """The issuer, with nothing read of it yet."""
    return issuer_of(provider, clock)
