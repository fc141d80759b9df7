"""``keystead log`` as processes of its own: pipes, signals, kills, full disks."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keystead.ledger import SealedFile
from tests.cli.conftest import environment, run_process, start
from tests.cli.logs import SEAL, ended, everything, has, hears_signals, payloads, pipe_in, until, verified


def test_a_pipeline_is_sealed_to_its_last_line(folder: Path) -> None:
    lines = b"".join(b'{"number":%d}\n' % number for number in range(50_000)) + b"without an end"
    done = run_process(folder, *SEAL, given=lines)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"sealed 50001 lines" in done.stderr
    assert payloads(folder / "app.log") == [*({"number": number} for number in range(50_000)), "without an end"]
    assert verified(folder, expect_closed=True).errors == []


def test_lines_are_in_the_file_while_the_pipe_is_open(folder: Path) -> None:
    process = start(SEAL, folder)
    pipe_in(process, b"first\n")
    until(lambda: has(folder / "app.log", b'"first"'))
    assert b"second" not in (folder / "app.log").read_bytes()
    pipe_in(process, b"second\n")
    until(lambda: has(folder / "app.log", b'"second"'))
    assert verified(folder).errors == []
    assert ended(process)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_closes_the_log_with_what_had_come_in(folder: Path, number: signal.Signals) -> None:
    process = start(SEAL, folder, preexec_fn=hears_signals)
    pipe_in(process, b"before\n")
    until(lambda: has(folder / "app.log", b'"before"'))
    process.send_signal(number)
    # What an application says while it ends is taken as well.
    pipe_in(process, b"last words\n")
    assert process.wait(60) == 0
    process.communicate()
    assert payloads(folder / "app.log") == ["before", "last words"]
    assert verified(folder, expect_closed=True).errors == []


def test_a_second_signal_does_not_wait_for_the_input(folder: Path) -> None:
    process = start(SEAL, folder, preexec_fn=hears_signals)
    pipe_in(process, b"before\n")
    until(lambda: has(folder / "app.log", b'"before"'))
    process.send_signal(signal.SIGTERM)
    time.sleep(1)  # two signals that wait for the process to look at them are one
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.communicate()
    assert verified(folder, expect_closed=True).errors == []


def test_after_a_kill_nothing_that_was_written_is_lost_and_the_log_goes_on(folder: Path) -> None:
    for number in range(4):
        process = start([*SEAL, "--max-bytes", "20000", "--compress"], folder)
        pipe_in(process, b"".join(b'{"run":%d,"line":%d}\n' % (number, line) for line in range(100)))
        until(lambda number=number: b'{"run":%d,"line":99}' % number in everything(folder))  # type: ignore[misc]
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
    report = verified(folder)
    assert (report.errors, report.closed, report.sessions) == ([], False, 4)
    assert run_process(folder, *SEAL, given=b"end\n").returncode == 0
    report = verified(folder, expect_closed=True)
    assert (report.errors, report.records_checked > 400) == ([], True)


def test_a_slow_kms_does_not_hold_the_pipe_up(folder: Path) -> None:
    program = (
        "import time\n"
        "from keystead.ledger.format.session_source import KmsSessions\n"
        "draw = KmsSessions.draw\n"
        "def slow(self, stream, **how):\n"
        "    open('asked', 'w').close()\n"
        "    for _ in range(30000):\n"
        "        time.sleep(0.01)\n"
        "        if __import__('os').path.exists('go'):\n"
        "            break\n"
        "    return draw(self, stream, **how)\n"
        "KmsSessions.draw = slow\n"
        "from keystead.cli.main import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *SEAL],
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until((folder / "asked").exists)
    # Ten times what a pipe holds is taken although there is no key yet.
    pipe_in(process, b'{"number":1}\n' * 50_000)
    assert not (folder / "app.log").exists()
    (folder / "go").touch()
    assert ended(process)[0] == 0
    assert len(payloads(folder / "app.log")) == 50_000


def test_a_full_disk_is_exit_code_1_and_leaves_a_log_that_can_be_gone_on_with(folder: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    program = "import keystead.cli.log.seal as s; s.CLOSE_WITHIN_S = 0.1; from keystead.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *SEAL],
        cwd=folder,
        env=environment(),
        input=b"some line of a log\n" * 5000,
        capture_output=True,
        timeout=120,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 1
    assert b"lost" in done.stderr
    assert verified(folder).errors == []
    assert run_process(folder, *SEAL, given=b"and on\n").returncode == 0
    assert verified(folder, expect_closed=True).errors == []


def test_two_writers_of_one_log_are_one_too_many(folder: Path) -> None:
    process = start(SEAL, folder)
    pipe_in(process, b"1\n")
    until(lambda: has(folder / "app.log", b'"d":1'))
    second = run_process(folder, *SEAL, given=b"2\n")
    assert (second.returncode, b"one log has one writer" in second.stderr) == (1, True)
    ended(process)
    assert payloads(folder / "app.log") == [1]


def test_a_policy_that_trusts_another_log_is_never_written_over(folder: Path) -> None:
    run_process(folder, "log", "seal", "other.log", "--policy", "policy.json", given=b"1\n")
    before = (folder / "policy.json").read_bytes()
    done = run_process(folder, *SEAL, given=b"1\n")
    assert (folder / "policy.json").read_bytes() == before
    assert b"is not for this log" in done.stderr
    (folder / "policy.json.new").replace(folder / "policy.json")
    assert verified(folder, expect_closed=True).errors == []
    again = run_process(folder, *SEAL, given=b"2\n")
    assert b"policy" not in again.stderr


def test_any_input_is_sealed_and_comes_out_as_it_went_in(folder: Path) -> None:
    long = b"x" * (5 << 20)
    lines = [
        b"\xff\xfe",
        b"\x00",
        b"caf\xc3\xa9",
        b'{"a":NaN}',
        b"1e999",
        b"9" * 5000,
        b'"',
        b"",
        b"\x1b[31m",
        long,
        b"[" * 9000,
    ]
    done = run_process(folder, *SEAL, given=b"\n".join(lines) + b"\n")
    assert done.returncode == 0
    assert verified(folder, expect_closed=True).errors == []
    shown = run_process(folder, "log", "tail", "app.log", "-n", "99").stdout.split(b"\n")[:-1]
    cut = len(shown) - len(lines) + 1
    assert shown[:9] == lines[:9]
    assert b"".join(shown[9 : 9 + cut]) == long
    assert shown[9 + cut :] == lines[10:]


def test_tail_follows_a_log_from_file_to_file(folder: Path) -> None:
    with SealedFile(folder / "app.log", stream="s", kms=f"file:{folder}/keystead.kek", compress=True) as log:
        log.append(b'"first"')
        log.flush()
        # Unbuffered: what a buffer holds already, nobody could wait for.
        how = {"stdin": subprocess.DEVNULL, "preexec_fn": hears_signals, "bufsize": 0}
        process = start(["log", "tail", "-f", "app.log"], folder, **how)
        try:
            assert process.stdout is not None
            seen = process.stdout.readline()
            for number in range(5):
                log.append(str(number).encode())
                log.rotate()
            log.append(b'"last"')
            log.flush()
            while not seen.endswith(b"last\n"):
                assert select.select([process.stdout], [], [], 120)[0]
                seen += process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        finally:
            process.kill()
    assert seen.split() == [b"first", b"0", b"1", b"2", b"3", b"4", b"last"]


def test_nothing_leaks_a_key(folder: Path) -> None:
    run_process(folder, *SEAL, given=b"1\n")
    kek = [line for line in (folder / "keystead.kek").read_text().split() if len(line) > 30]
    signing = (folder / "app.log.key").read_text().split("\n")[1]
    for args in (
        ("log", "inspect", "app.log", "--json"),
        ("log", "verify", "app.log", "--policy", "policy.json", "--debug"),
    ):
        done = run_process(folder, *args)
        said = (done.stdout + done.stderr).decode()
        assert all(secret not in said for secret in [*kek, signing])
    assert os.stat(folder / "app.log.key").st_mode & 0o077 == 0
