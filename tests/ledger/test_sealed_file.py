"""Writing logs: what is acknowledged stays, whatever happens, and what was written verifies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.ledger.policy import TrustPolicy
from keystead.ledger.records import parse_line
from keystead.ledger.report import VerifyReport
from keystead.ledger.sealed_file import SealedFile
from keystead.ledger.verifier import Verifier
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.ledger.logs import kinds

STREAM = "example.org/app"


@pytest.fixture
def kms() -> FakeKMS:
    return FakeKMS()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def opened(path: Path, kms: FakeKMS, **options: Any) -> SealedFile:
    return SealedFile(path, stream=STREAM, kms=kms, key_id="audit", **options)


def verified(path: Path, kms: FakeKMS, policy: TrustPolicy, **options: Any) -> VerifyReport:
    return Verifier(policy, {"fake": kms}).verify(path, **options)


def payloads(path: Path) -> list[Any]:
    """Return what the application wrote."""
    found = []
    for line in path.read_bytes().splitlines():
        record = parse_line(line)
        if record.kind is None:
            found.append(json.loads(record.payload))
    return found


def test_what_was_written_is_there_and_verifies(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b'{"event":"started"}')
        log.append_many([b"1", b"2"])
        log.append_text('any text, "quoted",\nin two lines')
        policy = log.trust_policy()
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.closed, report.warnings) == ([], True, [])
    assert payloads(path) == [{"event": "started"}, 1, 2, 'any text, "quoted",\nin two lines']


def test_flush_returns_once_records_can_be_read(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, buffer_s=60) as log:
        log.append(b"1")
        assert payloads(path) == []
        log.flush()
        assert payloads(path) == [1]


def test_what_nobody_flushes_is_written_within_its_time(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, buffer_s=0.02) as log:
        log.append(b"1")
        for _ in range(500):
            if payloads(path):
                break
            time.sleep(0.01)
        assert payloads(path) == [1]


def test_a_checkpoint_can_be_kept_and_the_log_is_held_to_it(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        kept = log.checkpoint()
        log.append(b"2")
        policy = log.trust_policy()
    assert verified(path, kms, policy, since=kept).valid
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1]))
    assert kinds(verified(path, kms, policy, since=kept)) == ["rolled_back"]


def test_checkpoints_are_made_after_so_many_records_and_so_much_time(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, checkpoint_records=10, checkpoint_s=3600, buffer_s=0.01) as log:
        log.append_many([b"1"] * 25)
        _until(lambda: path.read_bytes().count(b'"k":"checkpoint"') == 1)
    with opened(path, kms, checkpoint_s=0.05, buffer_s=0.01) as log:
        log.append(b"2")
        before = path.read_bytes().count(b'"k":"checkpoint"')
        _until(lambda: path.read_bytes().count(b'"k":"checkpoint"') == before + 1)


def test_a_log_goes_on_where_it_ended(path: Path, kms: FakeKMS) -> None:
    for number in range(3):
        with opened(path, kms) as log:
            log.append(str(number).encode())
            policy = log.trust_policy()
    report = verified(path, kms, policy)
    assert (report.errors, report.sessions, payloads(path)) == ([], 3, [0, 1, 2])


def test_two_writers_are_one_too_many(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms), pytest.raises(ConflictError, match="one writer"):
        opened(path, kms)
    opened(path, kms).close()


def test_files_end_at_their_size_and_are_one_stream(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, max_bytes=5000, buffer_s=0.01) as log:
        for number in range(20):
            log.append_many([b'{"number":%d,"text":"%b"}' % (number, b"x" * 100)] * 20)
            log.flush()
            time.sleep(0.01)
        policy = log.trust_policy()
    files = sorted(each.name for each in path.parent.glob("app.log.0*"))
    assert files[:2] == ["app.log.000001", "app.log.000002"]
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.files) == ([], len(files) + 1)
    assert report.records_checked >= 400


def test_a_file_is_ended_by_hand_and_verifies_alone(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        ended = log.rotate()
        log.append(b"2")
        policy = log.trust_policy()
    assert ended.name == "app.log.000001"
    assert verified(ended, kms, policy).errors == []
    assert verified(path, kms, policy, expect_closed=True).files == 2


def test_files_that_ended_are_compressed(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, compress=True, checkpoint_s=0.05, buffer_s=0.01) as log:
        log.append(b"1")
        log.rotate()
        log.append(b"2")
        _until(lambda: path.with_name("app.log.000001.gz").exists() and not path.with_name("app.log.000001").exists())
        policy = log.trust_policy()
    assert verified(path, kms, policy, expect_closed=True).errors == []


def test_files_removed_on_purpose_are_not_missing(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        for number in range(3):
            log.append(str(number).encode())
            log.rotate()
        log.retire([1, 2], "kept for a year")
        policy = log.trust_policy()
    assert sorted(each.name for each in path.parent.glob("app.log.0*")) == ["app.log.000003"]
    assert verified(path, kms, policy, expect_closed=True).errors == []
    path.with_name("app.log.000003").unlink()
    assert kinds(verified(path, kms, policy)) != []


def test_only_files_that_have_ended_are_removed(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        for files, reason in (([1], "why"), ([], "why"), ([7], "why")):
            with pytest.raises(InvalidInputError):
                log.retire(files, reason)
        log.rotate()
        with pytest.raises(InvalidInputError):
            log.retire([1], "")


def test_epochs_go_by_the_monotonic_clock(path: Path, kms: FakeKMS, clock: FakeClock) -> None:
    with opened(path, kms, clock=clock, epoch_s=60) as log:
        policy = log.trust_policy()
        for _ in range(5):
            log.append(b"1")
            log.flush()
            clock.advance(150)
        log.append(b"2")
    report = verified(path, kms, policy, expect_closed=True)
    assert report.errors == []
    assert path.read_bytes().count(b'"k":"epoch"') == 5


def test_a_clock_that_is_set_is_written_down_and_no_alarm(path: Path, kms: FakeKMS, clock: FakeClock) -> None:
    with opened(path, kms, clock=clock) as log:
        policy = log.trust_policy()
        for step in (0, -86_400, 3600, 0.5, -0.4):
            clock.set(clock.now() + timedelta(seconds=step))
            log.append(b"1")
            log.flush()
    report = verified(path, kms, policy, expect_closed=True)
    assert report.errors == []
    assert path.read_bytes().count(b'"k":"clock"') == 2


@pytest.mark.parametrize("torn", [b"", b"half a li", b"\x00" * 3000, b"some\nlines\nof garbage\nand half"])
def test_after_a_crash_what_was_left_is_marked_and_nothing_is_lost(path: Path, kms: FakeKMS, torn: bytes) -> None:
    log = opened(path, kms)
    log.append(b"1")
    log.flush()
    policy = log.trust_policy()
    _die(log)
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
    log._log._end(2)
    _die(log)
    with opened(path, kms) as log:
        log.append(b"2")
    assert verified(path, kms, policy, expect_closed=True).files == 2
    log = opened(path, kms)
    log._log._end(3)
    _die(log)
    os.rename(path, path.with_name("app.log.000002"))
    with opened(path, kms) as log:
        log.append(b"3")
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.files) == ([], 3)


def test_a_log_that_was_moved_away_is_not_begun_again(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b"1")
        log.rotate()
    path.unlink()
    ended = path.with_name("app.log.000001")
    ended.write_bytes(b"".join(ended.read_bytes().splitlines(keepends=True)[:-2]))
    with pytest.raises(ConfigurationError, match="is gone"):
        opened(path, kms)


@pytest.mark.parametrize("content", [b"", b"something else\n", b'{"n":0}\n'])
def test_a_file_that_is_no_log_is_not_written_to(path: Path, kms: FakeKMS, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        opened(path, kms)
    assert path.read_bytes() == content


def test_a_log_of_another_stream_is_not_written_to(path: Path, kms: FakeKMS) -> None:
    opened(path, kms).close()
    with pytest.raises(ConfigurationError, match=r"example\.org/app"):
        SealedFile(path, stream="example.org/other", kms=kms, key_id="audit")


def test_without_a_session_key_there_is_no_log(path: Path, kms: FakeKMS) -> None:
    kms.fail_always()
    with pytest.raises(ProviderConnectionError):
        opened(path, kms)
    assert not path.exists()
    kms.heal()
    opened(path, kms).close()


def test_a_log_may_be_chained_until_the_kms_is_back_and_says_so(path: Path, kms: FakeKMS) -> None:
    kms.fail_always()
    with pytest.warns(UserWarning, match="without a key"):
        log = opened(path, kms, on_kms_failure="chain", checkpoint_s=0.05, buffer_s=0.01)
    log.append(b"1")
    log.flush()
    kms.heal()
    log.append(b"2")
    _until(lambda: b'"k":"rekey"' in path.read_bytes())
    log.append(b"3")
    log.close()
    policy = log_policy(kms, log)
    assert kinds(verified(path, kms, policy))[0] == "untrusted"


def log_policy(kms: FakeKMS, log: SealedFile) -> TrustPolicy:
    from keystead.ledger.policy import TrustedKey, TrustedSigner

    signer = log._log.signer.keys[0]
    return TrustPolicy(STREAM, (TrustedKey("fake", "audit"),), (TrustedSigner(signer),))


def test_a_rotated_kms_key_begins_another_session(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, checkpoint_s=0.05, buffer_s=0.01) as log:
        log.append(b"1")
        log.flush()
        kms.rotate("audit")
        log.append(b"2")
        _until(lambda: b'"k":"rekey"' in path.read_bytes())
        log.append(b"3")
        policy = log.trust_policy()
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.sessions) == ([], 2)


def test_the_log_is_written_while_the_kms_is_away(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, checkpoint_s=0.02, buffer_s=0.01) as log:
        kms.fail_always()
        for number in range(50):
            log.append(str(number).encode())
            log.flush()
        policy = log.trust_policy()
        kms.heal()
    assert verified(path, kms, policy, expect_closed=True).errors == []


def test_the_writers_key_never_stands_on_disk(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)
    key = bytes(log._log._writer.sealer._key._key)  # type: ignore[union-attr]
    log.append(b"1")
    log.close()
    assert all(key not in each.read_bytes() for each in path.parent.iterdir())
    assert key not in bytes(log._log._writer.sealer._key._key)  # type: ignore[union-attr]


def test_the_signing_key_is_readable_by_its_owner_only(path: Path, kms: FakeKMS) -> None:
    opened(path, kms).close()
    signer = path.with_name("app.log.key")
    assert signer.stat().st_mode & 0o777 == 0o600
    signer.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        opened(path, kms)


def test_many_threads_write_one_log(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, max_bytes=100_000) as log:
        policy = log.trust_policy()
        threads = [threading.Thread(target=lambda: log.append_many([b"1"] * 100)) for _ in range(80)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report = verified(path, kms, policy, expect_closed=True)
    assert report.errors == []
    written = [each for file in path.parent.glob("app.log*") if file.suffix not in {".key", ".lock"} for each in [file]]
    assert sum(len(payloads(file)) for file in written) == 8000


def test_a_closed_log_takes_nothing(path: Path, kms: FakeKMS) -> None:
    log = opened(path, kms)
    log.close()
    log.close()
    for action in (lambda: log.append(b"1"), log.flush, log.checkpoint, log.rotate):
        with pytest.raises(SystemShutdownError):
            action()
    assert "closed" in repr(log)


@pytest.mark.parametrize(
    "options", [{"epoch_s": 0}, {"checkpoint_records": 0}, {"checkpoint_s": 0}, {"max_bytes": 10}, {"buffer_s": 0}]
)
def test_options_that_cannot_be_are_refused(path: Path, kms: FakeKMS, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        opened(path, kms, **options)


@pytest.mark.parametrize("stream", ["", "line\nend", "x" * 300])
def test_a_stream_has_a_name_that_a_checkpoint_can_hold(path: Path, kms: FakeKMS, stream: str) -> None:
    with pytest.raises(InvalidInputError):
        SealedFile(path, stream=stream, kms=kms, key_id="audit")


def test_a_record_that_cannot_be_is_refused_before_anything_is_written(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        with pytest.raises(InvalidInputError, match="append_text"):
            log.append_many([b"1", b"no json"])
        with pytest.raises(InvalidInputError):
            log.append_text(b"bytes")  # type: ignore[arg-type]
    assert payloads(path) == []


KILLED = """
import sys
from keystead.ledger.sealed_file import SealedFile
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
    runs = 300 if os.environ.get("KEYSTEAD_SOAK") else 12
    for run in range(runs):
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
            written |= _numbers(file)
    assert set(acknowledged) <= written


