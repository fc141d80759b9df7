"""One record of an audit trail from the command line: found by its actor, shown, proved, and the proof verified."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager, audit_actor
from keystead.manager import audit_listing
from tests.cli.conftest import Cli


@pytest.fixture
def trail(folder: Path, cli: Cli) -> list[dict[str, Any]]:
    """The entries of three orders, the first by somebody else, in a trail whose policy was kept."""

    async def run() -> None:
        async with KeyManager.from_config(background=False) as km:
            for number, name in enumerate(("Back End", "shop", "shop")):
                with audit_actor(name):
                    await km.audit.record("order.paid", number=number)

    cli.ok("audit", "begin")
    asyncio.run(run())
    cli.ok("audit", "checkpoint")
    cli.ok("audit", "policy", "kept.policy")
    found: list[dict[str, Any]] = cli.json("audit", "list", "--action", "order.paid")
    return found


def test_entries_are_found_by_a_part_of_the_actors_name(trail: list[dict[str, Any]], cli: Cli) -> None:
    assert [each["details"]["number"] for each in cli.json("audit", "list", "--actor", "back e")] == [0]
    assert "no entry matches" in cli.ok("audit", "list", "--actor", "nobody").stderr


def test_it_is_told_where_looking_for_an_actor_ended(
    trail: list[dict[str, Any]], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_listing, "MOST_LOOKED", 2)
    words = ("audit", "list", "--actor", "back", "--action", "order.paid")
    nothing = cli.ok(*words)
    second = trail[1]["seq"]
    assert f"back to record {second}; --before {second} goes on" in nothing.stderr
    assert [each["seq"] for each in cli.json(*words, "--before", str(second))] == [trail[0]["seq"]]


def test_a_record_is_proved_and_the_proof_verified_without_the_store(
    trail: list[dict[str, Any]], cli: Cli, folder: Path
) -> None:
    number = str(trail[0]["seq"])
    assert '"action": "order.paid"' in cli.ok("audit", "show", number).stdout
    cli.ok("audit", "prove", number, "-o", "kept.tlog-proof")
    (folder / "keys.db").unlink()
    (folder / "keystead.kek").unlink()
    verified = cli.json("audit", "verify-proof", "kept.tlog-proof", "--policy", "kept.policy")
    assert verified["index"] == trail[0]["seq"]
    assert "order.paid" in verified["record"]
    text = Path("kept.tlog-proof").read_text()
    Path("altered.tlog-proof").write_text(text.replace("index ", "index 1", 1))
    assert cli.run("audit", "verify-proof", "altered.tlog-proof", "--policy", "kept.policy").exit_code == 3


def test_what_is_not_there_is_neither_shown_nor_proved(trail: list[dict[str, Any]], cli: Cli) -> None:
    assert "no record 9999" in cli.fails(1, "audit", "show", "9999")
    assert "no record 9999" in cli.fails(1, "audit", "prove", "9999")
