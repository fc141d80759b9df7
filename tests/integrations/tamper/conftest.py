from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.integrations.tamper_faces import KeyFace
from keystead.testing import FakeKMS
from tests.fakes.azure_keyvault import clear_challenges
from tests.fakes.clock import FakeClock
from tests.integrations.tamper.places import (
    Place,
    aws_place,
    azure_place,
    env_place,
    file_place,
    gcp_place,
    vault_place,
)
from tests.services.aws import aws_environment, ministack, moto
from tests.services.azure import azure
from tests.services.gcp import cloud_kms
from tests.services.kubernetes import issuer, token_reviews
from tests.services.openbao import openbao, own_openbao

__all__ = [
    "aws_environment",
    "azure",
    "cloud_kms",
    "issuer",
    "ministack",
    "moto",
    "openbao",
    "own_openbao",
    "token_reviews",
]

PLACES: dict[str, tuple[str, Callable[[Any, str], Place]]] = {
    "aws-data": ("moto", aws_place),
    "aws-mac": ("moto", aws_place),
    "aws-sign": ("ministack", aws_place),
    "gcp-data": ("cloud_kms", gcp_place),
    "gcp-mac": ("cloud_kms", gcp_place),
    "gcp-sign": ("cloud_kms", gcp_place),
    "azure-data": ("azure", azure_place),
    "azure-mac": ("azure", azure_place),
    "azure-sign": ("azure", azure_place),
    "vault-data": ("openbao", vault_place),
    "vault-mac": ("openbao", vault_place),
    "vault-sign": ("openbao", vault_place),
}
"""Service and way to sign: with session keys, by MACs of the service, by its signatures."""


def make_place(name: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    """Return a new place of that name."""
    if name == "file":
        return file_place(folder)
    if name == "env":
        return env_place()
    fixture, make = PLACES[name]
    if fixture == "azure":
        clear_challenges()
    return make(request.getfixturevalue(fixture), name.partition("-")[2])


@pytest.fixture(params=["env", "file", *PLACES])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A key in each place."""
    made = make_place(request.param, request, tmp_path)
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    yield made
    made.heal()


@pytest.fixture
async def provider_of(clock: FakeClock) -> AsyncIterator[Callable[..., KeyFace]]:
    """Make providers of places, whose clock is the test's, and close them in the end."""
    made: list[KeyFace] = []

    def make(place: Place, **options: Any) -> KeyFace:
        made.append(place.provider(**{"clock": clock, **options}))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


@pytest.fixture
def kms(clock: FakeClock) -> FakeKMS:
    """A fake KMS with no keys in it."""
    return FakeKMS(keys=[], clock=clock)
