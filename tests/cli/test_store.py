"""``keystead store``, ``migrate`` and ``config check``."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from keystead.stores.schema import HEAD
from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("by_alembic")


@pytest.fixture
def elsewhere(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another working folder with the KEK and the settings, and an export of the store they belong to."""
    cli.ok("encrypt", "-o", "sealed", given=b"before the export")
    target = folder / "elsewhere"
    target.mkdir()
    for name in ("keystead.yaml", "keystead.kek"):
        shutil.copy(folder / name, target / name)
    cli.ok("store", "export", "elsewhere/keys.export")
    monkeypatch.chdir(target)
    return target


def test_an_export_is_the_same_on_stdout_and_in_a_file(folder: Path, cli: Cli) -> None:
    cli.ok("store", "export", "keys.export")
    printed, written = json.loads(cli.ok("store", "export").stdout), json.loads(Path("keys.export").read_text())
    assert printed["store"]["keys"] == written["store"]["keys"]


def test_an_export_verifies_without_its_store(elsewhere: Path, cli: Cli) -> None:
    assert cli.json("store", "verify", "keys.export") == {"keys": 4, "failures": []}
    assert not (elsewhere / "keys.db").exists()


def test_the_store_itself_verifies(folder: Path, cli: Cli) -> None:
    assert "3 of 3 keys open" in cli.ok("store", "verify").stdout


def test_an_imported_store_decrypts_and_encrypts_after_recovery_only(elsewhere: Path, cli: Cli) -> None:
    assert cli.json("store", "import", "keys.export")["restored"] is True
    assert cli.ok("decrypt", "../sealed").stdout == "before the export"
    assert "keystead store recover" in cli.fails(1, "encrypt", given=b"x")
    report = cli.json("store", "recover")
    assert report["gone"] == []
    cli.ok("encrypt", "-o", "new", given=b"after it")
    assert cli.ok("decrypt", "new").stdout == "after it"
    assert cli.ok("decrypt", "../sealed").stdout == "before the export"


def test_import_refuses_a_store_with_keys(folder: Path, cli: Cli) -> None:
    cli.ok("store", "export", "keys.export")
    assert "empty" in cli.fails(1, "store", "import", "keys.export")


def test_import_with_another_kek_writes_nothing(elsewhere: Path, cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    cli.ok("init", str(other))
    shutil.copy(other / "keystead.kek", "keystead.kek")
    assert "KEK" in cli.fails(1, "store", "import", "keys.export")
    assert not (elsewhere / "keys.db").exists()
    assert cli.run("store", "verify", "keys.export").exit_code == 3


def test_a_damaged_export_is_refused(elsewhere: Path, cli: Cli) -> None:
    text = Path("keys.export").read_text()
    for damaged in (
        "",
        "{}",
        text[:-50],
        text.replace('"version": 1', '"version": 2'),
        text.replace("active", "disabled"),
    ):
        Path("bad").write_text(damaged)
        for verb in ("verify", "import"):
            cli.fails(1, "store", verb, "bad")
    Path("bad").write_bytes(b"\xff\xfe")
    cli.fails(1, "store", "import", "bad")


def test_recover_refuses_a_store_that_was_not_restored(folder: Path, cli: Cli) -> None:
    assert "nothing to recover" in cli.fails(1, "store", "recover")


def test_an_altered_row_is_found_by_verify(folder: Path, cli: Cli) -> None:
    cli.ok("key", "create", "orders")
    key = cli.json("key", "show", "orders/1")["id"]
    with sqlite3.connect("keys.db") as database:
        found = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for trigger in found:
            database.execute(f'DROP TRIGGER "{trigger}"')
        wrapped = bytearray(database.execute("SELECT wrapped_key FROM data_keys WHERE id = ?", (key,)).fetchone()[0])
        wrapped[-1] ^= 1
        database.execute("UPDATE data_keys SET wrapped_key = ? WHERE id = ?", (bytes(wrapped), key))
    database.close()
    result = cli.run("store", "verify", "--json")
    assert result.exit_code == 3
    assert [failure["id"] for failure in json.loads(result.stdout)["failures"]] == [key]


def test_the_wrong_kek_is_a_clear_error(folder: Path, cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    cli.ok("init", str(other))
    shutil.copy(other / "keystead.kek", "keystead.kek")
    assert "KEK" in cli.fails(1, "status")


def test_a_store_in_memory_is_refused(folder: Path, cli: Cli) -> None:
    assert "memory" in cli.fails(1, "encrypt", "--store", "memory://", given=b"x")


def test_migrate_makes_the_schema_and_does_no_harm_twice(empty: Path, cli: Cli) -> None:
    for _ in range(2):
        assert cli.json("migrate", "--store", "sqlite:///fresh.db") == {"revision": HEAD}


def test_migrate_makes_the_schema_on_postgresql(empty: Path, cli: Cli, postgres_url: str) -> None:
    assert "keystead migrate" in cli.fails(1, "status", "--store", postgres_url, "--kms", "local:")
    cli.ok("migrate", "--store", postgres_url)
    assert cli.json("status", "--store", postgres_url, "--kms", "local:")["store"]["keyrings"] == 3


def test_migrate_prints_its_statements_and_touches_nothing(empty: Path, cli: Cli) -> None:
    assert "CREATE TABLE data_keys" in cli.ok("migrate", "--sql", "--store", "sqlite:///fresh.db").stdout
    assert list(empty.iterdir()) == []


def test_migrate_prints_grants_without_delete_on_keys(folder: Path, cli: Cli) -> None:
    result = cli.ok("migrate", "--roles", "--app-role", "shop", "--migrate-role", "deploy")
    keys = [line for line in result.stdout.splitlines() if '"data_keys"' in line and line.startswith("GRANT")]
    assert keys
    assert all("DELETE" not in line for line in keys)
    assert '"deploy"' in result.stdout
    assert "PostgreSQL" in result.stderr


def test_config_check_tells_where_each_value_comes_from(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSTEAD_KEYRING", "orders")
    settings = cli.json("config", "check", "--kms", "env:TEST_KEK")["settings"]
    assert settings["store"]["from"] == "keystead.yaml"
    assert settings["keyring"] == {"value": "orders", "from": "environment KEYSTEAD_KEYRING"}
    assert settings["kms"] == {"value": "env:TEST_KEK", "from": "flag --kms"}
    assert settings["rotation.period"] == {"value": "90d", "from": "default"}


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_config_check_shows_no_secret(
    empty: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TEST_SEED", "a secret seed of the tests")
    Path("keystead.yaml").write_text(
        "kms: {seed: '${TEST_SEED}', salt: a-salt-of-the-tests, storage_type: database,"
        " store: 'postgresql://app:hunter2@db.example.org/keys?password=hunter2'}\n"
    )
    output = cli.ok("config", "check", *form).stdout
    assert "********" in output
    for secret in ("hunter2", "secret seed", "a-salt-of-the-tests"):
        assert secret not in output


def test_config_check_refuses_what_a_manager_would_refuse(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYSTEAD_ENV", "production")
    assert "allow_in_production" in cli.fails(1, "config", "check")


def test_an_error_in_json_is_on_stdout_too(folder: Path, cli: Cli) -> None:
    result = cli.run("key", "show", "1", "--json")
    assert json.loads(result.stdout)["error"]["code"] == "key_not_found"
    assert result.stderr.startswith("error: ")
