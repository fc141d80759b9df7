"""``keystead subject``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from keystead.errors import KMSError
from keystead.manager.manager import KeyManager
from tests.cli.conftest import Cli


@pytest.fixture(autouse=True)
def _log_of_erasures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTEAD_ERASURES", f"file:{folder}/outside/erasures.log")


def seal(*names: str) -> list[bytes]:
    async def main() -> list[bytes]:
        async with KeyManager.from_config(background=False) as km:
            return [(await km.subject(name)).local_encrypt(b"x") for name in names]

    return asyncio.run(main())


def is_known(name: str) -> bool:
    async def main() -> bool:
        async with KeyManager.from_config(background=False) as km:
            try:
                await km.subject(name, create=False)
            except KMSError:
                return False
            return True

    return asyncio.run(main())


def test_a_subject_is_forgotten_and_the_receipt_verifies(folder: Path, cli: Cli) -> None:
    seal("ada")
    Path("keys.pem").write_text(cli.ok("subject", "receipt-keys").stdout)
    assert "erased" in cli.ok("subject", "forget", "ada", "-o", "receipt.json", given="forget\n").stdout
    assert not is_known("ada")
    shown = cli.ok("subject", "verify-receipt", "receipt.json", "--keys", "keys.pem").stdout
    receipt = json.loads(Path("receipt.json").read_text())
    assert receipt["keyring"] in shown
    Path("altered.json").write_text(json.dumps(receipt | {"time": "2031-01-01T00:00:00.000000Z"}))
    assert "not signed by any of these keys" in cli.fails(
        3, "subject", "verify-receipt", "altered.json", "--keys", "keys.pem"
    )
    assert "nothing in this store is under keys of that subject" in cli.fails(1, "subject", "forget", "ada", "--yes")


def test_a_receipt_that_goes_nowhere_else_is_shown(folder: Path, cli: Cli) -> None:
    seal("ada", "bob")
    done = cli.ok("subject", "forget", "ada", "--yes")
    assert json.loads(done.stdout)["keyring"].startswith("keystead.subject.")
    assert cli.json("subject", "forget", "bob", "--yes")["receipt"]["v"] == 1


def test_nobody_is_forgotten_by_a_slip(folder: Path, cli: Cli) -> None:
    seal("ada")
    assert "--yes" in cli.run("subject", "forget", "ada").stderr
    assert "nothing was changed" in cli.fails(1, "subject", "forget", "ada", given="ada\n")
    assert is_known("ada")


def test_a_name_can_be_read_from_stdin(folder: Path, cli: Cli) -> None:
    seal("ada lovelace")
    cli.ok("subject", "forget", "-", "--yes", given="ada lovelace\n")
    assert not is_known("ada lovelace")


def test_without_a_log_it_is_told_how_to_have_one(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYSTEAD_ERASURES")
    assert "erasures=" in cli.fails(1, "subject", "forget", "ada", "--yes")


def test_what_is_no_receipt_or_key_is_told(folder: Path, cli: Cli) -> None:
    Path("none.json").write_text("{}")
    Path("keys.pem").write_text("no key")
    assert "no whole receipt" in cli.fails(1, "subject", "verify-receipt", "none.json", "--keys", "keys.pem")
    assert cli.run("subject", "verify-receipt", "absent.json", "--keys", "keys.pem").exit_code == 2


def test_a_relative_log_counts_from_the_settings_files_folder(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEYSTEAD_ERASURES")
    settings = folder / "keystead.yaml"
    settings.write_text(settings.read_text() + "\nerasures: file:outside/relative.log\n")
    seal("ada")
    assert (folder / "outside" / "relative.log").read_bytes().count(b"\n") == 1


def test_a_lost_receipt_is_given_again_by_the_keyring(folder: Path, cli: Cli) -> None:
    seal("ada", "bob")
    assert cli.ok("subject", "erasures").stdout.strip() == "no erasures"
    first = cli.json("subject", "forget", "ada", "--yes")["receipt"]
    cli.ok("subject", "forget", "bob", "--yes")
    assert first["keyring"] in cli.ok("subject", "erasures").stdout
    listed = cli.json("subject", "erasures")["erasures"]
    assert (listed[0]["line"], listed[0]["keyring"]) == (2, first["keyring"])
    assert cli.json("subject", "receipt", first["keyring"])["receipt"] == first
    assert "keystead subject erasures" in cli.fails(1, "subject", "receipt", "keystead.subject.none")
