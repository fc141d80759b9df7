"""Programs that log in at a node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keystead.manager.access import Access
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import FakeIssuer
from tests.server.clients import Node
from tests.server.vault.clients import VaultClient


@pytest.fixture
def room(node: Node) -> Access:
    """Who may call the node."""
    return node.service.access


@pytest.fixture
def nobody(node: Node) -> VaultClient:
    """A client without a token."""
    return VaultClient(node.app)


@pytest.fixture
def provider(clock: FakeClock) -> Iterator[FakeIssuer]:
    """Somebody who signs JWTs."""
    with FakeIssuer(clock) as started:
        yield started
