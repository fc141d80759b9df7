"""The scenarios of ``soak/``: their short forms, or with KEYSTEAD_SOAK=1 their full ones.

Each runs in a process of its own, which may fork, and is a test of its own, so that all workers of pytest share them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from soak.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
IS_FULL = os.environ.get("KEYSTEAD_SOAK") == "1"


@pytest.fixture
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """What a scenario is run with: the server of this worker's tests, unless one is named."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    if not given.get("KEYSTEAD_TEST_POSTGRES"):
        server = request.getfixturevalue("_own_postgres")
        server.start()
        given["KEYSTEAD_TEST_POSTGRES"] = server.url()
    return given


@pytest.mark.soak
@pytest.mark.timeout(0 if IS_FULL else 900)
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_scenario_meets_every_bar(name: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "soak", "--json", *([] if IS_FULL else ["--short"]), name]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    (outcome,) = json.loads(done.stdout)
    missed = [figure for figure in outcome["figures"] if figure["is_met"] is False]
    assert not outcome["failure"], outcome["failure"]
    assert not missed, f"{outcome['claim']} {missed}"
