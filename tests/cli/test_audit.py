"""``keystead audit``: beginning, listing, verifying, archiving a trail from the command line."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, run_process


@pytest.fixture
def trail(after: Callable[..., Path]) -> Path:
    """A folder whose store keeps a trail, of which a checkpoint was kept."""
    return after("audit begin", "key rotate default", "audit checkpoint kept")


def execute(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "keys.db") as raw:
        raw.execute("DROP TRIGGER IF EXISTS audit_log_fixed")
        for statement in statements:
            raw.execute(statement)
    raw.close()


def test_a_store_keeps_no_trail_until_one_is_begun(folder: Path, cli: Cli) -> None:
    assert "audit begin" in cli.ok("audit", "status").stdout
    assert cli.json("audit", "status")["is_on"] is False
    assert "audit begin" in cli.fails(1, "audit", "list")
    begun = cli.json("audit", "begin")
    assert (begun["is_on"], begun["stream"][:15]) == (True, "keystead/audit/")


def test_every_command_that_changes_keys_is_in_the_list(trail: Path, cli: Cli) -> None:
    cli.ok("key", "create", "letters")
    cli.ok("key", "uses", "add", "letters", "post", "file:/data/*.txt")
    cli.ok("audit", "checkpoint")
    listed = cli.json("audit", "list")
    told = [entry["action"] for entry in listed]
    assert {"audit.begin", "key.rotate", "key.create", "keyring.create", "use.declare"} <= set(told)
    [rotated] = [entry for entry in listed if entry["action"] == "key.rotate"]
    assert isinstance(rotated["key_id"], str)
    assert [key["state"] for key in rotated["keys"]] == ["decrypt-only", "active"]
    assert [entry["seq"] for entry in listed] == sorted(entry["seq"] for entry in listed)


def test_a_trail_that_is_kept_already_is_not_said_to_have_begun(folder: Path, cli: Cli) -> None:
    begun = cli.ok("audit", "begin").stdout
    assert "has begun" in begun
    assert "`keystead audit checkpoint FILE`" in begun
    assert "`keystead audit policy FILE`" in begun
    stream = cli.json("audit", "status")["stream"]
    assert cli.ok("audit", "begin").stdout == f"this store keeps the audit trail {stream} already\n"
    assert cli.json("audit", "begin")["stream"] == stream


def test_a_list_without_an_entry_says_so(trail: Path, cli: Cli) -> None:
    found = cli.ok("audit", "list", "--action", "key.destroy")
    assert (found.stdout, found.stderr.splitlines()[-1]) == ("", "no entry matches")
    assert cli.json("audit", "list", "--key-id", "9223372036854775807") == []


@pytest.mark.parametrize("action", ["rotate", "key.", ".rotate", ""])
def test_an_action_is_two_words(trail: Path, cli: Cli, action: str) -> None:
    assert "such as key.rotate" in cli.fails(2, "audit", "list", "--action", action)


@pytest.mark.parametrize("key_id", ["abc", "", "-1", "1_0", "9223372036854775808", "9" * 5000])
def test_a_data_key_is_named_by_its_number(trail: Path, cli: Cli, key_id: str) -> None:
    told = cli.fails(2, "audit", "list", f"--key-id={key_id}")
    assert "--key-id is a number, as `keystead key list` shows it" in told


def test_a_list_is_cut_to_what_was_asked(trail: Path, cli: Cli) -> None:
    assert {entry["action"] for entry in cli.json("audit", "list", "--action", "key.rotate")} == {"key.rotate"}
    assert {entry["keyring"] for entry in cli.json("audit", "list", "--keyring", "default")} == {"default"}
    [rotated] = cli.json("audit", "list", "--action", "key.rotate")
    assert {entry["key_id"] for entry in cli.json("audit", "list", "--key-id", rotated["key_id"])} == {
        rotated["key_id"]
    }
    assert cli.json("audit", "list", "--until", "2001-01-01") == []
    assert len(cli.json("audit", "list", "--since", "1h", "--limit", "2")) == 2
    assert "version 2 active" in cli.ok("audit", "list", "--action", "key.rotate").stdout
    assert "2030-01-31" in cli.fails(2, "audit", "list", "--since", "yesterday")


def test_an_untouched_trail_is_exit_code_0(trail: Path, cli: Cli) -> None:
    result = cli.ok("audit", "verify", "--since-checkpoint", "kept", "--compare-store")
    assert "as it was written" in result.stdout
    assert "the store is as the trail says" in result.stdout
    report = cli.json("audit", "verify", "--since-checkpoint", "kept", "--compare-store")
    assert (report["valid"], report["differences"], report["findings"]) == (True, [], 0)


def test_a_changed_record_is_exit_code_3(trail: Path, cli: Cli) -> None:
    execute(trail, "UPDATE audit_log SET line = CAST(replace(CAST(line AS TEXT), 'key.rotate', 'key.create') AS BLOB)")
    result = cli.run("audit", "verify")
    assert result.exit_code == 3
    assert "NOT as it was written" in result.stdout
    assert "modified" in result.stdout
    answer = cli.run("audit", "verify", "--json")
    assert (answer.exit_code, json.loads(answer.stdout)["valid"]) == (3, False)


def test_an_end_that_was_cut_off_is_found_by_the_kept_checkpoint(trail: Path, cli: Cli) -> None:
    shutil.copy("keys.db", "earlier.db")
    cli.ok("key", "rotate", "default")
    cli.ok("audit", "checkpoint", "kept")
    for name in ("keys.db-wal", "keys.db-shm"):
        Path(name).unlink(missing_ok=True)
    shutil.rmtree(".keystead", ignore_errors=True)
    shutil.copy("earlier.db", "keys.db")
    assert cli.run("audit", "verify", "--since-checkpoint", "kept").exit_code == 3


def test_a_store_that_was_changed_past_the_trail_is_exit_code_3(trail: Path, cli: Cli) -> None:
    execute(trail, "UPDATE data_keys SET state = 'disabled' WHERE keyring = 'default' AND state = 'decrypt-only'")
    result = cli.run("audit", "verify", "--compare-store")
    assert result.exit_code == 3
    assert "is disabled in the store, and the trail says decrypt-only" in result.stdout


def test_what_is_out_of_reach_is_exit_code_4(trail: Path, cli: Cli) -> None:
    cli.fails(4, "audit", "verify", "--since-checkpoint", "absent")
    cli.fails(4, "audit", "verify", "--archive", "absent")
    Path("keystead.kek").unlink()
    failure = json.loads(cli.run("audit", "verify", "--json").stdout)["error"]
    assert failure["code"] == "could_not_verify"


def test_an_earlier_checkpoint_is_never_written_over_a_later_one(trail: Path, cli: Cli) -> None:
    later = Path("kept").read_text().splitlines()
    Path("kept").write_text("\n".join([later[0], str(10**6), *later[2:]]) + "\n")
    assert "put back to an earlier state" in cli.fails(1, "audit", "checkpoint", "kept")
    assert Path("kept").read_text().splitlines()[1] == str(10**6)


def test_an_export_is_verified_by_the_policy_that_was_saved(trail: Path, cli: Cli) -> None:
    cli.ok("audit", "policy", "policy.json")
    cli.ok("audit", "export", "files")
    cli.ok("audit", "verify", "--policy", "policy.json", "--since-checkpoint", "kept")
    cli.ok("log", "verify", "files/audit.log", "--policy", "policy.json", "--since-checkpoint", "kept")


def test_nothing_has_ended_on_the_first_day(trail: Path, cli: Cli) -> None:
    assert "nothing ended" in cli.ok("audit", "archive", "old", "--before", "0s").stdout
    assert "2030-01-31" in cli.fails(2, "audit", "archive", "old", "--before", "soon")


def test_a_trail_ends_with_a_reason(trail: Path, cli: Cli) -> None:
    assert "--reason" in cli.fails(2, "audit", "end", "--reason", " ")
    cli.ok("audit", "end", "--reason", "moving house")
    assert "ended" in cli.ok("audit", "status").stdout
    cli.ok("audit", "begin")
    cli.ok("audit", "verify", "--compare-store")


def test_the_settings_begin_a_trail_and_keep_its_checkpoint(folder: Path) -> None:
    with Path("keystead.yaml").open("a") as file:
        file.write("audit:\n  enabled: true\n  checkpoint_file: last.checkpoint\n")
    assert run_process(folder, "key", "rotate", "default").returncode == 0
    assert Path("last.checkpoint").read_text().startswith("keystead/audit/")
    assert run_process(folder, "audit", "verify", "--since-checkpoint", "last.checkpoint").returncode == 0


def test_a_setting_that_no_trail_has_is_refused(folder: Path, cli: Cli) -> None:
    with Path("keystead.yaml").open("a") as file:
        file.write("audit:\n  enable: true\n")
    assert "audit.enabled" in cli.fails(1, "audit", "status")


def test_the_environment_begins_a_trail_too(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTEAD_AUDIT_ENABLED", "true")
    monkeypatch.setenv("KEYSTEAD_AUDIT_CHECKPOINT_EVERY", "5m")
    cli.ok("key", "rotate", "default")
    assert cli.json("audit", "status")["is_on"] is True
    shown = cli.json("config", "check")["settings"]
    assert shown["audit.checkpoint_every"] == {
        "value": "5m",
        "from": "environment KEYSTEAD_AUDIT_CHECKPOINT_EVERY",
    }
    monkeypatch.setenv("KEYSTEAD_AUDIT_ENABLED", "false")
    assert "audit end" in cli.fails(1, "key", "rotate", "default")


def test_witnesses_are_named_by_url_and_key(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTEAD_AUDIT_WITNESSES", "https://witness.example.org")
    assert "url=key,other=key" in cli.fails(1, "audit", "status")
    monkeypatch.setenv("KEYSTEAD_AUDIT_WITNESSES", "https://witness.example.org=no key")
    cli.fails(1, "audit", "status")


def test_the_grants_of_an_archiver_are_printed(folder: Path, cli: Cli) -> None:
    printed = cli.ok("migrate", "--roles", "--archive-role", "keeper").stdout
    assert 'GRANT DELETE ON "public"."audit_log" TO "keeper";' in printed
