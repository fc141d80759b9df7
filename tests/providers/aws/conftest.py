"""Fixtures for the tests of AWS KMS."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import boto3.session
import pytest

from keystead.ports import Clock
from keystead.providers.aws.provider import AWSKMSConfig, AWSKMSProvider
from tests.fakes.aws_wire import AwsWire
from tests.providers.aws.keys import ACCESS_KEY, REGION, SECRET_KEY, Make


@pytest.fixture(scope="session")
def _wire(aws_environment: Path) -> Iterator[AwsWire]:
    with AwsWire() as wire:
        yield wire


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No AWS settings in the environment, even where the suites run against AWS itself."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def wire(_wire: AwsWire, isolated: None) -> AwsWire:
    """What answers in AWS's place, nothing scripted yet."""
    _wire.reset()
    return _wire


@pytest.fixture(scope="session")
def _aws(_wire: AwsWire) -> Iterator[AWSKMSProvider]:
    provider = AWSKMSProvider(
        AWSKMSConfig(REGION, access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_url=_wire.url)
    )
    yield provider
    asyncio.run(provider.aclose())


@pytest.fixture
def aws(wire: AwsWire, _aws: AWSKMSProvider) -> AWSKMSProvider:
    """A provider that asks ``wire``: one for all tests, since making boto3's client takes a tenth of a second."""
    return _aws


@pytest.fixture
async def make(wire: AwsWire) -> AsyncIterator[Make]:
    """Make a provider that asks ``wire`` and finds its credentials itself."""
    made: list[AWSKMSProvider] = []

    def provider(region: str | None = REGION, *, clock: Clock | None = None, **options: Any) -> AWSKMSProvider:
        made.append(AWSKMSProvider(AWSKMSConfig(region, **{"endpoint_url": wire.url, **options}), clock=clock))
        return made[-1]

    yield provider
    for each in made:
        await each.aclose()


@pytest.fixture
def files(tmp_path: Path, isolated: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for AWS's files ``config`` and ``credentials``."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every session of boto3 that is made, and slowly."""
    made: list[object] = []
    real = boto3.session.Session

    def slow(**options: Any) -> Any:
        time.sleep(0.05)
        made.append(real(**options))
        return made[-1]

    monkeypatch.setattr(boto3.session, "Session", slow)
    return made
