"""The example on Node.js, against a real service."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.components import missing

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "node" / "client.mjs"


def test_an_application_on_node_sets_a_passcode_and_verifies_it(service: str) -> None:
    node = shutil.which("node") or missing("node", "install Node.js 20")
    ended = subprocess.run([node, EXAMPLE, service], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told.pop("keyId").startswith("key_")
    assert told == {"setUserPasscode": True, "right": True, "wrong": False}
