from __future__ import annotations

import hashlib
import hmac
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.crypto.framing import framed
from keystead.devices.decrypting import Encrypted
from keystead.devices.junk import AT_ONCE
from keystead.devices.metrics import Metrics
from keystead.devices.operations import Operation, Reason
from keystead.devices.payloads import Operation as Asked
from keystead.devices.summary import Summaries
from keystead.devices.upkeep import UpkeepReport
from keystead.errors import ConfigurationError, DecryptionError, InvalidInputError
from keystead.ports import MetricRecord
from keystead.stores.memory import MemoryKeyStore
from tests.devices.room import ADA, devices, upkeep
from tests.devices.schema import Schema
from tests.devices.test_operations import ERROR, exact
from tests.fakes.clock import FakeClock
from tests.fakes.world import World

SCHEMA = Schema(Path(__file__).parents[2] / "docs" / "spec" / "metrics-summary-v1.schema.json")
HASH_KEY = bytes(range(32))
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def summaries(world: World) -> Summaries:
    return Summaries(world.store, world.clock, HASH_KEY)


async def noted(world: World, *, good: int = 0, bad: int = 0, key: str = "key_1", **options: Any) -> None:
    """Note decrypts of a key, by its owner unless it is said otherwise."""
    metrics = Metrics(world.store, world.clock)
    given: dict[str, Any] = {"device_id": "phone", "is_owner": True, "reason": Reason.NOT_DECRYPTED} | options
    for number in range(good + bad):
        of_it = given | ({"reason": None} if number < good else {})
        metrics.note(Operation.DECRYPT, 0.001, key_id=key, **of_it)
    await metrics.flush()


async def test_a_summary_of_nothing_says_so(world: World) -> None:
    told = await summaries(world).summary()
    assert SCHEMA.problems(told) == []
    nothing = dict.fromkeys(["successRate", "failureRate", "avgDurationMs", "p50", "p95", "p99", "max"])
    operation = {"total": 0, "success": 0, "failure": 0, **nothing}
    assert told == {
        "timeframeHours": 24,
        "since": "2029-12-31T00:00:00.000Z",
        "until": "2030-01-01T00:00:00.000Z",
        "totalOperations": 0,
        "successCount": 0,
        "failureCount": 0,
        "successRate": None,
        "operations": {"generate": operation, "encrypt": operation, "decrypt": operation},
        "errorReasons": [],
        "devices": {"distinct": 0, "top": []},
        "problematicKeys": [],
    }


async def test_a_summary_tells_everything_that_was_noted(world: World) -> None:
    metrics = Metrics(world.store, world.clock)
    for duration in (0.001, 0.002, 0.006):
        metrics.note(Operation.DECRYPT, duration, key_id="key_1", device_id="phone")
    owned: dict[str, Any] = {"key_id": "key_1", "device_id": "phone", "is_owner": True}
    metrics.note(Operation.DECRYPT, 0.003, reason=Reason.KEY_EXPIRED, **owned)
    metrics.note(Operation.DECRYPT, 0.003, reason=Reason.REPLAYED, **owned)
    metrics.note(Operation.DECRYPT, 0.003, reason=Reason.REPLAYED, **owned)
    metrics.note(Operation.GENERATE, 0.25, device_id="tablet", tenant="north")
    metrics.note(Operation.ENCRYPT, 0.0)
    await metrics.flush()
    told = json.loads(await summaries(world).summary_text(0.5))
    assert SCHEMA.problems(told) == []
    assert told == await summaries(world).summary(0.5)
    assert (told["totalOperations"], told["successCount"], told["failureCount"]) == (8, 5, 3)
    assert told["successRate"] == 62.5
    decrypt = told["operations"]["decrypt"]
    assert (decrypt["total"], decrypt["success"], decrypt["failure"]) == (6, 3, 3)
    assert (decrypt["successRate"], decrypt["failureRate"]) == (50, 50)
    assert (decrypt["avgDurationMs"], decrypt["max"]) == (3, 6)
    assert decrypt["p50"] == pytest.approx(3, rel=ERROR)
    assert told["operations"]["encrypt"]["max"] == told["operations"]["encrypt"]["p99"] == 0
    assert told["operations"]["generate"]["max"] == 250
    assert told["errorReasons"] == [
        {"reason": "Encrypted data was used before", "count": 2},
        {"reason": "Encryption key has expired", "count": 1},
    ]
    assert [each["count"] for each in told["devices"]["top"]] == [6, 1]
    assert told["problematicKeys"] == [
        {
            "keyId": "key_1",
            "total": 6,
            "failures": 3,
            "failureRate": 50,
            "reasons": [
                {"kind": "caller", "reason": "Encrypted data was used before", "count": 2},
                {"kind": "key", "reason": "Encryption key has expired", "count": 1},
            ],
        }
    ]


