from __future__ import annotations

import pytest

from keystead.providers.guard import GuardedProvider
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.providers.stubs import Guarded


@pytest.fixture
def kms(clock: FakeClock) -> FakeKMS:
    return FakeKMS(clock=clock)


@pytest.fixture
def guarded(kms: FakeKMS, clock: FakeClock) -> Guarded:
    return GuardedProvider(kms.provider("fake"), "cloud", clock=clock)
