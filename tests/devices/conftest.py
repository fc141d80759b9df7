"""Devices over a store of each kind, with pairs that are made at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from keystead.devices.client_keys import ClientKeys
from keystead.devices.pairs import Pair, make_pair
from keystead.devices.surroundings import DevicePolicy, Surroundings
from keystead.manager.manager import KeyManager
from keystead.ports import PairKind
from keystead.stores import open_store
from keystead.stores.schema import migrate
from tests.fakes.clock import FakeClock
from tests.fakes.world import World

QUICK = DevicePolicy(kind=PairKind.X25519)


class Maker:
    """Makes pairs, and counts them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, kind: PairKind) -> Pair:
        self.made += 1
        return make_pair(kind)


async def client_keys(km: KeyManager, policy: DevicePolicy = QUICK, **options: Any) -> ClientKeys:
    """Return the key pairs of devices, as a node of the service has them."""
    session = await km.session()
    s = session.surroundings
    await session.live.sealing_ring("keystead.wrap")
    given: dict[str, Any] = {"store": s.store, "audit": s.audit, "clock": s.clock, "random": s.random}
    return ClientKeys(Surroundings(wraps=session.live, policy=policy, **(given | options)))


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> AsyncIterator[World]:
    """A KMS, a clock and a store."""
    made = World(clock)
    if request.param != "memory":
        url = f"sqlite:///{tmp_path}/keys.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
        migrate(url)
        made.store = open_store(url)
    yield made
    await made.store.aclose()
