"""``keystead log``: sealing, verifying, proving and looking, in this process."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from keystead.ledger import SealedFile, TrustPolicy
from keystead.ledger.tlog.note import NoteKey
from keystead.ledger.writing.sealer import MAX_PAYLOAD_BYTES
from tests.cli.conftest import Cli, run_process
from tests.cli.logs import SEAL, copied

KEY = "lzmpzTnYTWQCpr3Z2X1nqSg1nXPxVeoA7PJ2Vkxn5rQ"
OTHER_KEY = "OMSh41e93TRM59CXEKJJ3Zxq90j_lJXDyLpIBMHfyrA"
LINES = b'{"event":"started"}\nplain text\n\xff\xfe no text\n  {"spaced": true} \r\n\n'


@pytest.fixture(scope="module")
def _sealed(_made_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = shutil.copytree(_made_folder, tmp_path_factory.mktemp("sealed") / "work")
    assert run_process(made, *SEAL, given=LINES).returncode == 0
    return made


@pytest.fixture
def log(folder: Path, _sealed: Path) -> Path:
    """A closed log of some lines, with its policy elsewhere."""
    return copied(_sealed, folder) / "app.log"


def changed(log: Path, old: bytes, new: bytes) -> None:
    content = log.read_bytes()
    assert content.count(old) >= 1
    log.write_bytes(content.replace(old, new, 1))


def test_lines_are_sealed_as_they_are_and_verify(log: Path, cli: Cli) -> None:
    assert (
        "as it was written" in cli.ok("log", "verify", "app.log", "--policy", "policy.json", "--expect-closed").stdout
    )
    report = cli.json("log", "verify", "app.log", "--policy", "policy.json")
    assert (report["valid"], report["closed"], report["stream"]) == (True, True, "example.org/app")
    assert b'"d":{"event":"started"},"m"' in log.read_bytes()
    assert b'"d":"plain text","m"' in log.read_bytes()


def test_a_changed_log_is_exit_code_3_with_every_finding(log: Path, cli: Cli) -> None:
    changed(log, b"plain text", b"other text")
    result = cli.run("log", "verify", "app.log", "--policy", "policy.json")
    assert result.exit_code == 3
    assert "NOT as it was written: 1 finding " in result.stdout
    assert "modified" in result.stdout
    assert "app.log:3" in result.stdout
    answer = cli.run("log", "verify", "app.log", "--policy", "policy.json", "--json")
    assert (answer.exit_code, json.loads(answer.stdout)["errors"][0]["error_type"]) == (3, "modified")


def test_a_key_that_the_policy_does_not_name_is_exit_code_3(log: Path, cli: Cli) -> None:
    policy = json.loads(Path("policy.json").read_text())
    policy["keys"][0]["key_id"] = "another"
    Path("policy.json").write_text(json.dumps(policy))
    assert cli.run("log", "verify", "app.log", "--policy", "policy.json").exit_code == 3


def test_a_kek_that_opens_nothing_is_said_to_be_another_one(log: Path, cli: Cli) -> None:
    (log.parent / "other").mkdir()
    cli.ok("init", "other")
    answer = cli.run(
        "log", "verify", "app.log", "--policy", "policy.json", "--kms", "file:other/keystead.kek", "--json"
    )
    (error,) = json.loads(answer.stdout)["errors"]
    assert (answer.exit_code, error["error_type"]) == (3, "untrusted")
    assert error["message"] == (
        "the KEK at hand does not open this session's key: it is not the KEK that the log was sealed under (--kms, "
        "--key-env), or the line was changed"
    )


@pytest.mark.parametrize("scheme", ["local", "file"])
def test_a_reader_without_the_kek_is_told_to_name_it_and_not_to_make_one(log: Path, cli: Cli, scheme: str) -> None:
    policy = json.loads(Path("policy.json").read_text())
    policy["keys"][0]["kms"] = f"{scheme}:keystead.kek"
    Path("policy.json").write_text(json.dumps(policy))
    Path("keystead.kek").rename("elsewhere.kek")
    args = ("log", "verify", "app.log", "--policy", "policy.json")
    told = cli.fails(4, *args)
    assert f"the policy names {scheme}:keystead.kek: say where that KEK is with --kms file:PATH (never make" in told
    assert "keystead init" not in told
    cli.ok(*args, "--kms", "file:elsewhere.kek")


def test_the_wrong_policy_is_a_finding_that_names_both_streams(log: Path, cli: Cli) -> None:
    run_process(log.parent, "log", "seal", "other.log", "--stream", "example.org/other", given=b"1\n")
    shown = cli.run("log", "verify", "app.log", "--policy", "other.log.policy.json")
    assert shown.exit_code == 3
    assert "app.log, as the log example.org/other: NOT as it was written: 1 finding (0 records" in shown.stdout
    told = "the file says it is of example.org/app; the policy is for example.org/other (wrong --policy?)"
    assert told in shown.stdout


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("kms: local:\n", "it is not JSON; a policy is what `keystead log seal` or `keystead audit policy` wrote"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "a member is missing, or of another kind than it should be"),
        ("{}", "a policy has the format"),
    ],
)
def test_a_file_that_is_no_policy_is_said_to_be_none(log: Path, cli: Cli, content: str, told: str) -> None:
    Path("settings").write_text(content)
    assert f"settings is no trust policy of a log: {told}" in cli.fails(
        4, "log", "verify", "app.log", "--policy", "settings"
    )


def test_findings_that_are_not_shown_are_counted(folder: Path, cli: Cli) -> None:
    lines = b"".join(b"%d\n" % number for number in range(2101))
    run_process(folder, "log", "seal", "app.log", given=lines)
    args = ("log", "verify", "app.log", "--policy", "app.log.policy.json")
    written = Path("app.log").read_bytes().splitlines(keepends=True)

    def change(count: int) -> None:
        content = list(written)
        for at in range(1, 2 * count, 2):
            content[at] = content[at].replace(b'"d":', b'"d":7')
        Path("app.log").write_bytes(b"".join(content))

    change(52)
    assert "and 2 more: --json shows them" in cli.run(*args).stdout
    change(1001)
    assert "and 951 more: --json shows the first 1000" in cli.run(*args).stdout


def test_one_line_and_one_epoch_are_counted_as_one(folder: Path, cli: Cli) -> None:
    assert b"sealed 1 line into app.log" in run_process(folder, "log", "seal", "app.log", given=b"1\n").stderr
    assert "records in 1 epoch of 900 s" in cli.ok("log", "inspect", "app.log").stdout
    assert b"sealed 2 lines into app.log" in run_process(folder, "log", "seal", "app.log", given=b"2\n3\n").stderr


@pytest.mark.parametrize("lost", ["keystead.kek", "app.log", "policy.json", "kept"])
def test_what_is_out_of_reach_is_exit_code_4(log: Path, cli: Cli, lost: str) -> None:
    Path("kept").write_bytes(cli.ok("log", "checkpoint", "app.log").stdout_bytes)
    args = ("log", "verify", "app.log", "--policy", "policy.json", "--since-checkpoint", "kept")
    cli.ok(*args)
    Path(lost).unlink()
    cli.fails(4, *args)
    failure = json.loads(cli.run(*args, "--json").stdout)["error"]
    assert failure["code"] == "could_not_verify"


def test_a_policy_has_to_be_named(log: Path, cli: Cli) -> None:
    assert "--policy" in cli.fails(2, "log", "verify", "app.log")


def test_a_policy_beside_the_log_is_used_and_warned_of(log: Path, cli: Cli) -> None:
    shutil.copy("policy.json", "app.log.policy.json")
    assert "who can change one can change both" in cli.ok("log", "verify", "app.log").stderr


def test_a_log_that_was_cut_is_found_by_a_kept_checkpoint(log: Path, cli: Cli) -> None:
    cli.ok("log", "checkpoint", "app.log", "-o", "kept")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:3]))
    cli.ok("log", "verify", "app.log", "--policy", "policy.json")
    args = ("log", "verify", "app.log", "--policy", "policy.json")
    assert "rolled_back" in cli.run(*args, "--since-checkpoint", "kept").stdout
    assert "truncated" in cli.run(*args, "--expect-closed").stdout


def test_a_checkpoint_of_another_log_is_no_anchor(log: Path, cli: Cli) -> None:
    run_process(log.parent, "log", "seal", "other.log", given=b"1\n")
    cli.ok("log", "checkpoint", "other.log", "-o", "kept")
    cli.fails(4, "log", "verify", "app.log", "--policy", "policy.json", "--since-checkpoint", "kept")


def test_files_that_a_shell_lists_are_put_in_order(folder: Path, cli: Cli) -> None:
    with SealedFile("app.log", stream="example.org/app", kms=f"file:{folder}/keystead.kek") as log:
        for number in range(3):
            log.append(str(number).encode())
            log.rotate()
        log.trust_policy().save("policy.json")
    listed = sorted(path.name for path in folder.glob("app.log*"))
    assert listed[0] == "app.log"
    report = cli.json("log", "verify", *listed, "--policy", "policy.json", "--expect-closed")
    assert (report["valid"], report["files"]) == (True, 4)
    assert cli.json("log", "verify", ".", "--policy", "policy.json")["files"] == 4
    assert cli.json("log", "verify", "app.log", "--policy", "policy.json")["files"] == 4
    assert cli.json("log", "verify", "app.log.000002", "--policy", "policy.json")["files"] == 1


def test_a_shared_key_in_the_environment_seals_and_verifies(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_KEY", KEY)
    with SealedFile("app.log", stream="example.org/app", kms="env:AUDIT_KEY") as log:
        log.append(b'"secret"')
    result = cli.ok("log", "verify", "app.log", "--key-env", "AUDIT_KEY", "--expect-closed")
    assert "the log's own word" in result.stderr
    assert KEY not in result.stdout + result.stderr
    changed(Path("app.log"), b'"secret"', b'"public"')
    assert cli.run("log", "verify", "app.log", "--key-env", "AUDIT_KEY").exit_code == 3
    monkeypatch.setenv("AUDIT_KEY", OTHER_KEY)
    refused = cli.run("log", "verify", "app.log", "--key-env", "AUDIT_KEY")
    assert refused.exit_code == 3
    assert "it is not the KEK that the log was sealed under (--kms, --key-env)" in refused.stdout
    monkeypatch.delenv("AUDIT_KEY")
    cli.fails(4, "log", "verify", "app.log", "--key-env", "AUDIT_KEY")
    cli.fails(2, "log", "verify", "app.log", "--key-env", "AUDIT_KEY", "--kms", "local:")


def test_the_settings_give_the_kms_that_a_policy_does_not_name(log: Path, cli: Cli) -> None:
    policy = json.loads(Path("policy.json").read_text())
    assert policy["keys"][0]["kms"].startswith(f"local:{log.parent}") or policy["keys"][0]["kms"].startswith("file:/")
    policy["keys"][0]["kms"] = None
    Path("policy.json").write_text(json.dumps(policy))
    cli.ok("log", "verify", "app.log", "--policy", "policy.json")
    Path("keystead.yaml").unlink()
    cli.fails(4, "log", "verify", "app.log", "--policy", "policy.json")


def test_a_checkpoint_is_printed_without_touching_the_log(log: Path, cli: Cli) -> None:
    before = {path.name: path.read_bytes() for path in log.parent.iterdir() if path.is_file()}
    note = cli.ok("log", "checkpoint", "app.log").stdout
    assert note.startswith("example.org/app\n7\n")
    assert cli.json("log", "checkpoint", "app.log")["note"] == note
    assert {path.name: path.read_bytes() for path in log.parent.iterdir() if path.is_file()} == before


def test_the_verifier_key_is_that_of_the_policy_or_of_the_key_beside_the_log(log: Path, cli: Cli) -> None:
    (signer,) = TrustPolicy.load("policy.json").signers
    for args in ((), ("--policy", "policy.json")):
        assert NoteKey.parse(cli.ok("log", "checkpoint", "app.log", "--vkey", *args).stdout.strip()) == signer.key
    Path("app.log.key").unlink()
    cli.fails(1, "log", "checkpoint", "app.log", "--vkey")
    assert not Path("app.log.key").exists()


def test_a_log_that_is_not_what_its_checkpoint_says_gives_none(log: Path, cli: Cli) -> None:
    changed(log, b"plain text", b"other text")
    cli.fails(3, "log", "checkpoint", "app.log")


def test_one_record_is_proved_without_the_log(log: Path, cli: Cli) -> None:
    cli.ok("log", "prove", "app.log", "--index", "2", "-o", "two.tlog-proof")
    log.unlink()
    result = cli.ok("log", "verify-proof", "two.tlog-proof", "--policy", "policy.json")
    assert '"d":"plain text"' in result.stdout
    proof = Path("two.tlog-proof").read_text()
    Path("two.tlog-proof").write_text(proof.replace("index 2", "index 3"))
    cli.fails(3, "log", "verify-proof", "two.tlog-proof", "--policy", "policy.json")
    Path("two.tlog-proof").write_text("garbage")
    cli.fails(3, "log", "verify-proof", "two.tlog-proof", "--policy", "policy.json")
    cli.fails(4, "log", "verify-proof", "absent", "--policy", "policy.json")


def test_a_record_may_be_kept_out_of_its_proof(log: Path, cli: Cli) -> None:
    cli.ok("log", "prove", "app.log", "--index", "2", "-o", "two.tlog-proof", "--without-record")
    assert "--record" in cli.fails(2, "log", "verify-proof", "two.tlog-proof", "--policy", "policy.json")
    lines = log.read_bytes().splitlines(keepends=True)
    Path("line").write_bytes(lines[2])
    cli.ok("log", "verify-proof", "two.tlog-proof", "--policy", "policy.json", "--record", "line")
    Path("line").write_bytes(lines[3])
    cli.fails(3, "log", "verify-proof", "two.tlog-proof", "--policy", "policy.json", "--record", "line")


def test_a_proof_may_rest_on_a_kept_checkpoint(log: Path, cli: Cli) -> None:
    cli.ok("log", "checkpoint", "app.log", "-o", "kept")
    given = cli.json("log", "prove", "app.log", "--index", "1", "--checkpoint", "kept")
    assert given["proof"].endswith(Path("kept").read_text())
    cli.fails(1, "log", "prove", "app.log", "--index", "7", "--checkpoint", "kept")


def test_a_record_that_is_not_there_is_not_proved(log: Path, cli: Cli) -> None:
    cli.fails(1, "log", "prove", "app.log", "--index", "99")


def test_inspect_needs_no_key(log: Path, cli: Cli) -> None:
    for name in ("keystead.kek", "keystead.yaml", "app.log.key", "policy.json"):
        Path(name).unlink()
    (seen,) = cli.json("log", "inspect", "app.log")["files"]
    assert (seen["stream"], seen["file"], seen["first"], seen["records"], seen["ends"]) == (
        "example.org/app", 1, 0, 8, "closed",
    )  # fmt: skip
    assert seen["kinds"] == {"file": 1, "application": 5, "close": 1, "checkpoint": 1}
    (session,) = seen["sessions"]
    assert (session["algorithm"], session["key_id"]) == ("HMAC-SHA256", "local:default:1")
    shown = cli.ok("log", "inspect", "app.log").stdout
    assert "example.org/app" in shown
    assert "closed" in shown


@pytest.mark.parametrize("more", [(), ("--records",), ("--number", "1")])
def test_a_log_that_no_key_seals_is_inspected(folder: Path, cli: Cli, more: tuple[str, ...]) -> None:
    with SealedFile("app.log", stream="example.org/app", kms=None) as log:
        log.append(b"1")
    told = cli.json("log", "inspect", "app.log", *more)
    found = told["records"] if more else told["files"][0]["sessions"]
    assert {each["key_id"] for each in found} == {None}
    cli.ok("log", "inspect", "app.log", *more)


def test_a_record_as_long_as_any_is_proved(log: Path, cli: Cli) -> None:
    record = b'"' + b"x" * (MAX_PAYLOAD_BYTES - 2) + b'"'
    with SealedFile("big.log", stream="example.org/app", kms=None) as made:
        made.append(record)
        made.trust_policy().save("big.json")
    cli.ok("log", "prove", "big.log", "--index", "1", "-o", "proof")
    assert record.decode() in cli.ok("log", "verify-proof", "proof", "--policy", "big.json").stdout


def test_inspect_shows_records_under_the_names_that_they_have_elsewhere(log: Path, cli: Cli) -> None:
    (record,) = cli.json("log", "inspect", "app.log", "--number", "2")["records"]
    assert (record["seq"], record["algo"], record["key_id"], record["payload"]) == (
        2, "HMAC-SHA256", "local:default:1", '"plain text"',
    )  # fmt: skip
    assert len(record["mac"]) == 43
    listed = cli.json("log", "inspect", "app.log", "--records", "--since", "1", "--limit", "2")["records"]
    assert [each["seq"] for each in listed] == [1, 2]
    assert "plain text" in cli.ok("log", "inspect", "app.log", "--records").stdout
    cli.fails(1, "log", "inspect", "app.log", "--number", "99")


@pytest.mark.parametrize("command", ["inspect", "tail", "checkpoint"])
def test_what_is_no_log_is_said_to_be_none(folder: Path, cli: Cli, command: str) -> None:
    Path("text").write_text("some text\n")
    for name in ("text", "absent"):
        cli.fails(1, "log", command, name)


@pytest.mark.parametrize("args", [("checkpoint", "absent"), ("prove", "absent", "--index", "1")])
def test_a_file_that_is_not_there_is_no_log(folder: Path, cli: Cli, args: tuple[str, ...]) -> None:
    assert cli.fails(1, "log", *args) == "error: absent is no log: there is no such file"


def test_tail_prints_what_the_application_wrote(log: Path, cli: Cli) -> None:
    assert cli.ok("log", "tail", "app.log").stdout_bytes == LINES.replace(b"  {", b"{").replace(b" \r\n", b"\n")
    assert cli.ok("log", "tail", "app.log", "-n", "2").stdout_bytes == b'{"spaced": true}\n\n'
    assert cli.ok("log", "tail", "app.log", "-n", "0").stdout_bytes == b""
    assert cli.ok("log", "tail", "app.log", "--since", "4").stdout_bytes == b'{"spaced": true}\n\n'
    first = json.loads(cli.ok("log", "tail", "app.log", "--json").stdout.splitlines()[0])
    assert (first["seq"], first["payload"]) == (1, '{"event":"started"}')


def test_tail_goes_back_through_files_that_ended(folder: Path, cli: Cli) -> None:
    with SealedFile("app.log", stream="s", kms=f"file:{folder}/keystead.kek", compress=True) as log:
        for number in range(12):
            log.append(str(number).encode())
            if number % 3 == 2:
                log.rotate()
    assert cli.ok("log", "tail", "app.log", "-n", "8").stdout.split() == [str(number) for number in range(4, 12)]
    assert cli.ok("log", "tail", "app.log", "-n", "99").stdout.split() == [str(number) for number in range(12)]


def test_tail_of_no_records_shows_none_of_a_compressed_file(folder: Path, cli: Cli) -> None:
    with SealedFile("app.log", stream="example.org/app", kms=None) as log:
        log.append_many([b'"number %d"' % number for number in range(500)])
        ended = log.rotate()
    Path(f"{ended}.gz").write_bytes(gzip.compress(ended.read_bytes()))
    ended.unlink()
    assert cli.ok("log", "tail", "-n", "0", f"{ended}.gz").stdout == ""
    assert cli.ok("log", "tail", "-n", "1", f"{ended}.gz").stdout == "number 499\n"


def test_a_witness_has_to_have_a_key_in_the_policy(log: Path, cli: Cli) -> None:
    args = ("log", "checkpoint", "app.log", "--witness", "http://127.0.0.1:9", "--policy", "policy.json")
    assert "witness" in cli.fails(2, *args)


@pytest.mark.parametrize(
    "args",
    [
        ("seal",),
        ("verify",),
        ("prove", "app.log"),
        ("seal", "x", "--epoch", "0"),
        ("seal", "x", "--epoch", "soon"),
        ("seal", "x", "--signer", "local:", "--signing-key", "k"),
        ("witness", "--dir", "w"),
        ("witness", "--dir", "w", "--listen", "nowhere", "--policy", "policy.json"),
    ],
)
def test_wrong_usage_is_exit_code_2(log: Path, cli: Cli, args: tuple[str, ...]) -> None:
    cli.fails(2, "log", *args)


def test_sealing_needs_a_kms_and_says_which_settings(empty: Path) -> None:
    done = run_process(empty, "log", "seal", "app.log", given=b"lost\n")
    assert done.returncode == 1
    assert b"keystead init" in done.stderr
    assert not Path("app.log").exists()


def test_a_log_that_is_not_there_is_told_before_a_policy_is_asked_for(cli: Cli, folder: Path) -> None:
    assert "there is no such file" in cli.fails(4, "log", "verify", "absent.log")
