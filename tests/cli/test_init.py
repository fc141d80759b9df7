"""``keystead init``: what it makes, and that it overwrites nothing."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from keystead import KeyManager
from tests.cli.conftest import Cli

COMMANDS = [
    ("status",),
    ("maintain",),
    ("migrate",),
    ("migrate", "--sql"),
    ("migrate", "--roles"),
    ("config", "check"),
    ("key", "list"),
    ("key", "rotate"),
    ("key", "rewrap"),
    ("key", "create", "orders"),
    ("key", "show", "default/1"),
    ("key", "uses", "list"),
    ("store", "export"),
    ("store", "verify"),
    ("encrypt",),
    ("encrypt", "--text"),
]


def test_init_makes_settings_a_kek_and_a_store(empty: Path, cli: Cli) -> None:
    result = cli.ok("init")
    assert sorted(path.name for path in empty.iterdir() if not path.name.startswith(".")) == [
        "keys.db",
        "keystead.kek",
        "keystead.yaml",
    ]
    assert "Back up keystead.kek" in result.stdout


def test_only_the_owner_may_read_the_kek_and_the_store(folder: Path) -> None:
    for name in ("keystead.kek", "keys.db"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["keystead.yaml", "keystead.kek", "keys.db"])
def test_init_overwrites_nothing_and_makes_nothing_then(empty: Path, cli: Cli, name: str) -> None:
    (empty / name).write_bytes(b"precious")
    assert name in cli.fails(1, "init")
    assert [(path.name, path.read_bytes()) for path in empty.iterdir()] == [(name, b"precious")]


def test_init_adopts_the_store_that_a_program_made_here(empty: Path, cli: Cli) -> None:
    async def program() -> bytes:
        async with KeyManager.open("local:", store="sqlite:///keys.db") as km:
            return km.local_encrypt(b"by a program")

    blob = asyncio.run(program())
    kek = (empty / "keystead.kek").read_bytes()
    assert cli.json("init")["made"] == ["keystead.yaml"]
    assert (empty / "keystead.kek").read_bytes() == kek
    assert cli.ok("decrypt", given=blob).stdout == "by a program"


def test_init_adopts_no_store_of_another_kek(folder: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cli.ok("init", str(tmp_path / "other"))
    (folder / "keystead.kek").write_bytes((tmp_path / "other" / "keystead.kek").read_bytes())
    (folder / "keystead.yaml").unlink()
    cli.fails(1, "init")
    assert sorted(path.name for path in folder.glob("key*")) == ["keys.db", "keystead.kek"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_after_init_every_command_works(folder: Path, cli: Cli, command: tuple[str, ...]) -> None:
    cli.ok(*command, given=b"x")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_before_init_every_command_fails_and_names_it(empty: Path, cli: Cli, command: tuple[str, ...]) -> None:
    assert "keystead init" in cli.fails(1, *command, given=b"x")
    assert list(empty.iterdir()) == []


def test_init_makes_another_folder_than_the_working_one(empty: Path, cli: Cli) -> None:
    (empty / "app").mkdir()
    cli.ok("init", "app")
    assert cli.json("status", "--config", "app/keystead.yaml")["store"]["keyrings"] == 3
    assert [path.name for path in empty.iterdir()] == ["app"]


def test_a_failing_init_leaves_nothing_behind(empty: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTEAD_ENV", "production")
    assert "allow_in_production" in cli.fails(1, "init")
    assert [path for path in empty.iterdir() if path.is_file()] == []


def test_init_with_a_kek_and_a_store_elsewhere_writes_the_settings_only(empty: Path, cli: Cli) -> None:
    made = cli.json("init", "--store", "postgresql://app@db.example.org/keys", "--kms", "env:TEST_KEK")
    assert (made["made"], made["kek"], made["store"]) == (["keystead.yaml"], None, None)
    settings = cli.json("config", "check")["settings"]
    assert settings["kms"] == {"value": "env:TEST_KEK", "from": "keystead.yaml"}


def test_init_writes_no_password_into_the_settings(empty: Path, cli: Cli) -> None:
    error = cli.fails(1, "init", "--store", "postgresql://app:hunter2@db.example.org/keys")
    assert "${DB_PASSWORD}" in error
    assert "hunter2" not in error
    assert list(empty.iterdir()) == []


def test_init_refuses_a_store_in_memory(empty: Path, cli: Cli) -> None:
    assert "memory" in cli.fails(1, "init", "--store", "memory://")


def test_init_warns_of_a_variable_that_wins_over_its_file(
    empty: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSTEAD_STORE", "sqlite:///other.db")
    assert "KEYSTEAD_STORE" in cli.ok("init").stderr
    assert not Path("other.db").exists()
