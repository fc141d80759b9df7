from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from keystead import telemetry
from keystead.errors import ProviderConnectionError
from keystead.providers.guard import GuardedProvider
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock


class Measured:
    """What was measured, as instrument name -> labels -> value (of a histogram: the sum)."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def __getitem__(self, instrument: str) -> dict[tuple[tuple[str, Any], ...], float]:
        points = [point for name, point in self._points() if name == instrument]
        return {
            tuple(sorted((point.attributes or {}).items())): point.sum
            if isinstance(point, HistogramDataPoint)
            else point.value
            for point in points
        }

    def names(self) -> set[str]:
        return {name for name, _ in self._points()}

    def text(self) -> str:
        data = self._reader.get_metrics_data()
        return str(data.to_json()) if data else ""

    def _points(self) -> list[tuple[str, Any]]:
        data = self._reader.get_metrics_data()
        if data is None:
            return []
        return [
            (metric.name, point)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured()
    instruments = telemetry.Instruments.of(made.provider.get_meter("test"))
    monkeypatch.setattr(telemetry, "instruments", lambda: instruments)
    return made


def test_every_instrument_has_its_documented_name(measured: Measured) -> None:
    telemetry.kms_call("cloud", "encrypt", "ok", 0.5)
    telemetry.data_key_age("default", 60.0)
    telemetry.rotation("success")
    telemetry.key_uses("default", 0.25)
    telemetry.cache_event("data_key_miss")
    telemetry.legacy_read("text")
    telemetry.plaintext_read("users.email")
    telemetry.wrap_fault("cloud", "missing")
    telemetry.request("generateClientEncryptionKey", "OK", 0.5)
    telemetry.client_key_operation("decrypt", "ok", 0.5)
    telemetry.client_key_given(is_new=True)
    telemetry.ready_pairs("rsa-2048", 20)
    telemetry.ready_pair_made("rsa-2048")
    telemetry.secret_check(is_right=False)
    telemetry.secret_lockout("passcode")
    telemetry.junk_refused()
    assert measured.names() == {
        "keystead_kms_calls_total",
        "keystead_kms_call_duration_seconds",
        "keystead_data_key_age_seconds",
        "keystead_rotations_total",
        "keystead_key_uses_ratio",
        "keystead_cache_events_total",
        "keystead_legacy_reads_total",
        "keystead_plaintext_reads_total",
        "keystead_wrap_faults_total",
        "keystead_requests_total",
        "keystead_request_duration_seconds",
        "keystead_client_key_operations_total",
        "keystead_client_key_operation_duration_seconds",
        "keystead_client_keys_given_total",
        "keystead_ready_pairs",
        "keystead_ready_pairs_made_total",
        "keystead_secret_checks_total",
        "keystead_secret_lockouts_total",
        "keystead_junk_refused_total",
    }


def test_the_docstring_lists_every_instrument(measured: Measured) -> None:
    test_every_instrument_has_its_documented_name(measured)
    assert [name for name in measured.names() if name not in (telemetry.__doc__ or "")] == []


def test_counts_add_up_by_label(measured: Measured) -> None:
    telemetry.rotation("success")
    telemetry.rotation("success")
    telemetry.rotation("failure")
    assert measured["keystead_rotations_total"] == {(("result", "success"),): 2, (("result", "failure"),): 1}


def test_a_duration_is_told_when_somebody_collects_and_once(measured: Measured) -> None:
    of = (("operation", "verifyUserPasscode"),)
    telemetry.request("verifyUserPasscode", "OK", 0.5)
    for _ in range(2):
        assert measured["keystead_request_duration_seconds"] == {of: 0.5}
    telemetry.request("verifyUserPasscode", "OK", 0.25)
    assert measured["keystead_request_duration_seconds"] == {of: 0.75}


def test_durations_that_nobody_collects_are_told_before_they_are_many(measured: Measured) -> None:
    made = telemetry.instruments()
    assert made is not None
    for number in range(1000):
        telemetry.request("verifyUserPasscode", "OK", 1.0)
        assert len(made.request_duration._kept) < 100, number
    assert measured["keystead_request_duration_seconds"] == {(("operation", "verifyUserPasscode"),): 1000.0}


def test_gauges_keep_the_last_value(measured: Measured) -> None:
    telemetry.data_key_age("default", 60.0)
    telemetry.data_key_age("default", 61.0)
    telemetry.key_uses("default", 0.5)
    assert measured["keystead_data_key_age_seconds"] == {(("keyring", "default"),): 61.0}
    assert measured["keystead_key_uses_ratio"] == {(("keyring", "default"),): 0.5}


async def test_the_guard_counts_every_attempt_with_its_outcome(measured: Measured, clock: FakeClock) -> None:
    kms = FakeKMS(clock=clock)
    kms.fail_next(1, ProviderConnectionError("down"))
    kms.delay_s = 2.0
    guarded = GuardedProvider(kms, "cloud", clock=clock)
    await guarded.decrypt(await guarded.encrypt(b"value", "key"))

    def labels(operation: str, result: str) -> tuple[tuple[str, str], ...]:
        return (("operation", operation), ("provider", "cloud"), ("result", result))

    assert measured["keystead_kms_calls_total"] == {
        labels("encrypt", "provider_connection"): 1,
        labels("encrypt", "ok"): 1,
        labels("decrypt", "ok"): 1,
    }
    assert measured["keystead_kms_call_duration_seconds"] == {
        (("operation", "encrypt"), ("provider", "cloud")): 4.0,
        (("operation", "decrypt"), ("provider", "cloud")): 2.0,
    }


async def test_a_call_cut_at_the_deadline_is_told_from_a_cancelled_one(measured: Measured) -> None:
    kms = FakeKMS()
    kms.delay_s = 60
    with pytest.raises(ProviderConnectionError):
        await GuardedProvider(kms, "cloud", deadline_s=0.01).encrypt(b"value", "key")
    await asyncio.sleep(0.01)
    assert measured["keystead_kms_calls_total"] == {
        (("operation", "encrypt"), ("provider", "cloud"), ("result", "deadline")): 1
    }


async def test_no_label_holds_a_key_id_a_context_or_a_plaintext(measured: Measured, clock: FakeClock) -> None:
    guarded = GuardedProvider(FakeKMS(clock=clock), "cloud", clock=clock)
    sealed = await guarded.encrypt(b"canary-text", "canary-key", context={"canary-name": "canary-value"})
    await guarded.decrypt(sealed)
    assert "cloud" in measured.text()
    assert "canary" not in measured.text()


def test_without_opentelemetry_everything_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    telemetry.instruments.cache_clear()
    try:
        telemetry.kms_call("cloud", "encrypt", "ok", 0.5)
        telemetry.data_key_age("default", 60.0)
        telemetry.rotation("success")
        telemetry.key_uses("default", 0.25)
        telemetry.cache_event("data_key_miss")
        assert telemetry.instruments() is None
    finally:
        telemetry.instruments.cache_clear()


def test_opentelemetry_is_imported_at_the_first_measurement() -> None:
    script = (
        "import sys; from keystead import telemetry\n"
        "assert 'opentelemetry' not in sys.modules\n"
        "telemetry.rotation('ok')\n"
        "assert 'opentelemetry' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0


def test_the_guards_first_call_loads_opentelemetry_off_the_loop() -> None:
    script = (
        "import asyncio, sys, threading\n"
        "from keystead.providers.guard import GuardedProvider\n"
        "from keystead.testing import FakeKMS\n"
        "by = set()\n"
        "class Note:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'opentelemetry':\n"
        "            by.add(threading.get_ident())\n"
        "async def main():\n"
        "    sys.meta_path.insert(0, Note())\n"
        "    await GuardedProvider(FakeKMS(), 'cloud').encrypt(b'x', 'app')\n"
        "    assert by and threading.get_ident() not in by\n"
        "assert 'opentelemetry' not in sys.modules\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


def test_measurements_reach_a_meter_provider_set_up_later() -> None:
    script = (
        "from keystead import telemetry\n"
        "telemetry.rotation('early')\n"
        "from opentelemetry import metrics\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
        "reader = InMemoryMetricReader()\n"
        "metrics.set_meter_provider(MeterProvider([reader]))\n"
        "telemetry.rotation('late')\n"
        "assert 'late' in reader.get_metrics_data().to_json()"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0


def test_a_child_of_a_fork_waits_for_nobody_who_was_counting() -> None:
    with telemetry._adding:
        child = os.fork()
        if child == 0:
            counting = threading.Thread(target=telemetry.secret_check, kwargs={"is_right": True}, daemon=True)
            counting.start()
            counting.join(5)
            os._exit(int(counting.is_alive()))
    assert os.waitpid(child, 0)[1] == 0
