"""Witnesses in processes of their own: what a cut, a rollback or two views of a log come to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keystead.ledger import SealedFile
from keystead.ledger.tlog.note import NoteKey, NoteKeyType
from tests.cli.conftest import Cli, run_process
from tests.cli.logs import SEAL, WitnessProcess
from tests.ledger.vectors import read

DIALOGUE = read("torchwood/add-checkpoint.json")


@pytest.fixture
def witnesses() -> Iterator[list[WitnessProcess]]:
    started: list[WitnessProcess] = []
    yield started
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


@pytest.fixture
def sealed(folder: Path) -> Path:
    """A log that a process has sealed and closed."""
    assert run_process(folder, *SEAL, given=b"one\ntwo\nthree\n").returncode == 0
    return folder / "app.log"


def trust(folder: Path, witness: WitnessProcess, quorum: int = 1) -> None:
    policy = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps({**policy, "witnesses": witness.vkeys, "quorum": quorum}))


def test_the_dialogue_of_another_implementation_over_http(folder: Path, witnesses: list[WitnessProcess]) -> None:
    log = DIALOGUE["log"]
    key = NoteKey.of(log["origin"], NoteKeyType.ED25519, bytes.fromhex(log["ed25519PublicKeyHex"]))
    witnesses.append(WitnessProcess(folder, "--dir", "w", "--name", "example.com/witness", "--vkey", key.vkey))
    for exchange in DIALOGUE["exchanges"]:
        status, body = witnesses[0].post(exchange["body"].encode())
        is_unknown = exchange["bodyText"] == "unknown log"
        assert status == (404 if is_unknown else exchange["status"])
        assert exchange["bodyText"] in body
    assert witnesses[0].stop() == 0


def test_a_witnessed_checkpoint_catches_a_log_that_was_cut(
    sealed: Path, folder: Path, cli: Cli, witnesses: list[WitnessProcess]
) -> None:
    witnesses.append(
        WitnessProcess(folder, "--dir", "w", "--name", "w.example.org", "--policy", "policy.json", "--ml-dsa")
    )
    assert len(witnesses[0].vkeys) == 2
    trust(folder, witnesses[0])
    args = ("log", "verify", "app.log", "--policy", "policy.json")
    assert "cosigned" in cli.run(*args).stdout
    cli.ok("log", "checkpoint", "app.log", "--policy", "policy.json", "--witness", witnesses[0].url, "-o", "kept")
    assert Path("kept").read_text().count("w.example.org") == 2
    cli.ok(*args, "--since-checkpoint", "kept")
    proof = cli.json("log", "prove", "app.log", "--index", "2", "--checkpoint", "kept", "-o", "two.tlog-proof")
    assert proof["index"] == 2
    cli.ok("log", "verify-proof", "two.tlog-proof", "--policy", "policy.json")
    sealed.write_bytes(b"".join(sealed.read_bytes().splitlines(keepends=True)[:3]))
    assert "rolled_back" in cli.run(*args, "--since-checkpoint", "kept").stdout


def test_of_two_views_of_one_log_a_witness_cosigns_one(folder: Path, cli: Cli, witnesses: list[WitnessProcess]) -> None:
    # Who holds the writer's keys shows one log to one reader, and another to the other.
    views: list[Path] = []
    for name in ("one", "other"):
        view = folder / name
        view.mkdir()
        if views:
            shutil.copy(views[0] / "app.log.key", view / "app.log.key")
        with SealedFile(view / "app.log", stream="example.org/app", kms=f"file:{folder}/keystead.kek") as log:
            log.append(json.dumps({"paid": name}).encode())
            log.trust_policy().save(view / "policy.json")
        views.append(view)
    witnesses.append(WitnessProcess(folder, "--dir", "w", "--name", "w.example.org", "--policy", "one/policy.json"))
    codes = []
    for view in views:
        trust(view, witnesses[0])
        args = ("--policy", f"{view}/policy.json", "--witness", witnesses[0].url)
        result = cli.run("log", "checkpoint", f"{view}/app.log", *args, "-o", f"{view}/kept")
        codes.append(result.exit_code)
    assert codes == [0, 3]
    assert "another history" in result.stderr
    assert [(view / "kept").exists() for view in views] == [True, False]
    # Each view is sound in itself; only the witnessed checkpoint tells them apart.
    for view, code in zip(views, (0, 3), strict=True):
        shown = cli.run(
            "log",
            "verify",
            f"{view}/app.log",
            "--policy",
            f"{view}/policy.json",
            "--since-checkpoint",
            f"{views[0]}/kept",
        )
        assert shown.exit_code == code


def test_a_log_put_back_with_all_its_state_is_refused_by_the_witness(
    sealed: Path, folder: Path, cli: Cli, witnesses: list[WitnessProcess]
) -> None:
    witnesses.append(WitnessProcess(folder, "--dir", "w", "--name", "w.example.org", "--policy", "policy.json"))
    trust(folder, witnesses[0])
    ask = ("log", "checkpoint", "app.log", "--policy", "policy.json", "--witness", witnesses[0].url)
    saved = {path.name: path.read_bytes() for path in folder.glob("app.log*")}
    cli.ok(*ask, "-o", "first")
    run_process(folder, *SEAL, given=b"four\n")
    cli.ok(*ask, "-o", "second")
    for name, content in saved.items():
        (folder / name).write_bytes(content)
    assert "has seen" in cli.fails(3, *ask, "-o", "third")
    run_process(folder, *SEAL, given=b"another four, and more\nand more\nand more\nand more\n")
    assert "another history" in cli.fails(3, *ask, "-o", "third")
    assert not Path("third").exists()
    args = ("log", "verify", "app.log", "--policy", "policy.json", "--since-checkpoint")
    cli.ok(*args, "first")
    assert cli.run(*args, "second").exit_code == 3


def test_a_witness_keeps_its_key_its_name_and_its_memory(
    sealed: Path, folder: Path, cli: Cli, witnesses: list[WitnessProcess]
) -> None:
    witnesses.append(WitnessProcess(folder, "--dir", "w", "--name", "w.example.org", "--policy", "policy.json"))
    trust(folder, witnesses[0])
    ask = ("log", "checkpoint", "app.log", "--policy", "policy.json", "--witness")
    cli.ok(*ask, witnesses[0].url)
    assert witnesses[0].stop() == 0
    assert (folder / "w" / "witness.key").stat().st_mode & 0o777 == 0o600
    cli.fails(4, *ask, witnesses[0].url)
    witnesses.append(WitnessProcess(folder, "--dir", "w", "--policy", "policy.json"))
    assert witnesses[1].vkeys == witnesses[0].vkeys
    shutil.copy("app.log", "whole")
    cli.ok(*ask, witnesses[1].url)
    other = run_process(folder, "log", "witness", "--dir", "w", "--name", "else.example.org", "--policy", "policy.json")
    assert (other.returncode, b"is called" in other.stderr) == (1, True)


def test_a_quorum_of_two_needs_two(sealed: Path, folder: Path, cli: Cli, witnesses: list[WitnessProcess]) -> None:
    for name in ("a", "b"):
        witnesses.append(
            WitnessProcess(folder, "--dir", name, "--name", f"{name}.example.org", "--policy", "policy.json")
        )
    policy = json.loads(Path("policy.json").read_text())
    policy |= {"witnesses": [each.vkeys[0] for each in witnesses], "quorum": 2}
    Path("policy.json").write_text(json.dumps(policy))
    ask = ["log", "checkpoint", "app.log", "--policy", "policy.json", "-o", "kept"]
    cli.fails(4, *ask, "--witness", witnesses[0].url)
    assert not Path("kept").exists()
    cli.ok(*ask, "--witness", witnesses[0].url, "--witness", witnesses[1].url)
    cli.ok("log", "verify", "app.log", "--policy", "policy.json", "--since-checkpoint", "kept")


def test_a_pipe_is_cosigned_while_it_is_sealed(folder: Path, cli: Cli, witnesses: list[WitnessProcess]) -> None:
    assert run_process(folder, *SEAL, given=b"one\n").returncode == 0
    witnesses.append(
        WitnessProcess(folder, "--dir", "w", "--name", "w.example.org", "--policy", "policy.json", "--ml-dsa")
    )
    keys = [each for vkey in witnesses[0].vkeys for each in ("--witness-key", vkey)]
    asked = ["--witness", witnesses[0].url, *keys, "--policy", "witnessed.json"]
    assert run_process(folder, *SEAL, *asked, given=b"two\n").returncode == 0
    cli.ok("log", "verify", "app.log", "--policy", "witnessed.json", "--expect-closed")
    # A policy that does not ask for the witness is no policy of this log any more.
    done = run_process(folder, *SEAL, *asked[:-2], given=b"three\n")
    assert (done.returncode, b"is not for this log" in done.stderr) == (0, True)
    assert json.loads((folder / "policy.json.new").read_text())["quorum"] == 1


def test_a_pipe_into_a_log_that_was_put_back_is_exit_code_3(
    folder: Path, cli: Cli, witnesses: list[WitnessProcess]
) -> None:
    assert run_process(folder, *SEAL, given=b"one\n").returncode == 0
    saved = (folder / "app.log").read_bytes()
    witnesses.append(WitnessProcess(folder, "--dir", "w", "--name", "w.example.org", "--policy", "policy.json"))
    asked = ["--witness", witnesses[0].url, "--witness-key", witnesses[0].vkeys[0], "--policy", "witnessed.json"]
    assert run_process(folder, *SEAL, *asked, given=b"two\nthree\nfour\n").returncode == 0
    (folder / "app.log").write_bytes(saved)
    done = run_process(folder, *SEAL, *asked, "--json", given=b"another two\n")
    assert done.returncode == 3
    assert b"has seen" in done.stderr
    assert len(json.loads(done.stdout)["unwitnessed"]) == 1
    assert cli.run("log", "verify", "app.log", "--policy", "witnessed.json").exit_code == 3


def test_a_witness_without_its_key_is_wrong_usage(folder: Path) -> None:
    assert run_process(folder, *SEAL, "--witness", "http://127.0.0.1:9", given=b"").returncode == 2
