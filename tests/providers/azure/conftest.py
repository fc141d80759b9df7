from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import pytest

from keystead.providers.azure.provider import AzureKMSProvider
from tests.fakes.azure_keyvault import FakeAzure, clear_challenges
from tests.services.azure import config_for

Opening: TypeAlias = Callable[..., AzureKMSProvider]
"""Makes a provider of the fake from members of its configuration; ``provider`` has the constructor's own arguments."""


@pytest.fixture
def cloud(azure: FakeAzure) -> Iterator[FakeAzure]:
    """The fake Azure, without faults before and after."""
    azure.heal()
    clear_challenges()
    yield azure
    azure.heal()


@pytest.fixture
async def opening(cloud: FakeAzure) -> AsyncIterator[Opening]:
    """Providers, closed at the end."""
    made = []

    def make(provider: dict[str, Any] | None = None, **given: Any) -> AzureKMSProvider:
        made.append(AzureKMSProvider(config_for(cloud, **given), **(provider or {})))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()
