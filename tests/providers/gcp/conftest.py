from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from keystead.providers.gcp.provider import GCPKMSProvider
from keystead.providers.guard import GuardedProvider
from tests.fakes.clock import FakeClock
from tests.fakes.gcp_kms import FakeCloudKms
from tests.providers.subjects.gcp import config_of

_rings = itertools.count(1)

Make = Callable[..., GCPKMSProvider]


def guarded(provider: GCPKMSProvider) -> GuardedProvider:
    """Return the guard around a provider, which pauses on a clock that does not wait."""
    return GuardedProvider(provider, "cloud", clock=FakeClock())


@pytest.fixture
def service(cloud_kms: FakeCloudKms) -> Iterator[FakeCloudKms]:
    """The session's Cloud KMS, as if it had just been started: nothing counted, and healed afterwards."""
    cloud_kms.faults.calls.clear()
    yield cloud_kms
    cloud_kms.faults.heal()
    cloud_kms.keys.release_generation()
    cloud_kms.tokens.fails_with = None
    cloud_kms.tokens.trusts_account = True


@pytest.fixture
def ring(service: FakeCloudKms) -> str:
    """A key ring of the test's own, by its full name."""
    return service.create_ring(f"test-{next(_rings)}")


@pytest.fixture
async def make(service: FakeCloudKms) -> AsyncIterator[Make]:
    """Makes providers on the service, closed at the end."""
    made: list[GCPKMSProvider] = []

    def provider(*, clock: Any = None, **settings: Any) -> GCPKMSProvider:
        made.append(GCPKMSProvider(config_of(service, **settings), clock=clock))
        return made[-1]

    yield provider
    for each in made:
        await each.aclose()


@pytest.fixture
def provider(make: Make) -> GCPKMSProvider:
    """A provider over gRPC."""
    return make()


@pytest.fixture
def key(service: FakeCloudKms, ring: str) -> str:
    """A key that encrypts, by its full name."""
    return service.create_key("key", ring=ring)
