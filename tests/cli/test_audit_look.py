"""Looking at an audit trail from the command line: what a person reads of it, and that looking leaves it alone."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager
from tests.cli.conftest import Cli

OWN = {"audit.session", "audit.session_end", "audit.sequencer", "audit.checkpoint"}


@pytest.fixture
def trail(after: Callable[..., Path]) -> Path:
    """A folder whose store keeps a trail in which a key was rotated."""
    return after("audit begin", "key rotate default")


def execute(statement: str, *values: object) -> None:
    with sqlite3.connect("keys.db") as raw:
        raw.execute(statement, values)
    raw.close()


def record(action: str, **details: Any) -> None:
    """Write an event of an application's own."""

    async def run() -> None:
        async with KeyManager.from_config(background=False) as km:
            await km.audit.record(action, **details)

    asyncio.run(run())


def test_looking_adds_nothing_to_the_trail(trail: Path, cli: Cli) -> None:
    before = cli.json("audit", "status")
    assert before["waiting"] == 0
    cli.ok("audit", "list")
    cli.ok("doctor")
    assert cli.json("audit", "status")["records"] == before["records"]


def test_looking_needs_no_kek(trail: Path, cli: Cli) -> None:
    Path("keystead.kek").unlink()
    assert "key.rotate" in cli.ok("audit", "list").stdout
    assert cli.json("audit", "status")["is_on"] is True


def test_a_quiet_trail_looks_quiet(trail: Path, cli: Cli) -> None:
    shown = cli.ok("audit", "status").stdout
    assert "waiting     nothing\n" in shown
    assert "sealed by   nobody now: the next use of the store seals\n" in shown
    assert "exported    none yet\n" in shown
    records = cli.json("audit", "status")["records"]
    assert f"sealed      {records} records\n" in shown
    cli.ok("audit", "checkpoint", "kept")
    covered = Path("kept").read_text().splitlines()[1]
    assert f"exported    over {covered} records, " in cli.ok("audit", "status").stdout


def forge(age_s: int) -> None:
    """Put what is no entry among those that wait."""
    written_ms = int(time.time() * 1000) - 1000 * age_s
    execute(
        "INSERT INTO audit_entries (id, session, entry, code) VALUES (?, ?, ?, ?)",
        written_ms.to_bytes(6, "big") + bytes(10),
        "0" * 32,
        b"{}",
        bytes(32),
    )


def test_what_waits_is_told_with_its_age(trail: Path, cli: Cli) -> None:
    forge(age_s=7200)
    assert "waiting     1 entry, the oldest for 2h" in cli.ok("audit", "status").stdout


def test_who_takes_the_mark_away_has_not_ended_the_trail(trail: Path, cli: Cli) -> None:
    execute("UPDATE store_state SET audited = 0")
    found = cli.json("audit", "status")
    assert (found["is_on"], found["is_marked"]) == (True, False)
    assert "UNMARKED" in cli.ok("audit", "status").stdout


def test_a_terminal_does_not_act_upon_what_somebody_wrote_into_the_state(trail: Path, cli: Cli) -> None:
    with sqlite3.connect("keys.db") as raw:
        [[state]] = raw.execute("SELECT state FROM audit_state").fetchall()
    raw.close()
    execute("UPDATE audit_state SET state = ?", state.replace(b"keystead/audit", b"\\u001b[2Jstead"))
    shown = cli.ok("audit", "status").stdout
    assert "\\x1b[2Jstead" in shown
    assert "\x1b" not in shown + cli.run("doctor").stdout


def test_a_trail_whose_state_cannot_be_read_is_not_said_to_be_none(trail: Path, cli: Cli) -> None:
    execute("UPDATE audit_state SET state = ?", b"{}")
    assert "cannot be read" in cli.ok("audit", "status").stdout


