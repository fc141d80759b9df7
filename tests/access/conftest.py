"""An identity provider with the issuer that the service makes of it, and a store of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from keystead.access.issuers import Issuer
from keystead.stores import open_store
from keystead.stores.schema import migrate
from tests.access.issuers import KEYS, issuer_of
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import FakeIssuer
from tests.fakes.world import World


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


@pytest.fixture(params=["memory", "postgresql"])
async def world(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[World]:
    """A KMS, a clock and a store."""
    made = World(clock)
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
        migrate(url)
        made.store = open_store(url)
    yield made
    await made.store.aclose()
