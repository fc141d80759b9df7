"""``keystead init``: what it makes, and that it overwrites nothing."""

from __future__ import annotations

import asyncio
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from keystead import KeyManager
from tests.cli.conftest import Cli
from tests.components import missing

pytestmark = pytest.mark.usefixtures("by_alembic")

COMMANDS = [
    ("status",),
    ("doctor",),
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


def test_init_makes_the_folder_that_it_is_given(empty: Path, cli: Cli) -> None:
    cli.ok("init", "deep/down")
    assert (empty / "deep" / "down" / "keystead.yaml").is_file()


def test_a_folder_that_cannot_be_made_is_named_and_a_failure_leaves_none(empty: Path, cli: Cli) -> None:
    (empty / "file").touch()
    assert "the folder file/below cannot be made" in cli.fails(1, "init", "file/below")
    cli.fails(1, "init", "new", "--kms", "env:A_KEY_THAT_IS_NOT_SET")
    assert [path.name for path in empty.iterdir()] == ["file"]


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
    assert cli.json("init")["made"] == ["keystead.yaml", ".gitignore"]
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


def git_status(folder: Path) -> set[str]:
    """Return what git would take in of a folder."""
    for command in (["init", "--quiet"], ["status", "--porcelain", "--untracked-files=all"]):
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True)
    return {line[3:] for line in done.stdout.splitlines()}


def test_git_takes_in_neither_the_kek_nor_the_store(folder: Path, cli: Cli) -> None:
    if shutil.which("git") is None:
        missing("git", "install git from your distribution")
    cli.ok("key", "rewrap", "--rotate-kek")
    for name in ("keystead.kek.lock", "keystead.kek.new", "keys.db-wal", "keys.db-shm", "keys.db-journal"):
        (folder / name).touch()
    assert git_status(folder) == {".gitignore", "keystead.yaml"}


def test_what_lies_elsewhere_is_not_ignored_here(empty: Path, cli: Cli) -> None:
    cli.ok("init", "--kms", "env:TEST_KEK", "--store", "postgresql://app@db.example.org/keys")
    assert not (empty / ".gitignore").exists()
    (empty / "keystead.yaml").unlink()
    cli.ok("init", "--store", "postgresql://app@db.example.org/keys")
    assert "/keystead.kek" in (empty / ".gitignore").read_text()
    assert "keys.db" not in (empty / ".gitignore").read_text()


@pytest.mark.parametrize(
    ("content", "unignored"),
    [
        ("", ["/keystead.kek", "/keystead.kek.*", "/keys.db", "/keys.db-*", "/.keystead/"]),
        ("*.kek\n/keys.db*\n", ["/keystead.kek.*", "/.keystead/"]),
        ("# *\n*.kek*\n*.db*\n!keys.db\n.keystead\n", ["/keys.db"]),
        ("keystead.kek/\n**/keystead.kek.*\nkeys.db*\n/.keystead/\n", ["/keystead.kek"]),
        ("sub/keystead.kek*\nkeys.db*\n.keystead/\n", ["/keystead.kek", "/keystead.kek.*"]),
        ("*\n", []),
        ("keystead.kek*\r\nkeys.db*\r\n.keystead/\r\n", []),
    ],
)
def test_a_gitignore_that_is_here_stays_as_it_is_and_what_it_lacks_is_told(
    empty: Path, cli: Cli, content: str, unignored: list[str]
) -> None:
    (empty / ".gitignore").write_bytes(content.encode())
    told = cli.json("init")
    assert (told["unignored"], ".gitignore" in told["made"]) == (unignored, False)
    assert (empty / ".gitignore").read_bytes() == content.encode()


def test_the_entries_that_a_gitignore_lacks_are_printed(empty: Path, cli: Cli) -> None:
    (empty / ".gitignore").write_text("*.db*\n")
    assert "Add to it: /keystead.kek /keystead.kek.* /.keystead/" in cli.ok("init").stdout


def test_a_gitignore_that_leads_nowhere_is_not_written_through(empty: Path, cli: Cli) -> None:
    (empty / ".gitignore").symlink_to(empty / "absent")
    assert len(cli.json("init")["unignored"]) == 5
    assert not (empty / "absent").exists()


def test_settings_that_it_would_not_make_are_refused(cli: Cli, empty: Path) -> None:
    assert "keystead.yaml in FOLDER" in cli.fails(2, "init", "--config", "other.yaml")
    assert list(empty.iterdir()) == []
