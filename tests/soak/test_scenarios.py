"""The scenarios of ``soak/``: their short forms, or with KEYSTEAD_SOAK=1 their full ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from soak.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
IS_FULL = os.environ.get("KEYSTEAD_SOAK") == "1"


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Mapping[str, dict[str, Any]]:
    """What became of every scenario that is asked for, run one after the other in one process that may fork."""
    asked = [name for name in SCENARIOS if any(f"[{name}]" in item.name for item in request.session.items)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    if not environment.get("KEYSTEAD_TEST_POSTGRES"):
        server = request.getfixturevalue("_own_postgres")
        server.start()
        environment["KEYSTEAD_TEST_POSTGRES"] = server.url()
    command = [sys.executable, "-m", "soak", "--json", *([] if IS_FULL else ["--short"]), *asked]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return {outcome["name"]: outcome for outcome in json.loads(done.stdout)}


@pytest.mark.soak
@pytest.mark.timeout(0 if IS_FULL else 900)
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_scenario_meets_every_bar(name: str, outcomes: Mapping[str, dict[str, Any]]) -> None:
    outcome = outcomes[name]
    missed = [figure for figure in outcome["figures"] if figure["is_met"] is False]
    assert not outcome["failure"], outcome["failure"]
    assert not missed, f"{outcome['claim']} {missed}"
