"""The sessions of a log that is written: epochs, clocks, and a KMS that rotates or is away."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    ProviderConnectionError,
)
from keystead.ledger.format import records
from keystead.ledger.format.records import MAX_EPOCHS, Session
from keystead.ledger.format.session_source import KmsSessions
from keystead.ledger.reading import checking, sessions
from keystead.ledger.reading.policy import TrustedKey, TrustedSigner, TrustPolicy
from keystead.ledger.writing import sealer, writer
from keystead.ledger.writing.sealed_file import SealedFile
from keystead.model import SecretBytes
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.ledger.files import STREAM, killed, opened, payloads, until, verified
from tests.ledger.logs import kinds

SOAK = bool(os.environ.get("KEYSTEAD_SOAK"))


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
    until(lambda: b'"k":"rekey"' in path.read_bytes())
    log.append(b"3")
    log.close()
    policy = log_policy(kms, log)
    assert kinds(verified(path, kms, policy))[0] == "untrusted"


def log_policy(kms: FakeKMS, log: SealedFile) -> TrustPolicy:
    signer = log._log.signer.keys[0]
    return TrustPolicy(STREAM, (TrustedKey("fake", "audit"),), (TrustedSigner(signer),))


def test_a_rotated_kms_key_begins_another_session(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, checkpoint_s=0.05, buffer_s=0.01) as log:
        log.append(b"1")
        log.flush()
        kms.rotate("audit")
        log.append(b"2")
        until(lambda: b'"k":"rekey"' in path.read_bytes())
        log.append(b"3")
        policy = log.trust_policy()
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.sessions) == ([], 2)


def test_a_checkpoint_by_hand_looks_for_a_rotation_too(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, checkpoint_s=3600) as log:
        policy, first = log.trust_policy(), log.session_id
        log.append(b"1")
        log.checkpoint()
        assert log.session_id == first
        kms.rotate("audit")
        log.append(b"2")
        log.checkpoint()
        assert log.session_id != first
        log.append(b"3")
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.sessions) == ([], 2)
    assert path.read_bytes().count(b'"k":"rekey"') == 1


def test_a_kms_that_does_not_tell_of_rotations_keeps_no_checkpoint_from_being_signed(path: Path, kms: FakeKMS) -> None:
    with opened(path, kms, checkpoint_s=1.0, buffer_s=0.01) as log:
        policy = log.trust_policy()
        kms.fail_always()
        log.append(b"1")
        until(lambda: b'"k":"checkpoint"' in path.read_bytes())
        asked = kms.calls["describe"]
        log.append(b"2")
        log.checkpoint()
        # It is left alone for a while.
        assert kms.calls["describe"] == asked
        kms.heal()
    assert verified(path, kms, policy, expect_closed=True).errors == []


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


class SteppedClock(FakeClock):
    """A clock that is set by an hour as somebody looks at it, at a time that a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.looks_left = 0
        self.step_s = 0

    def now(self) -> datetime:
        self.looks_left -= 1
        if self.looks_left == 0:
            self.set(super().now() + timedelta(seconds=self.step_s))
        return super().now()

    def monotonic(self) -> float:
        self.looks_left -= 1
        if self.looks_left == 0:
            self.set(super().now() + timedelta(seconds=self.step_s))
        return super().monotonic()


@pytest.mark.parametrize("step_s", [3600, -3600])
@pytest.mark.parametrize("look", range(1, 8))
def test_a_clock_that_is_set_while_it_is_looked_at_is_no_alarm(
    path: Path, kms: FakeKMS, look: int, step_s: int
) -> None:
    clock = SteppedClock()
    with opened(path, kms, clock=clock, epoch_s=900) as log:
        policy = log.trust_policy()
        log.append(b"1")
        log.flush()
        clock.advance(880)
        clock.looks_left, clock.step_s = look, step_s
        log.append(b"2")
        log.flush()
        log.append(b"3")
    assert verified(path, kms, policy, expect_closed=True).errors == []


