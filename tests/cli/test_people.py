"""``keystead device``, ``user``, ``lockout`` and ``session``: what the console shows of people, and does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keystead import KeyManager
from keystead.access.callers import Caller, Scope
from keystead.manager.access import access
from keystead.manager.devices import devices
from keystead.model import Principal
from keystead.ports import DeviceRecord, SecretKind
from tests.cli.conftest import Cli


async def _fill() -> str:
    now = datetime.now(UTC)
    async with KeyManager.from_config(background=False) as km:
        async with km.require_session().surroundings.store.transaction() as work:
            for tenant, user in (("", "ada"), ("", "bo"), ("north", "dee")):
                await work.hold_device(DeviceRecord(tenant, f"phone of {user}", user, now))
                await work.count_attempt(tenant, user, SecretKind.PASSCODE, now=now)
                await work.lock_credential(tenant, user, SecretKind.PASSCODE, until=now + timedelta(hours=1))
        ada = Principal("ada")
        await (await devices(km)).keys.generate(ada, "phone of ada")
        made = await (await access(km)).sessions.begin(Caller(ada, frozenset({Scope.JOBS_READ}), "token none"))
        return made.row.id


@pytest.fixture
def session(folder: Path, cli: Cli) -> str:
    """The id of a session, beside devices and locks of two tenants in a store with an audit trail."""
    cli.ok("audit", "begin")
    return asyncio.run(_fill())


def actions(cli: Cli) -> set[str]:
    cli.ok("audit", "checkpoint")
    return {each["action"] for each in cli.json("audit", "list")}


def test_locks_are_listed_and_ended_in_one_tenant(session: str, cli: Cli) -> None:
    assert [each["user"] for each in cli.json("lockout", "list")["lockouts"]] == ["ada", "bo"]
    assert "dee" in cli.ok("lockout", "list", "--tenant", "north").stdout
    assert "is not locked" in cli.fails(1, "lockout", "release", "dee", "passcode")
    assert "passcode of ada" in cli.ok("lockout", "release", "ada", "passcode").stdout
    assert "is not locked" in cli.fails(1, "lockout", "release", "ada", "passcode")
    assert cli.run("lockout", "release", "ada", "pin").exit_code == 2
    cli.ok("lockout", "release", "bo", "passcode")
    assert cli.ok("lockout", "list").stdout.strip() == "nothing is locked"
    assert "secret.release" in actions(cli)


def test_a_device_is_shown_revoked_and_released_once_its_id_was_typed(session: str, cli: Cli) -> None:
    device = "phone of ada"
    assert [each["device_id"] for each in cli.json("device", "list")["devices"]] == [device, "phone of bo"]
    assert [each["device_id"] for each in cli.json("device", "list", "--owner", "bo")["devices"]] == ["phone of bo"]
    (key,) = cli.json("device", "keys", device)["keys"]
    assert (key["owner"], key["erased"]) == ("ada", False)
    assert "nothing was changed" in cli.fails(1, "device", "revoke", device, given="phone\n")
    cli.ok("device", "revoke", device, given=f"{device}\n")
    assert cli.json("device", "keys", device)["keys"][0]["erased"] is True
    cli.ok("device", "release", device, "--yes")
    assert cli.json("device", "list")["devices"][0]["owner"] is None
    assert "no device" in cli.fails(1, "device", "keys", "phone of dee")
    assert {"device.revoke", "device.release"} <= actions(cli)


def test_a_user_is_forgotten_in_one_tenant(session: str, cli: Cli) -> None:
    assert cli.json("user", "forget", "dee", "--yes") == {"devices": 0, "client_keys": 0, "secrets": 0}
    gone = cli.json("user", "forget", "dee", "--tenant", "north", given="dee\n")
    assert (gone["devices"], gone["secrets"]) == (1, 1)
    assert cli.ok("device", "list", "--tenant", "north").stdout.strip() == "no devices"


def test_a_session_is_listed_and_ended(session: str, cli: Cli) -> None:
    (row,) = cli.json("session", "list")["sessions"]
    assert (row["id"], row["user"], row["scopes"], row["ended"]) == (session, "ada", "jobs:read", None)
    assert datetime.fromisoformat(row["seen"]) < datetime.fromisoformat(row["expires"])
    assert cli.ok("session", "list", "--tenant", "north").stdout.strip() == "no sessions"
    assert session in cli.ok("session", "end", session).stdout
    assert cli.json("session", "list")["sessions"][0]["ended"] is not None
    assert "no session of this id" in cli.fails(1, "session", "end", "0" * 16)


def test_no_key_is_problematic_where_nothing_failed(folder: Path, cli: Cli) -> None:
    assert cli.json("device", "problematic-keys") == {"keys": []}
    assert cli.run("device", "problematic-keys", "--hours", "0").exit_code == 2


async def _run_a_job() -> None:
    async with KeyManager.from_config(background=False) as km:
        await km.require_session().jobs.run_now("keystead.rotate")


def test_how_jobs_ended_on_other_processes_is_told(folder: Path, cli: Cli) -> None:
    assert cli.ok("job", "list").stdout.strip() == "no job has run yet"
    asyncio.run(_run_a_job())
    (folder / "keystead.kek").unlink()
    (run,) = cli.json("job", "list")["jobs"]
    assert (run["name"], run["outcome"], run["error_code"]) == ("keystead.rotate", "done", None)
    assert "keystead.rotate" in cli.ok("job", "list").stdout
