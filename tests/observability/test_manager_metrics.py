"""The documented metrics are emitted by what a manager really does."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from keystead import KeyManager, KeyRotationError, ProviderConnectionError, RotationPolicy, telemetry
from keystead.manager import admin
from keystead.testing import FakeKMS


class Metrics:
    """Reads what was measured so far: the value (of a histogram: the count) under the given labels."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._values: dict[tuple[str, frozenset[tuple[str, object]]], float] = {}
        self.meter = MeterProvider([self._reader]).get_meter("test")

    def value(self, instrument: str, **labels: str) -> float | None:
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        value = getattr(point, "value", None)
                        value = point.count if value is None else value  # type: ignore[union-attr]
                        self._values[metric.name, frozenset((point.attributes or {}).items())] = value
        return self._values.get((instrument, frozenset(labels.items())))


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Instruments whose values the test reads."""
    made = Metrics()
    instruments = telemetry.Instruments.of(made.meter)
    monkeypatch.setattr(telemetry, "instruments", lambda: instruments)
    return made


@pytest.fixture
def kms() -> FakeKMS:
    """A KMS whose failures are switches."""
    return FakeKMS()


@pytest.fixture
async def km(metrics: Metrics, kms: FakeKMS, tmp_path: Path) -> AsyncIterator[KeyManager]:
    """A manager whose calls the test counts, with nothing running beside it."""
    manager = KeyManager(
        {"cloud": kms.provider("cloud")},
        default_key_id="app",
        store=f"sqlite:///{tmp_path}/keys.db",
        rotation_policy=RotationPolicy(max_messages=100),
        background=False,
    )
    async with manager:
        yield manager


async def test_opening_a_store_is_one_counted_and_timed_kms_call(km: KeyManager, metrics: Metrics) -> None:
    calls = metrics.value("keystead_kms_calls_total", provider="cloud", operation="generate_data_key", result="ok")
    timed = metrics.value("keystead_kms_call_duration_seconds", provider="cloud", operation="generate_data_key")
    assert (calls, timed) == (1, 1)


async def test_the_hot_path_counts_nothing(km: KeyManager, metrics: Metrics) -> None:
    for _ in range(50):
        km.local_decrypt(km.local_encrypt(b"x"))
    assert metrics.value("keystead_kms_calls_total", provider="cloud", operation="encrypt", result="ok") is None
    assert metrics.value("keystead_kms_calls_total", provider="cloud", operation="decrypt", result="ok") is None


async def test_a_failed_kms_call_is_counted_by_its_code(km: KeyManager, kms: FakeKMS, metrics: Metrics) -> None:
    kms.fail_next(99, ProviderConnectionError("down"))
    with pytest.raises(ProviderConnectionError):
        await km.encrypt(b"x")
    labels = {"provider": "cloud", "operation": "encrypt", "result": "provider_connection"}
    assert metrics.value("keystead_kms_calls_total", **labels) == 3


async def test_rotations_are_counted(km: KeyManager, metrics: Metrics) -> None:
    await km.rotate_data_key()
    await km.rotate_data_key()
    assert metrics.value("keystead_rotations_total", result="ok") == 2


async def test_the_age_of_the_active_version_is_told_by_every_poll(km: KeyManager, metrics: Metrics) -> None:
    await km.run_due()
    age = metrics.value("keystead_data_key_age_seconds", keyring="default")
    assert age is not None
    assert 0 <= age < 300


async def test_the_part_of_the_limit_that_is_used_up_is_told_with_the_counts(km: KeyManager, metrics: Metrics) -> None:
    for _ in range(25):
        km.local_encrypt(b"x")
    await km.perform_maintenance()
    assert metrics.value("keystead_key_uses_ratio", keyring="default") == 0.25


async def test_a_fetched_data_key_is_a_cache_event(km: KeyManager, metrics: Metrics) -> None:
    sealed = km.local_encrypt(b"x")
    await km.rotate_data_key()
    await km.crypto_service.clear_cache()
    assert await km.decrypt_local(sealed) == b"x"
    assert metrics.value("keystead_cache_events_total", event="data_key_miss") == 1


async def test_loading_and_evicting_keyrings_are_cache_events(metrics: Metrics, kms: FakeKMS, tmp_path: Path) -> None:
    manager = KeyManager(
        {"cloud": kms.provider("cloud")},
        default_key_id="app",
        store=f"sqlite:///{tmp_path}/keys.db",
        keyring_cache=2,
        background=False,
    )
    async with manager:
        for number in range(4):
            await manager.keyring(f"tenant {number}")
    assert (metrics.value("keystead_cache_events_total", event="keyring_load") or 0) >= 4
    assert (metrics.value("keystead_cache_events_total", event="keyring_evicted") or 0) >= 2


async def test_a_rotation_that_the_kms_prevents_is_counted_by_its_code(
    km: KeyManager, kms: FakeKMS, metrics: Metrics, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/keys.db"
    async with KeyManager({"cloud": kms.provider("cloud")}, default_key_id="app", store=url) as other:
        await admin.rewrap(other)
    kms.fail_next(99, ProviderConnectionError("down"))
    with pytest.raises(KeyRotationError):
        await km.rotate_data_key()
    assert metrics.value("keystead_rotations_total", result="key_rotation") == 1


async def test_a_data_key_that_does_not_unwrap_is_logged_by_its_id(
    km: KeyManager, kms: FakeKMS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key_id = (await km.get_active_data_key()).id
    await km.rotate_data_key()
    with sqlite3.connect(tmp_path / "keys.db") as database:
        database.execute("UPDATE data_keys SET wrapped_key = zeroblob(94) WHERE id = ?", (key_id,))
    database.close()
    url = f"sqlite:///{tmp_path}/keys.db"
    async with KeyManager({"cloud": kms.provider("cloud")}, default_key_id="app", store=url, background=False):
        told = [record for record in caplog.records if getattr(record, "data_key_id", None) == key_id]
    assert [record.levelname for record in told] == ["ERROR"]
