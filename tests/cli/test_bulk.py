"""``keystead bulk`` on a dataset of Parquet files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bulk.conftest import FILES, ROWS, plain_dataset
from tests.cli.conftest import Cli, environment, run_process

RULES = ("--column", "pii=email", "--plain", "id")
FIRST = "country=FR/part-0.parquet"


@pytest.fixture
def plain(folder: Path) -> Path:
    """A dataset in clear, in the working folder."""
    return plain_dataset(folder / "plain")


@pytest.fixture
def encrypted(cli: Cli, plain: Path) -> Path:
    """The same, encrypted."""
    told = cli.json("bulk", "encrypt", "plain", "encrypted", *RULES)
    assert (told["done"], told["unchanged"], told["failures"], told["rows"]) == (FILES, 0, [], FILES * ROWS)
    return plain.parent / "encrypted"


@pytest.mark.usefixtures("encrypted")
def test_a_dataset_is_encrypted_once_verified_reencrypted_and_rotated(cli: Cli) -> None:
    assert cli.json("bulk", "encrypt", "plain", "encrypted", *RULES)["unchanged"] == FILES
    assert cli.json("bulk", "verify", "encrypted", *RULES)["done"] == FILES
    assert cli.json("bulk", "reencrypt", "encrypted")["done"] == FILES
    assert cli.json("bulk", "reencrypt", "encrypted")["done"] == 0
    assert cli.json("bulk", "reencrypt", "encrypted", "--again")["done"] == FILES
    assert cli.json("bulk", "rotate", "encrypted")["done"] == 0
    cli.ok("key", "rotate", "pii")
    assert cli.json("bulk", "rotate", "encrypted")["done"] == FILES
    assert "rewrap" not in cli.ok("bulk", "verify", "encrypted").stdout
    assert "written anew" in cli.fails(1, "bulk", "rotate", "encrypted", "--rewrap-only")


def test_a_plan_estimates(cli: Cli, plain: Path) -> None:
    told = cli.json("bulk", "plan", "encrypt", "plain", *RULES)
    assert (told["operation"], told["files"], told["rows"]) == ("encrypt", FILES, FILES * ROWS)
    assert "estimate" in cli.ok("bulk", "plan", "encrypt", "plain", "--engine", "processes", "--workers", "3").stdout
    assert "cluster" in cli.fails(
        2, "bulk", "plan", "encrypt", "plain", "--engine", "dask", "--scheduler", "tcp://127.0.0.1:1"
    )


def test_a_file_that_was_altered_ends_in_exit_code_3_and_is_named(cli: Cli, encrypted: Path) -> None:
    path = encrypted / FIRST
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = cli.run("bulk", "verify", "encrypted")
    assert done.exit_code == 3
    assert f"{FIRST}: it is not as the manifest says" in done.stderr
    assert cli.run("bulk", "reencrypt", "encrypted").exit_code == 1


def test_another_process_finds_the_same_store_by_the_flags_that_were_given(folder: Path, plain: Path) -> None:
    (folder / "keystead.yaml").rename(folder / "elsewhere.yaml")
    for number, flags in enumerate(
        (("--config", "elsewhere.yaml"), ("--store", "sqlite:///keys.db", "--kms", "file:keystead.kek"))
    ):
        how = ("--engine", "processes", "--workers", "1", *flags)
        done = run_process(folder, "bulk", "encrypt", "plain", f"encrypted-{number}", *RULES, *how)
        assert done.returncode == 0, done.stderr
        assert done.stderr == b""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--column", "email"), "KEYRING=COLUMN"),
        (("--workers", "2"), "--workers goes with"),
        (("--scheduler", "tcp://127.0.0.1:1"), "--scheduler goes with"),
        (("--engine", "dask"), "needs --scheduler"),
        (("--engine", "dask", "--scheduler", "tls://h:1", "--tls-ca", "ca.pem"), "go together"),
    ],
)
@pytest.mark.usefixtures("plain")
def test_options_that_do_not_fit_are_wrong_usage(cli: Cli, options: tuple[str, ...], told: str) -> None:
    assert told in cli.fails(2, "bulk", "encrypt", "plain", "encrypted", *options)


@pytest.mark.usefixtures("plain")
def test_a_cluster_off_this_machine_is_spoken_to_by_tls_alone(cli: Cli, folder: Path) -> None:
    how = ("--engine", "dask", "--scheduler", "tcp://10.0.0.1:8786")
    assert "not TLS" in cli.fails(1, "bulk", "encrypt", "plain", "encrypted", *how)
    assert not (folder / "encrypted").exists()


def test_the_command_line_does_not_load_pyarrow_to_tell_its_help(folder: Path) -> None:
    program = "import sys; from keystead.cli.main import build_app; build_app(); sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment(), check=False).returncode == 0
