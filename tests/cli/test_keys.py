"""``keystead key``, ``status`` and ``maintain``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def key_of(cli: Cli, reference: str) -> str:
    return str(cli.json("key", "show", reference)["id"])


def test_rotating_adds_a_version_and_keeps_the_old_one(folder: Path, cli: Cli) -> None:
    assert cli.json("key", "rotate")["version"] == 2
    keys = cli.json("key", "list", "--keyring", "default")["keys"]
    assert [(key["version"], key["state"]) for key in keys] == [(1, "decrypt-only"), (2, "active")]


def test_a_version_that_is_young_enough_is_left_alone(folder: Path, cli: Cli) -> None:
    assert cli.json("key", "rotate", "--min-age", "1h")["version"] == 1


def test_ids_are_text_in_json_so_that_no_reader_rounds_them(folder: Path, cli: Cli) -> None:
    for key in cli.json("key", "list")["keys"]:
        assert isinstance(key["id"], str)
        assert cli.json("key", "show", key["id"])["id"] == key["id"]


def test_times_are_iso_8601_in_utc(folder: Path, cli: Cli) -> None:
    created = datetime.fromisoformat(cli.json("key", "show", "default/1")["created_at"])
    assert created.utcoffset() == timedelta(0)


def test_no_answer_holds_a_wrapped_key(folder: Path, cli: Cli) -> None:
    assert "wrapped_key" not in cli.ok("key", "list", "--json").stdout


def test_the_list_is_cut_and_says_so(folder: Path, cli: Cli) -> None:
    result = cli.ok("key", "list", "--limit", "2")
    assert "2 of 3 keys" in result.stderr
    answer = cli.json("key", "list", "--limit", "2")
    assert (len(answer["keys"]), answer["total"], answer["is_complete"]) == (2, 3, False)
    assert [key["keyring"] for key in answer["keys"]] == ["default", "keystead.index"]
    assert len(cli.json("key", "list", "--limit", "2", "--all")["keys"]) == 3


def test_the_list_is_filtered_by_state(folder: Path, cli: Cli) -> None:
    cli.ok("key", "rotate")
    keys = cli.json("key", "list", "--state", "decrypt-only", "--state", "disabled")["keys"]
    assert [(key["keyring"], key["version"]) for key in keys] == [("default", 1)]


def test_a_disabled_version_does_not_decrypt_until_it_is_enabled(folder: Path, cli: Cli) -> None:
    text = cli.ok("encrypt", "--text", given=b"x").stdout
    cli.ok("key", "rotate")
    cli.ok("key", "disable", "default/1")
    assert cli.run("decrypt", given=text).exit_code == 1
    cli.ok("key", "enable", "default/1")
    assert cli.ok("decrypt", given=text).stdout == "x"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("key", "show", "12345"), "keystead key list"),
        (("key", "show", "default/9"), "keystead key list"),
        (("key", "show", "nonsense"), "keyring/version"),
        (("key", "show", "99999999999999999999999"), "keystead key list"),
        (("key", "rotate", "absent"), "keystead key create absent"),
        (("key", "list", "--keyring", "absent"), "keystead key create absent"),
        (("key", "create", "default"), "keystead key rotate default"),
        (("key", "create", "keystead.mine"), "reserved"),
        (("key", "rotate", "keystead.wrap"), "keystead key rewrap"),
        (("key", "rotate", "keystead.index"), "index"),
        (("key", "disable", "default/1"), "active"),
        (("key", "destroy", "default/1", "--yes", "--no-sources"), "active"),
        (("key", "uses", "remove", "default", "absent"), "keystead key uses list"),
        (("key", "uses", "add", "absent", "n", "file:x"), "keystead key create absent"),
        (("key", "uses", "list", "absent"), "keystead key create absent"),
        (("key", "uses", "add", "default", "n", "ftp:x"), "file:<glob>"),
        (("key", "uses", "add", "default", "n", "sql:sqlite:///x.db"), "sql:<url>#<table>.<column>"),
    ],
)
def test_what_cannot_be_done_is_exit_code_1_with_the_cure(
    folder: Path, cli: Cli, args: tuple[str, ...], told: str
) -> None:
    assert told in cli.fails(1, *args)


@pytest.mark.parametrize(
    "args",
    [
        ("key", "rotate", "--promote", "later"),
        ("key", "rotate", "--min-age", "soon"),
        ("key", "list", "--state", "tired"),
        ("key", "list", "--limit", "0"),
        ("key", "destroy", "default/1", "--after", "soon"),
        ("key", "show"),
        ("key", "frobnicate"),
        ("frobnicate",),
        ("migrate", "--sql", "--roles"),
    ],
)
def test_wrong_usage_is_exit_code_2(folder: Path, cli: Cli, args: tuple[str, ...]) -> None:
    assert "--help" in cli.fails(2, *args)


def test_a_noun_alone_prints_its_help(folder: Path, cli: Cli) -> None:
    result = cli.run("key")
    assert result.exit_code == 2
    assert "Usage: keystead key" in result.stdout
    assert result.stderr == ""


def test_destroying_asks_for_the_id_typed_again(folder: Path, cli: Cli) -> None:
    cli.ok("key", "rotate")
    key = key_of(cli, "default/1")
    destroy = ("key", "destroy", "default/1", "--no-sources")
    assert "nothing was changed" in cli.fails(1, *destroy, given="yes\n")
    assert cli.run(*destroy, given="").exit_code == 2
    assert cli.json("key", "show", key)["state"] == "decrypt-only"
    cli.ok(*destroy, given=key + "\n")
    assert cli.json("key", "show", key)["state"] == "pending-destroy"


def test_a_destruction_is_put_off_and_can_be_cancelled(folder: Path, cli: Cli) -> None:
    cli.ok("key", "rotate")
    destroyed = cli.json("key", "destroy", "default/1", "--no-sources", "--yes", "--after", "7d")
    left = datetime.fromisoformat(destroyed["destroy_after"]) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)
    assert cli.json("status")["store"]["pending_destroy"][0]["id"] == destroyed["id"]
    assert cli.json("key", "cancel-destroy", destroyed["id"])["state"] == "disabled"


@pytest.mark.parametrize("after", ["6d", "31d"])
def test_a_destruction_waits_7_to_30_days(folder: Path, cli: Cli, after: str) -> None:
    cli.ok("key", "rotate")
    assert "7 to 30 days" in cli.fails(1, "key", "destroy", "default/1", "--no-sources", "--yes", "--after", after)


def test_without_a_declared_source_a_destruction_needs_no_sources_said(folder: Path, cli: Cli) -> None:
    cli.ok("key", "rotate")
    error = cli.fails(1, "key", "destroy", "default/1", "--yes")
    assert "keystead key uses add" in error
    assert "--no-sources" in error


def test_a_source_with_a_ciphertext_of_the_key_stops_its_destruction(folder: Path, cli: Cli) -> None:
    Path("out").mkdir()
    cli.ok("encrypt", "--text", "-o", "out/1.txt", given=b"x")
    cli.ok("key", "uses", "add", "default", "notes", "file:out/*.txt")
    cli.ok("key", "rotate")
    assert "notes (1)" in cli.fails(1, "key", "destroy", "default/1", "--yes")
    Path("out/1.txt").write_text("nothing any more")
    cli.ok("key", "destroy", "default/1", "--yes")


def test_a_source_of_every_tenant_stops_the_destruction_of_one_tenants_key(folder: Path, cli: Cli) -> None:
    cli.ok("key", "uses", "add", "notes-{tenant}", "notes", "file:*.txt")
    cli.ok("key", "create", "notes-acme")
    (folder / "note.txt").write_bytes(cli.ok("encrypt", "--keyring", "notes-acme", given=b"x").stdout_bytes)
    cli.ok("key", "rotate", "notes-acme", "--promote", "now")
    assert "notes (1)" in cli.fails(1, "key", "destroy", "notes-acme/1", "--yes")
    for named in ("notes-acme", "notes-{tenant}"):
        assert [use["name"] for use in cli.json("key", "uses", "list", named)["uses"]] == ["notes"]
    assert "'notes-{tenant}'" in cli.fails(1, "key", "uses", "remove", "notes-acme", "notes")
    (folder / "note.txt").write_bytes(b"")
    cli.ok("key", "destroy", "notes-acme/1", "--yes")
    cli.ok("key", "uses", "remove", "notes-{tenant}", "notes")
    assert cli.json("key", "uses", "list")["uses"] == []


def test_a_source_is_remembered_by_its_absolute_path(folder: Path, cli: Cli) -> None:
    cli.ok("key", "uses", "add", "default", "notes", "file:out/*.txt")
    cli.ok("key", "uses", "add", "default", "rows", "sql:sqlite:///app.db#people.name")
    found = {use["name"]: use["locator"] for use in cli.json("key", "uses", "list")["uses"]}
    assert found == {"notes": f"file:{folder}/out/*.txt", "rows": f"sql:sqlite:///{folder}/app.db#people.name"}
    cli.ok("key", "uses", "remove", "default", "notes")
    assert [use["name"] for use in cli.json("key", "uses", "list", "default")["uses"]] == ["rows"]


def test_a_source_with_a_password_is_refused_because_it_would_be_stored(folder: Path, cli: Cli) -> None:
    locator = "sql:postgresql://app:hunter2@db.example.org/app#people.name"
    error = cli.fails(1, "key", "uses", "add", "default", "rows", locator)
    assert "PGPASSFILE" in error
    assert "hunter2" not in error


def test_status_names_every_kek_that_is_still_needed(folder: Path, cli: Cli) -> None:
    status = cli.json("status")
    assert status["store"]["keks"] == [{"provider": "local", "key_id": "default", "version": "1", "wrap_keys": 1}]
    assert status["default_keyring"]["active_key_version"] == 1
    assert "needed KEK" in cli.ok("status").stdout


def test_rewrapping_moves_every_key_under_a_new_wrap_key(folder: Path, cli: Cli) -> None:
    before = cli.json("key", "show", "default/1")["wrapped_by"]
    assert cli.json("key", "rewrap")["data_keys"] == 2
    assert cli.json("key", "show", "default/1")["wrapped_by"] == key_of(cli, "keystead.wrap/2") != before
    assert cli.json("key", "rewrap", "--keep-wrap-key")["data_keys"] == 0


def test_the_kek_file_gets_a_new_version_and_every_key_moves_under_it(folder: Path, cli: Cli) -> None:
    cli.json("key", "rewrap", "--rotate-kek")
    keks = cli.json("status")["store"]["keks"]
    assert [kek["version"] for kek in keks] == ["2"]


def test_maintenance_tells_what_it_did(folder: Path, cli: Cli) -> None:
    report = cli.json("maintain")
    assert report["client_keys"] == {"deprecated": 0, "erased": 0, "dropped": 0, "unspent": 0, "moved": 0}
    assert (report["rotated"], report["failures"]) == (0, {})


def test_a_single_command_is_no_node(folder: Path, cli: Cli) -> None:
    cli.ok("maintain")
    assert cli.json("status")["store"]["nodes"] == 0


def test_only_an_active_version_is_said_to_rotate(folder: Path, cli: Cli) -> None:
    cli.ok("key", "rotate")
    lines = cli.ok("key", "list", "--keyring", "default").stdout.splitlines()[2:]
    assert [(line.split()[2], line.split()[-1].endswith("Z")) for line in lines] == [
        ("decrypt-only", False),
        ("active", True),
    ]
    assert "rotates" not in cli.ok("key", "show", "default/1").stdout
    assert "rotates" in cli.ok("key", "show", "default/2").stdout


def test_what_each_version_still_protects_is_counted(folder: Path, cli: Cli) -> None:
    assert cli.ok("key", "uses", "count", "default").stdout.strip() == "no data sources declared"
    cli.ok("encrypt", "--text", "-o", "one", given=b"old")
    cli.ok("key", "rotate", "--promote", "now")
    cli.ok("key", "uses", "add", "default", "files", f"file:{folder}/one")
    told = cli.ok("key", "uses", "count", "default").stdout
    assert re.search(r"1 +decrypt-only +files: 1", told)
    assert re.search(r"2 +active +-", told)
    assert cli.json("key", "uses", "count", "default")["sources"][0]["counts"] == {"1": 1}
    Path("one").unlink()
    result = cli.run("key", "uses", "count", "default")
    assert result.exit_code == 1
    assert "not looked through" in result.stderr