def test_a_list_leaves_out_how_the_trail_keeps_account_of_itself(trail: Path, cli: Cli) -> None:
    listed = cli.ok("audit", "list")
    assert not any(action in listed.stdout for action in OWN)
    everything = cli.ok("audit", "list", "--all")
    assert all(action in everything.stdout for action in OWN)
    count = len([each for each in cli.json("audit", "list") if each["action"] in OWN])
    assert f"{count} entries by which the trail keeps account of itself are left out; --all" in listed.stderr
    assert "left out" not in everything.stderr


def test_json_and_a_named_action_leave_nothing_out(trail: Path, cli: Cli) -> None:
    found = cli.json("audit", "list")
    assert {each["action"] for each in found} >= OWN
    assert [each["seq"] for each in found] == [
        each["seq"] for each in cli.json("audit", "list", "--all", "--limit", "1000")
    ]
    assert "audit.session" in cli.ok("audit", "list", "--action", "audit.session").stdout


def test_a_limit_counts_what_is_shown(trail: Path, cli: Cli) -> None:
    cut = cli.ok("audit", "list", "--limit", "4")
    lines = cut.stdout.splitlines()
    assert len(lines) == 2 + 4
    assert "the newest 4 entries; --limit shows more" in cut.stderr
    assert "the newest" not in cli.ok("audit", "list").stderr
    assert not any(action in line for line in lines for action in OWN)


def test_the_beginning_is_told_by_its_keys_and_keyrings_and_times_are_a_persons(trail: Path, cli: Cli) -> None:
    [line] = [line for line in cli.ok("audit", "list").stdout.splitlines() if "audit.begin" in line]
    [begun] = cli.json("audit", "list", "--action", "audit.begin")
    assert f"{len(begun['keys'])} keys active" in line
    assert "default, keystead.audit, keystead.index and 1 more" in line
    assert begun["at"][:19].replace("T", " ") + "Z" in line
    assert '"' not in line


def test_what_an_application_wrote_is_shown_as_text_that_no_terminal_acts_upon(trail: Path, cli: Cli) -> None:
    record("order.refund", order="o-17", note="\x1b[2J\u202eoh", words="long " * 50)
    [line] = [line for line in cli.ok("audit", "list").stdout.splitlines() if "order.refund" in line]
    assert "note: \\x1b[2J\\x202eoh" in line
    assert "order: o-17" in line
    assert line.rstrip().endswith("...")


def test_what_was_not_authentic_is_listed_as_that_and_counted(trail: Path, cli: Cli) -> None:
    forge(age_s=1)
    cli.ok("key", "rotate", "default")
    assert (
        "REJECTED    1 entry was not authentic: `keystead audit verify` names each" in cli.ok("audit", "status").stdout
    )
    [line] = [line for line in cli.ok("audit", "list").stdout.splitlines() if "audit.rejected" in line]
    assert "NOT authentic: " in line


def test_details_of_every_kind_are_a_persons_to_read(trail: Path, cli: Cli) -> None:
    record("order.refund", is_partial=True, is_late=False, by=None, items=[1, "two"], none=[], total={"cents": 1999})
    [line] = [line for line in cli.ok("audit", "list").stdout.splitlines() if "order.refund" in line]
    for told in ("is_partial: yes", "is_late: no", "by: -", "items: 1, two", "none: -", 'total: {"cents": 1999}'):
        assert told in line


def test_keys_in_several_states_are_counted_by_state(folder: Path, cli: Cli) -> None:
    cli.ok("key", "rotate", "default")
    cli.ok("audit", "begin")
    assert "keys: 4 active, 1 decrypt-only" in cli.ok("audit", "list", "--action", "audit.begin").stdout


def test_a_trail_that_has_ended_is_listed(trail: Path, cli: Cli) -> None:
    cli.ok("audit", "end", "--reason", "moving house")
    assert "reason: moving house" in cli.ok("audit", "list").stdout
    assert ", ended" in cli.ok("audit", "status").stdout