def _numbers(file: Path) -> set[int]:
    from keystead.ledger.reading import LogFile
    from keystead.ledger.records import MalformedRecordError

    found = set()
    for batch in LogFile(file).batches():
        for line in batch.lines:
            try:
                record = parse_line(line)
            except MalformedRecordError:
                continue
            if record.kind is None:
                found.add(json.loads(record.payload)["number"])
    return found


def test_a_forked_worker_writes_a_stream_of_its_own(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms) as log:
        log.append(b'"parent"')
        child = os.fork()
        if child == 0:
            log.append(b'"child"')
            log.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        log.append(b'"parent again"')
        policy = log.trust_policy()
    (own,) = path.parent.glob("app-*.log")
    assert (payloads(path), payloads(own)) == (["parent", "parent again"], ["child"])
    assert verified(path, kms, policy, expect_closed=True).errors == []
    report = verified(own, kms, policy, expect_closed=True)
    assert (report.errors, report.stream.startswith(f"{STREAM}/")) == ([], True)


def _die(log: SealedFile) -> None:
    """Leave a log as a process does that is killed."""
    with log._log._lock:
        log._log._is_closing = True
        log._log._lock.notify_all()
    log._log._thread.join()
    log._log.forget()


def _until(is_so: Any) -> None:
    for _ in range(1000):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be so")
