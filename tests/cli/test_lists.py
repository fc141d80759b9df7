"""Lists of the command line that grow with use: told a part at a time, with where each goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager
from keystead.access.callers import Caller, Scope
from keystead.access.role_rules import AppRoleRules
from keystead.cli import lists
from keystead.manager.access import access
from keystead.manager.devices import devices
from keystead.model import Act, Action, Principal
from keystead.ports import ReencryptionRecord
from tests.cli.conftest import Cli

MADE = 5
RULES = AppRoleRules(token_ttl_s=60, secret_id_ttl_s=3600, secret_id_uses=1)
LISTS = {
    "tokens": ("token", "list"),
    "roles": ("token", "role", "list"),
    "secret_ids": ("token", "role", "secret-id", "list", "app-0"),
    "sessions": ("session", "list"),
    "approvals": ("approval", "list", "--all"),
    "jobs": ("reencryption", "list"),
    "keys": ("device", "keys", "phone"),
}


async def _fill() -> None:
    async with KeyManager.from_config(background=False) as km:
        room, keys = await access(km), (await devices(km)).keys
        for number in range(MADE):
            await room.tokens.create(f"user-{number}", [Scope.DEVICES_USE])
            await room.roles.create(f"app-{number}", [Scope.DEVICES_USE], RULES)
            await room.roles.create_secret_id("app-0")
            await room.sessions.begin(Caller(Principal("ada"), frozenset({Scope.JOBS_READ}), "token none"))
            await room.approvals.ask(Act(Action.USER_FORGET, f"user-{number}"), "ada")
            await keys.rotate(Principal("ada"), "phone")
            async with km.require_session().surroundings.store.transaction() as work:
                await work.add_reencryption(ReencryptionRecord(f"job-{number}", "f", "app:f", 1, "{}"))


@pytest.fixture
def filled(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with five of everything, of which two are told at once."""
    asyncio.run(_fill())
    monkeypatch.setattr(lists, "LIMIT", 2)


def test_each_list_is_told_to_its_end_a_part_at_a_time(filled: None, cli: Cli) -> None:
    for name, command in LISTS.items():
        seen: list[Any] = []
        sizes: list[int] = []
        behind: tuple[str, ...] = ()
        while True:
            part = cli.json(*command, *behind)
            sizes.append(len(part[name]))
            seen += [each["name"] if name == "roles" else each["id"] for each in part[name]]
            told = cli.ok(*command, *behind).stderr
            if part["next"] is None:
                assert "goes on" not in told, name
                break
            assert f"--after {part['next']} goes on" in told, name
            behind = ("--after", part["next"])
        assert (sizes, len(set(seen))) == ([2, 2, 1], MADE), name


def test_the_newest_re_encryptions_come_first_those_of_one_field_too(filled: None, cli: Cli) -> None:
    for command in (LISTS["jobs"], (*LISTS["jobs"], "f")):
        assert [each["id"] for each in cli.json(*command)["jobs"]] == ["job-4", "job-3"]
    assert cli.json(*LISTS["jobs"], "other") == {"jobs": [], "next": None}


def test_what_is_no_place_of_a_list_is_wrong_usage(filled: None, cli: Cli) -> None:
    for name, command in LISTS.items():
        if name != "keys":
            assert "--after" in cli.fails(2, *command, "--after", "x"), name
    assert "key pair" in cli.fails(1, *LISTS["keys"], "--after", "x")
