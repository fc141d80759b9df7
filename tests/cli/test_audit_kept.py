"""``keystead audit checkpoint FILE``: what was kept is not written over by a trail that does not continue it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.cli.conftest import Cli


def test_a_trail_that_was_put_back_does_not_replace_what_was_kept(folder: Path, cli: Cli) -> None:
    cli.ok("audit", "begin")
    cli.ok("audit", "checkpoint", "kept")
    earlier = (folder / "keys.db").read_bytes()
    cli.ok("key", "rotate", "default")
    cli.ok("audit", "checkpoint", "kept")
    held = (folder / "kept").read_bytes()
    for name in ("keys.db-wal", "keys.db-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / "keys.db").write_bytes(earlier)
    told = cli.fails(1, "audit", "checkpoint", "kept")
    assert "--since-checkpoint" in told
    for _ in range(3):
        cli.ok("audit", "checkpoint")
    assert "does not continue it" in cli.fails(1, "audit", "checkpoint", "kept")
    assert (folder / "kept").read_bytes() == held
    cli.ok("audit", "checkpoint", "another")


def test_status_shows_what_was_found_wrong_with_the_state(folder: Path, cli: Cli) -> None:
    cli.ok("audit", "begin")
    assert "FOUND" not in cli.ok("audit", "status").stdout
    with sqlite3.connect(folder / "keys.db") as raw:
        raw.execute("DELETE FROM audit_state")
    raw.close()
    for _ in range(2):
        cli.ok("audit", "checkpoint")
    assert "altered (record " in cli.ok("audit", "status").stdout
    assert cli.json("audit", "status")["found"] == "altered"
    with sqlite3.connect(folder / "keys.db") as raw:
        raw.execute("DROP TRIGGER IF EXISTS audit_log_fixed")
        raw.execute("UPDATE audit_log SET line = x'00' WHERE action = 'audit.state'")
    raw.close()
    assert cli.json("audit", "status")["found"] == "malformed"
