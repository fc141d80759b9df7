"""A store that is not where its URL says: made by the commands that make things, refused by all others."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("by_alembic")

READING = [
    ["status"],
    ["maintain"],
    ["decrypt", "note.enc"],
    ["key", "list"],
    ["key", "show", "default/1"],
    ["key", "rotate"],
    ["key", "rotate-index"],
    ["key", "rewrap"],
    ["key", "disable", "default/1"],
    ["key", "enable", "default/1"],
    ["key", "destroy", "default/1", "--yes"],
    ["key", "cancel-destroy", "default/1"],
    ["key", "uses", "list"],
    ["key", "uses", "add", "default", "post", "file:/data/*.txt"],
    ["key", "uses", "remove", "default", "post"],
    ["field", "list"],
    ["field", "forget", "people.email"],
    ["reencrypt", "sqlite:///app.db", "people.email"],
    ["reencryption", "list"],
    ["reencryption", "pause", "0123"],
    ["reencryption", "resume", "0123"],
    ["reencryption", "cancel", "0123"],
    ["audit", "begin"],
    ["audit", "status"],
    ["audit", "list"],
    ["audit", "verify"],
    ["audit", "acknowledge", "1", "--reason", "looked into"],
    ["audit", "checkpoint", "kept"],
    ["audit", "policy", "policy.json"],
    ["audit", "export", "files"],
    ["audit", "archive", "files", "--before", "90d"],
    ["audit", "end", "--reason", "moving house"],
    ["store", "export", "keys.export"],
    ["store", "verify"],
    ["store", "recover"],
    ["doctor", "--json"],
]


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def mistyped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a KEK and a file, without a state journal, whose settings name another store."""
    Path("note.enc").write_bytes(b"something")
    shutil.rmtree(".keystead")
    monkeypatch.setenv("KEYSTEAD_STORE", f"sqlite:///{folder}/mistyped.db")
    return folder


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_command_that_makes_no_store_refuses_a_mistyped_one_and_leaves_nothing(
    mistyped: Path, cli: Cli, command: list[str]
) -> None:
    before = everything(mistyped)
    result = cli.run(*command)
    assert result.exit_code in (1, 4), result.stderr
    told = " ".join(result.output.split())
    assert f"there is no store at {mistyped}/mistyped.db" in told
    assert "keystead init" in told
    assert everything(mistyped) == before


def test_the_refusal_has_a_code_of_its_own(mistyped: Path, cli: Cli) -> None:
    answer = json.loads(cli.run("status", "--json").stdout)
    assert (answer["error"]["code"], answer["error"]["retryable"]) == ("store_not_found", False)


def test_no_key_file_is_made_for_a_store_that_is_not_there(empty: Path, cli: Cli) -> None:
    cli.fails(1, "status", "--store", "sqlite:///absent.db", "--kms", "local:")
    cli.fails(1, "status", "--store", "sqlite:///absent/absent.db", "--kms", "local:")
    assert everything(empty) == set()


def test_a_file_without_a_table_is_no_store(folder: Path, cli: Cli) -> None:
    Path("hollow.db").touch()
    assert "hollow.db" in cli.fails(1, "key", "list", "--store", "sqlite:///hollow.db")
    assert Path("hollow.db").stat().st_size == 0
    assert not list(folder.glob("hollow.db-*"))


def test_what_lies_below_a_file_is_no_store(folder: Path, cli: Cli) -> None:
    assert "there is no store" in cli.fails(1, "status", "--store", "sqlite:///keystead.yaml/keys.db")


@pytest.mark.parametrize(
    "command",
    [["encrypt", "-o", "new.enc"], ["encrypt", "--text"], ["key", "create", "letters"]],
    ids=["encrypt", "encrypt text", "key create"],
)
def test_a_command_that_makes_keys_makes_the_store(folder: Path, cli: Cli, command: list[str]) -> None:
    cli.ok(*command, "--store", "sqlite:///new.db", given=b"meet at noon")
    assert cli.json("key", "list", "--store", "sqlite:///new.db")["total"] > 0


def test_an_import_makes_the_store(folder: Path, cli: Cli) -> None:
    cli.ok("store", "export", "keys.export")
    cli.ok("store", "import", "keys.export", "--store", "sqlite:///new.db")
    assert "decrypts only" in cli.ok("status", "--store", "sqlite:///new.db").stdout


def test_a_migration_makes_the_store(folder: Path, cli: Cli) -> None:
    cli.ok("migrate", "--store", "sqlite:///new.db")
    cli.ok("status", "--store", "sqlite:///new.db")


def test_an_export_is_verified_without_the_store(folder: Path, cli: Cli) -> None:
    cli.ok("store", "export", "keys.export")
    cli.ok("store", "verify", "keys.export", "--store", "sqlite:///absent.db")
    assert not Path("absent.db").exists()


def test_trying_an_import_of_older_keys_makes_no_store(folder: Path, cli: Cli) -> None:
    with sqlite3.connect("old.db") as raw:
        raw.execute("CREATE TABLE data_keys (version TEXT)")
    raw.close()
    args = ["import", "legacy", "--from", "sqlite:///old.db", "--known-defaults", "--dry-run"]
    assert "there is no store" in cli.fails(1, *args, "--store", "sqlite:///absent.db")
    assert not Path("absent.db").exists()
