"""``keystead log verify`` reads what fapilog-tamper wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from keystead.ledger import TrustedKey, TrustPolicy
from tests.cli.conftest import Cli

RECORDED = Path(__file__).parents[1] / "integrations" / "fapilog" / "recorded"


@pytest.fixture
def old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("hmac-1.jsonl", "hmac-2.jsonl"):
        for file in (name, f"{name}.manifest.json"):
            shutil.copy(RECORDED / file, folder)
    monkeypatch.setenv("AUDIT_KEY", bytes(range(32)).hex())
    return folder / "hmac-1.jsonl"


def test_a_file_of_the_older_format_is_verified_and_its_limits_are_said(old: Path, cli: Cli) -> None:
    result = cli.ok("log", "verify", old.name, "--key-env", "AUDIT_KEY")
    assert "fapilog-tamper, format 1: as it was written (3 records, 1 file)" in result.stdout
    assert "warning: format 1" in result.stderr
    report = cli.json("log", "verify", old.name, "--key-env", "AUDIT_KEY")
    assert (report["valid"], report["manifest_signature_valid"]) == (True, True)


def test_a_sequence_is_verified_as_a_shell_lists_it(old: Path, cli: Cli) -> None:
    listed = [path.name for path in sorted(old.parent.glob("hmac-*"))]
    assert len(listed) == 4
    assert "6 records, 2 files" in cli.ok("log", "verify", *listed, "--key-env", "AUDIT_KEY").stdout


def test_a_changed_one_is_exit_code_3_with_its_findings(old: Path, cli: Cli) -> None:
    old.write_bytes(old.read_bytes().replace(b"started", b"stopped", 1))
    result = cli.run("log", "verify", old.name, "--key-env", "AUDIT_KEY")
    assert result.exit_code == 3
    assert "mac_mismatch" in result.stdout
    assert "hmac-1.jsonl:1" in result.stdout


def test_without_its_key_nothing_is_found_out(old: Path, cli: Cli) -> None:
    assert cli.run("log", "verify", old.name, "--key-env", "NOT_SET").exit_code == 4
    result = cli.run("log", "verify", old.name)
    assert result.exit_code == 2
    assert "is a file of fapilog-tamper" in result.stderr


@pytest.mark.parametrize("content", [b"", b"{\n", b"[1]\n"], ids=["nothing", "broken", "no object"])
def test_one_that_was_gutted_is_known_by_its_manifest_and_is_exit_code_3(old: Path, cli: Cli, content: bytes) -> None:
    old.write_bytes(content)
    result = cli.run("log", "verify", old.name, "--key-env", "AUDIT_KEY")
    assert result.exit_code == 3
    assert "NOT as it was written" in result.stdout


@pytest.mark.parametrize("asked", [["--policy", "app.policy.json"], ["--expect-closed"], ["--since-checkpoint", "c"]])
def test_one_in_the_place_of_a_sealed_log_is_not_taken_for_it(old: Path, cli: Cli, asked: list[str]) -> None:
    policy = TrustPolicy("example.org/app", (TrustedKey("local", "default", "env:AUDIT_KEY?key=default"),))
    policy.save(old.parent / "app.policy.json")
    (old.parent / "c").write_bytes(b"a checkpoint")
    assert cli.run("log", "verify", old.name, "--key-env", "AUDIT_KEY").exit_code == 0
    assert cli.run("log", "verify", old.name, "--key-env", "AUDIT_KEY", *asked).exit_code in {3, 4}