async def test_a_key_is_problematic_when_more_than_a_tenth_of_five_decrypts_or_more_failed(world: World) -> None:
    decrypts = {
        "a": (3, 2),
        "b": (2, 2),
        "c": (0, 4),
        "d": (9, 1),
        "e": (8, 1),
        "f": (45, 5),
        "g": (44, 5),
        "h": (5, 0),
    }
    for key, (good, bad) in decrypts.items():
        await noted(world, good=good, bad=bad, key=key)
    found = await summaries(world).find_problematic_keys()
    assert [(key.key_id, key.total, key.failures) for key in found] == [("g", 49, 5), ("a", 5, 2), ("e", 9, 1)]


async def test_the_threshold_itself_is_not_too_much(world: World) -> None:
    await noted(world, good=3, bad=2)
    found = [await summaries(world).find_problematic_keys(1, percent) for percent in (0, 39.9, 40, 100)]
    assert [len(keys) for keys in found] == [1, 1, 0, 0]


async def test_junk_that_others_send_to_a_key_does_not_count_against_it(world: World) -> None:
    await noted(world, good=5)
    for reason in (Reason.KEY_NOT_FOUND, Reason.OVERSIZE, Reason.NOT_DECRYPTED):
        await noted(world, bad=300, reason=reason, is_owner=False)
    # Not even if the caller of the metrics is mistaken about the owner.
    for reason in (Reason.KEY_NOT_FOUND, Reason.FORBIDDEN):
        await noted(world, bad=50, reason=reason)
    told = await summaries(world).summary()
    assert told["problematicKeys"] == []
    assert told["failureCount"] == 1000
    assert told["devices"]["top"][0]["count"] == 5


