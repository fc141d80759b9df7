"""``keystead import legacy``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main

from keystead.cli.main import build_app
from tests.legacy.sources import ITERATIONS, PLAINTEXT, SALT, SEED, OldKey, build, old_keys, old_text

DEFAULT_ROOT = bytes.fromhex("614a388534023d226fa25bd8c6a442abe905ea8fa27e551ae69de15edf6324c9")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], old_db: str) -> Run:
    """Run the command in an empty folder, and return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KMS_SEED", SEED)
    monkeypatch.setenv("KMS_SALT", SALT)
    where = ["--store", "sqlite:///keys.db", "--kms", "local:", "--from", old_db]

    def invoke(*options: str, iterations: int = ITERATIONS) -> tuple[int, str, str]:
        line = ["import", "legacy", *where, "--iterations", str(iterations), *options]
        with pytest.raises(SystemExit) as ended:
            typer.main.get_command(build_app()).main(line)
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return invoke


def opened(action: Callable[[Any], Any]) -> Any:
    import keystead.blocking

    with keystead.blocking.KeyManager.open("local:", store="sqlite:///keys.db", background=False) as km:
        return action(km)


def test_it_imports_and_says_how_many(run: Run, old_db: str) -> None:
    keys = old_keys(3)
    build(old_db, "data_keys", keys)

    code, out, err = run()

    assert code == 0
    assert "imported       3" in out
    assert "warning: seed is under 16 bytes" in err
    assert opened(lambda km: [km.decrypt_legacy(old_text(key)) for key in keys]) == [PLAINTEXT] * 3


def test_json_has_every_member_of_the_report(run: Run, old_db: str) -> None:
    good, bad = old_keys(2, exposed=True)
    build(old_db, "data_keys", [good, replace(bad, wrapped=b"", clear=b"x")])

    code, out, err = run("--json")

    report = json.loads(out)
    assert code == 1
    assert report["imported"] == [good.version]
    assert report["failed"] == {bad.version: "a legacy wrapped key is 60 bytes"}
    assert report["exposed"] == [good.version, bad.version]
    assert report["rotated_to"] == 2
    assert f"not imported: {bad.version}" in err
    assert "stood in clear" in err


def test_a_dry_run_says_what_it_would_do(run: Run, old_db: str) -> None:
    build(old_db, "data_keys", old_keys(4, exposed=True))
    assert opened(lambda km: km.rotate_data_key()).version == 2

    code, out, _ = run("--dry-run")

    assert code == 0
    assert "would import 4" in " ".join(out.split())
    assert "exposed 4: " in " ".join(out.split())
    assert ", ..." in out
    assert opened(lambda km: km.rotate_data_key()).version == 3


def test_a_dry_run_makes_no_store(run: Run, old_db: str, tmp_path: Path) -> None:
    build(old_db, "data_keys", old_keys(1))
    before = set(tmp_path.iterdir())

    code, _, err = run("--dry-run")

    assert code == 1
    assert "keystead init" in err
    assert set(tmp_path.iterdir()) == before


def test_secrets_come_from_files_as_well(
    run: Run, old_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KMS_SEED")
    monkeypatch.delenv("KMS_SALT")
    (tmp_path / "seed").write_text(SEED + "\n")
    (tmp_path / "salt").write_text(SALT)
    build(old_db, "data_keys", [OldKey()])

    code, _, _ = run("--seed-file", "seed", "--salt-file", "salt")

    assert code == 0


def test_secrets_come_from_variables_of_any_name(run: Run, old_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD_SEED", SEED)
    monkeypatch.setenv("KMS_SEED", "another")
    build(old_db, "data_keys", [OldKey()])

    assert run("--seed-env", "OLD_SEED")[0] == 0


def test_a_missing_seed_is_told_with_the_cure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KMS_SEED")

    code, _, err = run()

    assert code == 1
    assert "no seed: put it in the environment variable KMS_SEED" in err


def test_the_shipped_defaults_are_taken_with_a_warning(run: Run, old_db: str) -> None:
    build(old_db, "data_keys", old_keys(1, root=DEFAULT_ROOT))

    code, out, err = run("--known-defaults", iterations=100_000)

    assert (code, "imported       1" in out) == (0, True)
    assert "warning: seed is a published default" in err


def test_known_defaults_and_a_file_contradict_each_other(run: Run) -> None:
    assert run("--known-defaults", "--seed-file", "x")[0] == 2


def test_a_wrong_seed_fails_and_never_prints_it(run: Run, old_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMS_SEED", "quite another seed")
    build(old_db, "data_keys", old_keys(2))

    code, out, err = run()

    assert code == 1
    assert "none of 2 keys can be imported" in err
    assert "quite another seed" not in out + err


def test_a_key_whose_row_was_revoked_is_listed(run: Run, old_db: str) -> None:
    (key,) = old_keys(1, "kms_data_keys")
    build(old_db, "kms_data_keys", [replace(key, status="revoked")])

    assert "disabled       1: 1" in run()[1]
