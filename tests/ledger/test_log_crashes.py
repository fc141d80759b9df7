"""After a crash: what was acknowledged is there, and what was left is no false alarm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keystead.ledger.reading.lines import LogFile
from keystead.ledger.reading.policy import TrustPolicy
from keystead.ledger.reading.verifier import Verifier
from keystead.testing import FakeKMS
from soak.log_kills import numbers_in
from tests.ledger.files import killed, opened, verified


@pytest.mark.parametrize("torn", [b"", b"half a li", b"\x00" * 3000, b"some\nlines\nof garbage\nand half"])
def test_after_a_crash_what_was_left_is_marked_and_nothing_is_lost(path: Path, kms: FakeKMS, torn: bytes) -> None:
    log = opened(path, kms)
    log.append(b"1")
    log.flush()
    policy = log.trust_policy()
    killed(log)
    with path.open("ab") as file:
        file.write(torn)
    with opened(path, kms) as log:
        log.append(b"2")
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.sessions) == ([], 2)


def test_a_crash_between_two_files_is_gone_on_from(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)
    log.append(b"1")
    log.flush()
    policy = log.trust_policy()
    killed(log, between_files=2)
    with opened(path, kms) as log:
        log.append(b"2")
    assert verified(path, kms, policy, expect_closed=True).files == 2
    log = opened(path, kms)
    killed(log, between_files=3)
    os.rename(path, path.with_name("app.log.000002"))
    with opened(path, kms) as log:
        log.append(b"3")
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.files) == ([], 3)


KILLED = """
import sys
from keystead.ledger.writing.sealed_file import SealedFile
log = SealedFile(sys.argv[1], stream="example.org/app", kms="file:" + sys.argv[2], max_bytes=20000, buffer_s=0.005,
    checkpoint_s=0.02, compress=True)
log.trust_policy().save(sys.argv[3])
number = int(sys.argv[4])
while True:
    log.append(b'{"number":%d}' % number)
    if number % 7 == 0:
        log.flush()
        print(number, flush=True)
    number += 1
"""


def test_what_was_acknowledged_outlives_a_kill_at_any_moment(path: Path, tmp_path: Path) -> None:
    from keystead.providers.local.kek_file import create_kek_file

    create_kek_file(tmp_path / "kek")
    policy, acknowledged = tmp_path / "policy.json", []
    for run in range(4):
        command = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "kek"), str(policy), str(run * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged.append(int(process.stdout.readline()))
            time.sleep(0.02 * (run % 7))
            process.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
    report = Verifier(TrustPolicy.load(policy)).verify(path)
    assert report.errors == []
    written = set()
    for file in path.parent.glob("app.log*"):
        if file.suffix not in {".key", ".lock", ".new"}:
            written |= numbers_in(LogFile(file))
    assert set(acknowledged) <= written


@pytest.mark.parametrize("lost", [(0.3, 0.31), (0.3, 0.7), (0.0, 0.5), (0.99, 1.0)])
def test_a_disk_that_lost_the_middle_of_what_was_not_acknowledged_is_no_alarm(
    path: Path, kms: FakeKMS, lost: tuple[float, float]
) -> None:
    """After a power cut a page may be empty although the one behind it is there."""
    log = opened(path, kms, checkpoint_s=3600)
    log.append(b"1")
    log.flush()
    acknowledged = path.stat().st_size
    log.append_many([b'{"number":%d}' % number for number in range(300)])
    policy = log.trust_policy()
    killed(log)
    content = bytearray(path.read_bytes())
    begin, end = (acknowledged + int((len(content) - acknowledged) * part) for part in lost)
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    with opened(path, kms) as log:
        log.append(b"2")
    assert verified(path, kms, policy, expect_closed=True).errors == []


def test_what_a_crash_left_cannot_be_made_up_to_hide_records(path: Path, kms: FakeKMS) -> None:
    """The first record of a session, put where another one is to vanish, is no word of the log."""
    with opened(path, kms) as log:
        log.append_many([b"1"] * 5)
        policy = log.trust_policy()
    with opened(path, kms) as log:
        log.append(b"2")
    lines = path.read_bytes().splitlines(keepends=True)
    session = next(line for line in lines if b'"k":"session"' in line)
    forged = session.replace(session[: session.index(b",")], b'{"n":3')
    path.write_bytes(b"".join([*lines[:3], b"gone\n", *lines[4:], forged]))
    assert not verified(path, kms, policy).valid
