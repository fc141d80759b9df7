"""The command line as processes of its own: pipes, terminals, kills, full disks."""

from __future__ import annotations

import os
import pty
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, Cli, environment, run_process, start
from tests.cli.logs import hears_signals

MANY = 4 * 1024 * 1024
FILES = [".gitignore", "keys.db", "keystead.kek", "keystead.yaml"]


def files_in(folder: Path) -> list[str]:
    """Return the names of all files, hidden ones and what SQLite keeps beside an open store left out."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("keys.db-"))


def wait_until_reading(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Give the process more than a pipe holds, which returns when it has begun to read."""
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def in_terminal(folder: Path, *args: str) -> tuple[int, bytes]:
    """Run a command whose stdout is a terminal; return its exit code and what the terminal showed."""
    master, slave = pty.openpty()
    process = start(args, folder, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE)
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:
        pass
    finally:
        os.close(master)
    _, errors = process.communicate(timeout=60)
    return process.returncode, shown + errors


def test_a_pipeline_gives_the_input_back(folder: Path) -> None:
    plaintext = os.urandom(MANY)
    command = shlex.join(PROGRAM)
    pipeline = f"{command} encrypt --context a=b | {command} decrypt --context a=b"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", pipeline],
        cwd=folder,
        env=environment(),
        input=plaintext,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == plaintext


def test_good_chunks_reach_a_pipe_before_a_bad_one_is_seen(folder: Path) -> None:
    sealed = bytearray(run_process(folder, "encrypt", given=b"x" * MANY).stdout)
    sealed[len(sealed) // 2] ^= 1
    done = run_process(folder, "decrypt", given=bytes(sealed))
    assert done.returncode == 3
    assert 0 < len(done.stdout) < MANY


def test_a_reader_that_goes_away_ends_the_command_without_noise(folder: Path) -> None:
    sealed = run_process(folder, "encrypt", given=b"x" * MANY).stdout
    (folder / "sealed").write_bytes(sealed)
    process = start(["decrypt", "sealed"], folder, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert errors == b""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_ended_in_the_middle_leaves_no_half_file(folder: Path, number: signal.Signals) -> None:
    (folder / "out").write_bytes(b"before")
    process = start(["encrypt", "-o", "out"], folder, preexec_fn=hears_signals)
    wait_until_reading(process, b"x" * MANY)
    time.sleep(0.2)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (-number, 128 + number)
    assert (folder / "out").read_bytes() == b"before"
    assert files_in(folder) == [*FILES, "out"]


def test_a_full_disk_leaves_what_was_there(folder: Path) -> None:
    (folder / "out").write_bytes(b"before")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, 1024 * 1024))

    done = run_process(folder, "encrypt", "-o", "out", given=b"x" * MANY, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.decode() == f"error: {folder}/out: File too large\n"
    assert (folder / "out").read_bytes() == b"before"
    assert files_in(folder) == [*FILES, "out"]


def test_a_file_system_without_unnamed_files_works_too(folder: Path) -> None:
    program = "import os; del os.O_TMPFILE; from keystead.cli.main import main; main()"
    for number in (0, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-c", program, "encrypt", "-o", f"out{number:d}"],
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_until_reading(process, b"x" * MANY)
        if number:
            time.sleep(0.2)
            process.send_signal(number)
        process.communicate(timeout=60)
    assert files_in(folder) == [*FILES, "out0"]


def test_a_ciphertext_is_not_written_to_a_terminal(folder: Path) -> None:
    code, shown = in_terminal(folder, "encrypt", "keystead.yaml")
    assert code == 2
    assert b"--text" in shown
    assert b"\xae" not in shown


@pytest.mark.parametrize(
    "plaintext",
    [b"\x00binary", b"\xff\xfe", b"\x1b[31mred", b"ok so far\x07"],
    ids=["nul", "no-utf8", "escape", "bell"],
)
def test_binary_plaintext_is_not_written_to_a_terminal(folder: Path, cli: Cli, plaintext: bytes) -> None:
    for form in ((), ("--text",)):
        cli.ok("encrypt", *form, "-o", "sealed", given=plaintext)
        code, shown = in_terminal(folder, "decrypt", "sealed")
        assert code == 2
        assert plaintext not in shown


def test_text_is_written_to_a_terminal(folder: Path, cli: Cli) -> None:
    cli.ok("encrypt", "-o", "sealed", given="mañana um 12\n".encode())
    code, shown = in_terminal(folder, "decrypt", "sealed")
    assert (code, shown) == (0, "mañana um 12\r\n".encode())


def test_binary_is_written_to_a_terminal_that_was_named(folder: Path, cli: Cli) -> None:
    cli.ok("encrypt", "-o", "sealed", given=b"\x07")
    assert in_terminal(folder, "decrypt", "sealed", "-o", "-") == (0, b"\x07")


def test_a_large_file_shows_its_progress_on_the_terminal(folder: Path) -> None:
    program = "import keystead.cli.data as d; d.LARGE = 1; from keystead.cli.main import main; main()"
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program, "encrypt", "keystead.yaml", "-o", "out"],
        cwd=folder,
        env=environment() | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=slave,
        timeout=60,
        check=False,
    )
    os.close(slave)
    shown = os.read(master, 65536)
    os.close(master)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"encrypting" in shown


def test_a_bug_shows_no_traceback_unless_asked(folder: Path) -> None:
    program = "import keystead.cli.status as s; s.duration_text = 1; from keystead.cli.main import main; main()"
    for debug in ([], ["--debug"]):
        done = subprocess.run(
            [sys.executable, "-c", program, "status", *debug],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == bool(debug)
        assert "error: unexpected TypeError" in done.stderr


def test_without_typer_the_message_names_the_extra(folder: Path) -> None:
    program = "import sys; sys.modules['typer'] = None; " + PROGRAM[-1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the command line needs typer: pip install 'keystead[cli]'\n"


def test_the_version_is_printed(folder: Path) -> None:
    assert run_process(folder, "--version").stdout.decode().startswith("keystead 0.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [["encrypt", "--text"], ["decrypt"]])
def test_a_process_that_waits_for_its_input_ends_at_once(
    folder: Path, command: list[str], number: signal.Signals
) -> None:
    process = start(command, folder, preexec_fn=hears_signals)
    assert process.stdin is not None
    time.sleep(3)
    process.send_signal(number)
    # Its input stays open.
    assert process.wait(30) in (-number, 128 + number)
    process.communicate(timeout=30)


def test_an_answer_that_cannot_be_written_is_told_once_in_json_too(folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = start(["key", "list", "--json"], folder, stdin=subprocess.DEVNULL, stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == b"error: No space left on device\n"


def test_nothing_is_done_whose_answer_has_nowhere_to_go(folder: Path) -> None:
    def closes_stdout() -> None:
        os.close(1)

    before = run_process(folder, "key", "list", "--json").stdout
    process = start(["key", "rotate"], folder, stdin=subprocess.DEVNULL, stdout=None, preexec_fn=closes_stdout)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.startswith(b"error: stdout is closed")) == (2, True)
    assert run_process(folder, "key", "list", "--json").stdout == before
