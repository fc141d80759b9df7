"""Real clients of Vault make their tours; those that take npm and Maven are part of the soak."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.vault_clients import CLIENTS
from tests.transit.clients.tours import STEPS, admit
from tests.transit.targets.keystead import keystead_target
from tests.transit.targets.openbao import openbao_target
from tests.transit.targets.target import AppRole, Grant, Operation, Target

IS_FULL = os.environ.get("KEYSTEAD_SOAK") == "1"
TOURED = list(CLIENTS) if IS_FULL else ["python", "go"]


@pytest.fixture(params=["openbao", "keystead"], scope="module")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with Transit, which the tours share."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "keystead":
        with keystead_target(folder) as keystead:
            yield keystead
        return
    with openbao_target(folder) as openbao:
        openbao.mount()
        yield openbao


@pytest.mark.soak
@pytest.mark.parametrize("client", TOURED)
def test_a_client_of_vault_makes_its_tour(client: str, target: Target) -> None:
    toured = admit(client, target).tour()
    assert toured.is_good, toured


class WithoutHmac:
    """A server on which the role of a tour may not do one thing that it does."""

    def __init__(self, target: Target) -> None:
        self.url, self.root_token = target.url, target.root_token
        self._target = target

    def new_app_role(self, name: str, grants: list[Grant]) -> AppRole:
        """Make the role without that grant."""
        return self._target.new_app_role(name, [grant for grant in grants if grant.operation != Operation.HMAC])


@pytest.mark.parametrize("client", ["python", "go"])
def test_a_tour_that_is_refused_a_step_says_so_and_fails(client: str, tmp_path: Path) -> None:
    with openbao_target(tmp_path) as target:
        target.mount()
        toured = admit(client, WithoutHmac(target)).tour()  # type: ignore[arg-type]
    assert toured.steps == STEPS[: STEPS.index("hmac")]
    assert "exit code 1" in toured.trouble
    assert "permission denied" in toured.trouble
    assert not toured.is_good
