"""Signatures verify in other processes: after a restart, after a rotation, on another host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT
from tests.integrations.tamper.conftest import make_place
from tests.integrations.tamper.places import Place

MESSAGE = b"what happened" * 1000
ACROSS = ["file", "aws-data", "gcp-mac", "azure-data", "vault-sign"]


def run(place: Place, folder: Path, **task: Any) -> Any:
    """Do a task in a process with a home and a folder of its own, as on another host."""
    environ = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "LANG", "COV"))}
    environ |= {"HOME": str(folder), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **place.variables}
    environ["AWS_EC2_METADATA_DISABLED"] = "true"
    given = {"place": place.spec, "key_id": place.key_id, **task}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.tamper.process"],
        input=json.dumps(given),
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ACROSS)
def test_f4_f7_signatures_of_one_process_verify_in_another_after_a_rotation(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    place = make_place(name, request, tmp_path)
    message, another = MESSAGE.hex(), b"something else".hex()
    signed = run(place, tmp_path / "one", sign=message)
    place.rotate()
    signatures = [
        [place.key_id, message, signed["signature"]],
        [signed["key_id"], message, signed["signature"]],
        [signed["key_id"], message, signed["item"]],
        [place.key_id, another, signed["signature"]],
        [place.key_id, another, signed["item"]],
    ]
    assert run(place, tmp_path / "two", verify=signatures) == [True, True, True, False, False]
