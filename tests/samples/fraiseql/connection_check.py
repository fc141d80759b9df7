"""Initialisation as the check that the KMS answers."""

from __future__ import annotations

import pytest

from keystead import KeyManager, ProviderConnectionError
from keystead.testing import FakeKMS


async def sample(key_manager: KeyManager, kms: FakeKMS, unreachable: KeyManager) -> None:
    try:
        await key_manager.initialize()
        print("connected")
    except ProviderConnectionError:
        pytest.fail("the KMS is there")

    kms.fail_next(99, ProviderConnectionError("the network is down"))
    told = "connected"
    try:
        await unreachable.initialize()
    except ProviderConnectionError:
        told = "unreachable"
    assert told == "unreachable"
