from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from keystead.providers.pkcs11.provider import Pkcs11KMSProvider
from tests.providers.pkcs11.faulty import Faults, FaultyModule
from tests.services.softhsm import SoftHsm


@pytest.fixture
def faults(softhsm: SoftHsm) -> Iterator[Faults]:
    """The module with faults in front of it, none of them on."""
    with FaultyModule(softhsm) as faults:
        yield faults
        faults.heal()


@pytest.fixture
async def provider(softhsm: SoftHsm) -> AsyncIterator[Pkcs11KMSProvider]:
    """A provider of the token ``kms``."""
    provider = Pkcs11KMSProvider(softhsm.config())
    yield provider
    await provider.aclose()


@pytest.fixture
def key(softhsm: SoftHsm) -> Iterator[str]:
    """The label of an AES key of this test's own."""
    label = softhsm.make_aes()
    yield label
    softhsm.insert_tokens()
    softhsm.destroy(label)


@pytest.fixture
def labels(softhsm: SoftHsm) -> Iterator[list[str]]:
    """Labels of objects that are destroyed at the end."""
    made: list[str] = []
    yield made
    for label in made:
        softhsm.destroy(label)
