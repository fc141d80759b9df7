"""``keystead audit acknowledge``, and what an archive asks for before it moves anything."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def changed(after: Callable[..., Path], cli: Cli) -> Path:
    """A folder whose store keeps a trail, into which somebody without a key has written."""
    folder = after("audit begin", "audit checkpoint kept")
    with sqlite3.connect(folder / "keys.db") as raw:
        raw.execute("INSERT INTO audit_entries VALUES (zeroblob(16), 'nobody', x'7b7d', zeroblob(32))")
    raw.close()
    cli.ok("audit", "checkpoint")
    return folder


def test_what_was_acknowledged_is_a_warning_and_no_finding(changed: Path, cli: Cli) -> None:
    before = cli.run("audit", "verify", "--since-checkpoint", "kept")
    assert (before.exit_code, "not authentic" in before.stdout) == (3, True)
    found = cli.json("audit", "acknowledge", "100000", "--reason", "a test of ours")
    assert len(found["records"]) == 1
    verified = cli.ok("audit", "verify")
    assert "as it was written" in verified.stdout
    assert "(acknowledged)" in verified.stderr
    [entry] = cli.json("audit", "list", "--action", "audit.acknowledge")
    assert entry["details"]["reason"] == "a test of ours"


def test_what_lies_behind_the_record_that_was_read_to_is_not_acknowledged(changed: Path, cli: Cli) -> None:
    assert "nothing to acknowledge" in cli.ok("audit", "acknowledge", "0", "--reason", "read the first").stdout
    assert cli.run("audit", "verify").exit_code == 3
    assert (
        "acknowledged 1 record and 0 missing entries"
        in cli.ok("audit", "acknowledge", "100000", "--reason", "read all").stdout
    )


def test_why_is_asked_for(changed: Path, cli: Cli) -> None:
    assert "--reason says" in cli.fails(2, "audit", "acknowledge", "7", "--reason", " ")


def test_nothing_is_archived_before_what_was_found_is_acknowledged(changed: Path, cli: Cli) -> None:
    assert "nothing was moved" in cli.fails(3, "audit", "archive", "old", "--before", "0d")
    cli.ok("audit", "acknowledge", "100000", "--reason", "read all")
    told = cli.ok("audit", "archive", "old", "--before", "0d", "--since-checkpoint", "kept").stdout
    assert "nothing ended before then" in told


def test_a_kept_checkpoint_that_is_not_there_is_named(changed: Path, cli: Cli) -> None:
    assert "absent" in cli.fails(4, "audit", "archive", "old", "--before", "0d", "--since-checkpoint", "absent")