class SlowSessions(KmsSessions):
    """A KMS that takes longer than an epoch, and whose key is another one whenever it is looked at."""

    def __init__(self, kms: FakeKMS, clock: FakeClock) -> None:
        super().__init__(kms, "audit")
        self._clock = clock

    def draw(self, stream: str, *, epoch_s: int, start_ms: int) -> tuple[Session, SecretBytes]:
        drawn = super().draw(stream, epoch_s=epoch_s, start_ms=start_ms)
        self._clock.advance(9)
        return drawn

    def has_rotated(self) -> bool:
        return True


def test_a_kms_that_is_slow_where_a_file_begins_with_a_session_is_no_alarm(
    path: Path, kms: FakeKMS, clock: FakeClock
) -> None:
    log = opened(path, kms, clock=clock, epoch_s=5)
    policy = log.trust_policy()
    log.append(b"1")
    log.flush()
    killed(log, between_files=2)
    with SealedFile(path, stream=STREAM, kms=SlowSessions(kms, clock), clock=clock, epoch_s=5) as log:
        log.append(b"2")
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.files, payloads(path)) == ([], 2, [2])


def test_a_kms_that_takes_longer_than_an_epoch_is_no_alarm(path: Path, kms: FakeKMS, clock: FakeClock) -> None:
    for _ in range(2):
        with SealedFile(path, stream=STREAM, kms=SlowSessions(kms, clock), clock=clock, epoch_s=5) as log:
            policy = log.trust_policy()
            log.append(b"1")
            log.checkpoint()
            log.append(b"2")
    report = verified(path, kms, policy, expect_closed=True)
    assert (report.errors, report.sessions) == ([], 4)
    assert b'"k":"clock"' not in path.read_bytes()


@pytest.fixture
def most_epochs(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many epochs a session has. A million of them take a minute and a half, which only the full form waits for."""
    if SOAK:
        return MAX_EPOCHS
    few = 1 << 12
    for module in (records, checking, sessions, sealer, writer):
        monkeypatch.setattr(module, "MAX_EPOCHS", few)
    monkeypatch.setattr(checking, "_MOST_STEPS", few)
    return few


def test_a_log_that_is_idle_for_longer_than_its_session_has_epochs_is_no_alarm(
    path: Path, kms: FakeKMS, clock: FakeClock, most_epochs: int
) -> None:
    with opened(path, kms, clock=clock, epoch_s=1) as log:
        policy = log.trust_policy()
        log.append(b"1")
        log.flush()
        clock.advance(most_epochs + 100)
        log.append(b"2")
        log.flush()
    assert verified(path, kms, policy, expect_closed=True).errors == []


@pytest.mark.parametrize("fault", ["a short key", "no key", "another id"])
def test_a_source_that_gives_what_is_no_session_breaks_no_log(path: Path, kms: FakeKMS, fault: str) -> None:
    class FaultySessions(KmsSessions):
        is_faulty = False

        def draw(self, stream: str, *, epoch_s: int, start_ms: int) -> tuple[Session, SecretBytes]:
            session, key = super().draw(stream, epoch_s=epoch_s, start_ms=start_ms)
            if self.is_faulty and fault == "another id":
                session = replace(session, id="one")
            short: Any = SecretBytes(b"short") if fault == "a short key" else None
            return session, short if self.is_faulty and fault != "another id" else key

        def has_rotated(self) -> bool:
            return self.is_faulty

    source = FaultySessions(kms, "audit")
    with SealedFile(path, stream=STREAM, kms=source) as log:
        policy = log.trust_policy()
        source.is_faulty = True
        log.append(b"1")
        log.checkpoint()
        log.append(b"2")
    assert verified(path, kms, policy, expect_closed=True).errors == []
    with pytest.raises(ConfigurationError):
        SealedFile(path, stream=STREAM, kms=source)