async def test_a_key_that_junk_made_problematic_is_reported_and_stays(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        key = await room.keys.generate(ADA, "phone")
        for _ in range(AT_ONCE):
            with pytest.raises(DecryptionError):
                await room.decrypting.open(ADA, Encrypted("AAAA", key.id), Asked.VERIFY_PIN)
        await room.metrics.flush()
        (found,) = await room.summaries.find_problematic_keys()
        assert (found.key_id, found.failures) == (key.id, AT_ONCE)
        assert await (await upkeep(km)).run() == UpkeepReport()
        assert (await room.keys.generate(ADA, "phone")).id == key.id


async def test_a_key_is_problematic_over_the_whole_time_alone(world: World) -> None:
    world.clock.set(datetime(2030, 1, 1, 22, 10, tzinfo=UTC))
    await noted(world, good=0, bad=9)
    world.clock.advance(3 * HOUR)
    await noted(world, good=90)
    assert [key.failures for key in await summaries(world).find_problematic_keys(24, 9)] == [9]
    assert await summaries(world).find_problematic_keys(24, 10) == []
    assert await summaries(world).find_problematic_keys(2, 0) == []


async def test_a_summary_has_the_hundred_keys_with_the_most_failures(world: World) -> None:
    metrics = Metrics(world.store, world.clock)
    for number in range(105):
        for _ in range(5 + number % 7):
            metrics.note(Operation.DECRYPT, 0.001, reason=Reason.NOT_DECRYPTED, key_id=f"key_{number}", is_owner=True)
    await metrics.flush()
    told = (await summaries(world).summary())["problematicKeys"]
    assert len(told) == 100
    assert [key["failures"] for key in told] == sorted((key["failures"] for key in told), reverse=True)
    assert len(await summaries(world).find_problematic_keys()) == 105


@pytest.mark.parametrize("hours", [0, -1, 8760.1, float("nan"), float("inf"), True, "24", None, 10**400], ids=repr)
async def test_hours_are_more_than_none_and_a_year_at_most(clock: FakeClock, hours: Any) -> None:
    asked = Summaries(MemoryKeyStore(), clock, HASH_KEY)
    for ask in (asked.summary, asked.summary_text, asked.find_problematic_keys):
        with pytest.raises(InvalidInputError, match="timeframeHours"):
            await ask(hours)


@pytest.mark.parametrize("threshold", [-1, 100.1, float("nan"), True, "10"])
async def test_a_threshold_is_a_percentage(clock: FakeClock, threshold: Any) -> None:
    with pytest.raises(InvalidInputError, match="threshold_percent"):
        await Summaries(MemoryKeyStore(), clock, HASH_KEY).find_problematic_keys(24, threshold)


async def test_a_time_that_crosses_midnight_has_what_happened_in_it(world: World) -> None:
    for hour, minute, days in ((23, 0, 400), (23, 1, 2), (23, 20, 1), (23, 45, 1), (23, 59, 1), (0, 10, 0)):
        world.clock.set(datetime(2031, 3, 1, hour, minute, 30, tzinfo=UTC) - days * DAY)
        await noted(world, good=1)
    world.clock.set(datetime(2031, 3, 1, 0, 10, 40, tzinfo=UTC))
    counted = {}
    for hours in (0.01, 0.25, 0.5, 1, 24, 25, 48, 8760):
        counted[hours] = (await summaries(world).summary(hours))["totalOperations"]
    assert counted == {0.01: 1, 0.25: 2, 0.5: 3, 1: 4, 24: 4, 25: 5, 48: 5, 8760: 5}


async def test_a_day_is_told_to_the_minute_and_longer_to_the_hour(world: World) -> None:
    now = datetime(2030, 6, 2, 12, 34, 56, tzinfo=UTC)
    for before in (24 * HOUR, 24 * HOUR + 50 * timedelta(seconds=1), 24 * HOUR + MINUTE, 30 * HOUR + 20 * MINUTE):
        world.clock.set(now - before)
        await noted(world, good=1)
    world.clock.set(now)
    told = await summaries(world).summary(24)
    assert (told["since"], told["totalOperations"]) == ("2030-06-01T12:34:00.000Z", 2)
    assert told["devices"]["top"][0]["count"] == 3
    told = await summaries(world).summary(30)
    assert (told["since"], told["totalOperations"]) == ("2030-06-01T06:00:00.000Z", 4)
    assert told["devices"]["top"][0]["count"] == 4


async def test_percentiles_are_within_the_stated_error(world: World) -> None:
    chance, metrics = random.Random(7), Metrics(world.store, world.clock)
    durations = [chance.lognormvariate(1, 1.2) / 1000 for _ in range(2000)]
    for duration in durations:
        metrics.note(Operation.DECRYPT, duration)
    await metrics.flush()
    told = (await summaries(world).summary(1))["operations"]["decrypt"]
    kept = [round(duration * 1e6) for duration in durations]
    for percent in (50, 95, 99):
        assert told[f"p{percent}"] * 1000 == pytest.approx(exact(kept, percent), rel=ERROR + 1e-3)
    assert told["max"] == max(kept) / 1000
    assert told["avgDurationMs"] == round(sum(kept) / 2000 / 1000, 3)


async def test_devices_are_told_by_a_keyed_hash_of_tenant_and_id(world: World) -> None:
    metrics = Metrics(world.store, world.clock)
    for number in range(12):
        for _ in range(number + 1):
            metrics.note(Operation.GENERATE, 0.1, device_id=f"phone-{number}", tenant="north" if number % 2 else "")
    metrics.note(Operation.GENERATE, 0.1, device_id="phone-11")
    await metrics.flush()
    text = await summaries(world).summary_text()
    devices = json.loads(text)["devices"]
    assert devices["distinct"] == 13
    assert [each["count"] for each in devices["top"]] == list(range(12, 2, -1))
    message = framed("keystead metrics device v1", "north", "phone-11")
    assert devices["top"][0]["deviceIdHash"] == hmac.new(HASH_KEY, message, hashlib.sha256).hexdigest()[:16]
    assert "phone" not in text
    other = await Summaries(world.store, world.clock, bytes(32)).summary()
    assert not {each["deviceIdHash"] for each in other["devices"]["top"]} & {
        each["deviceIdHash"] for each in devices["top"]
    }


def test_device_ids_are_not_hashed_under_a_short_key(clock: FakeClock) -> None:
    with pytest.raises(ConfigurationError):
        Summaries(MemoryKeyStore(), clock, bytes(15))


async def test_what_a_newer_release_counts_is_told_too(world: World) -> None:
    at = world.clock.now()
    records = [
        MetricRecord(f"{number:032}", operation, "too many moons", 10, 9, at, counted_key="key_1")
        for number, operation in enumerate(["decrypt"] * 5 + ["rotate"])
    ]
    async with world.store.transaction() as work:
        await work.add_metrics(records)
    told = await summaries(world).summary()
    assert (told["totalOperations"], told["operations"]["decrypt"]["total"]) == (6, 5)
    assert told["problematicKeys"][0]["reasons"] == [{"kind": "service", "reason": "too many moons", "count": 6}]


def test_the_check_against_the_schema_finds_what_is_wrong() -> None:
    told = {"timeframeHours": 0, "since": "now", "devices": {"distinct": -1, "top": [{}] * 11}, "more": 1}
    found = SCHEMA.problems(told | {"errorReasons": {}, "successRate": True, "operations": {}})
    assert len([each for each in found if "is missing" in each]) > 5
    assert [each for each in found if "is missing" not in each] == [
        "$.timeframeHours is out of range",
        "$.since is out of range",
        "$.devices.distinct is out of range",
        "$.devices.top is too long",
        "$.more is unknown",
        "$.errorReasons is no ['array']",
        "$.successRate is no ['number', 'null']",
    ]


async def test_operations_are_told_alone_as_in_the_summary_and_by_the_hour(world: World, clock: FakeClock) -> None:
    told = summaries(world)
    metrics = Metrics(world.store, clock)
    metrics.note(Operation.DECRYPT, 0.002)
    clock.advance(timedelta(hours=2))
    metrics.note(Operation.DECRYPT, 0.004, reason=Reason.KEY_EXPIRED)
    metrics.note(Operation.GENERATE, 0.1)
    await metrics.flush()
    assert await told.operations() == (await told.summary())["operations"]
    hours = await told.by_hour(3)
    assert [(each.total, each.failures) for each in hours] == [(1, 0), (0, 0), (2, 1)]
    assert [clock.now() - each.at for each in hours] == [timedelta(hours=ago) for ago in (2, 1, 0)]
    for wrong in (0, -1, 8761, 1.5):
        with pytest.raises(InvalidInputError, match="whole number"):
            await told.by_hour(wrong)  # type: ignore[arg-type]
