"""Whether a log goes on under the KEK that it was sealed under."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, run_process
from tests.cli.logs import SEAL


@pytest.fixture
def other(folder: Path, cli: Cli) -> str:
    """The URI of another KEK, in a folder of its own."""
    (folder / "other").mkdir()
    cli.ok("init", "other")
    return "file:other/keystead.kek"


def test_another_kek_is_refused_before_anything_is_written(folder: Path, cli: Cli, other: str) -> None:
    run_process(folder, *SEAL, given=b"1\n")
    before = (folder / "app.log").read_bytes()
    done = run_process(folder, *SEAL, "--kms", other, given=b"2\n")
    assert done.returncode == 1
    assert b"app.log was sealed under another KEK than file:/" in done.stderr
    assert b"other/keystead.kek: local:default, version 1, which that one does not hold" in done.stderr
    assert (folder / "app.log").read_bytes() == before
    assert not (folder / "policy.json.new").exists()
    cli.ok("log", "verify", "app.log", "--policy", "policy.json", "--expect-closed")


def test_a_log_whose_kek_is_lost_goes_on_where_that_is_asked_for(folder: Path, cli: Cli, other: str) -> None:
    run_process(folder, *SEAL, given=b"1\n")
    done = run_process(folder, *SEAL, "--kms", other, "--on-kek-mismatch", "go_on", given=b"2\n")
    assert done.returncode == 0
    policy = json.loads((folder / "policy.json").read_text())
    (folder / "without.json").write_text(json.dumps({**policy, "keys": []}))
    cli.ok("log", "verify", "app.log", "--policy", "without.json", "--expect-closed")


def test_a_copy_of_the_kek_elsewhere_is_the_same_kek(folder: Path, cli: Cli) -> None:
    run_process(folder, *SEAL, given=b"1\n")
    shutil.copy("keystead.kek", "copy.kek")
    assert run_process(folder, *SEAL, "--kms", "file:copy.kek", given=b"2\n").returncode == 0
    assert not (folder / "policy.json.new").exists()
    cli.ok("log", "verify", "app.log", "--policy", "policy.json", "--expect-closed")


def test_a_new_log_under_another_kek_is_not_taken_for_that_of_the_policy(folder: Path, cli: Cli, other: str) -> None:
    run_process(folder, *SEAL, given=b"1\n")
    (folder / "app.log").unlink()
    done = run_process(folder, *SEAL, "--kms", other, given=b"2\n")
    assert done.returncode == 0
    assert b"policy.json is not for this log, and is left as it is" in done.stderr
    assert json.loads((folder / "policy.json.new").read_text())["keys"][0]["kms"].endswith("other/keystead.kek")
    cli.ok("log", "verify", "app.log", "--policy", "policy.json.new", "--expect-closed")
