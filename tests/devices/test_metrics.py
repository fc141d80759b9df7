from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from keystead.devices.metrics import Metrics, Retention
from keystead.devices.operations import Operation, Reason
from keystead.errors import ConfigurationError, StoreUnavailableError
from keystead.ports import KeyStore, MetricCount, UnitOfWork
from keystead.stores import open_store
from keystead.stores.schema import migrate
from keystead.stores.tables import encryption_metrics
from tests.devices.room import Client, devices
from tests.fakes.clock import FakeClock
from tests.fakes.world import CountingStore, World
from tests.stores.test_metric_rows import COUNTED, rows

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
AWAY = StoreUnavailableError("away")


class Interrupted(CountingStore):
    """A store whose next transaction ends, kept or not, with something else than its own end."""

    def __init__(self, store: KeyStore) -> None:
        super().__init__(store)
        self.after: BaseException | None = None
        self.during: BaseException | None = None

    @asynccontextmanager
    async def transaction(self, *, once: bool = False) -> AsyncIterator[UnitOfWork]:
        """Begin a transaction; raise inside of it, or when it is kept."""
        async with super().transaction(once=once) as work:
            yield work
            during, self.during = self.during, None
            if during is not None:
                raise during
        after, self.after = self.after, None
        if after is not None:
            raise after


def note(metrics: Metrics, count: int = 1, **options: Any) -> None:
    for _ in range(count):
        metrics.note(Operation.DECRYPT, 0.0015, **({"key_id": "key_1", "device_id": "phone"} | options))


async def counts(store: KeyStore, clock: FakeClock) -> list[MetricCount]:
    async with store.reading() as work:
        return await work.metric_counts(clock.now() - DAY, clock.now())


async def total(store: KeyStore, clock: FakeClock) -> int:
    """Return how many operations were counted, which are as many as were kept."""
    number = sum(each.count for each in await counts(store, clock))
    assert len(await rows(store, encryption_metrics)) == number
    return number


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.name == "keystead.devices"]


async def test_what_was_noted_is_written_once(world: World) -> None:
    metrics = Metrics(world.store, world.clock)
    note(metrics, 3)
    metrics.note(Operation.GENERATE, 0.2, reason=Reason.RATE_LIMITED, device_id="phone")
    assert metrics.waiting == 4
    assert await metrics.flush() == 4
    assert await metrics.flush() == 0
    assert metrics.waiting == 0
    assert await total(world.store, world.clock) == 4
    found = {
        (each.operation, each.reason): (each.count, each.total_us) for each in await counts(world.store, world.clock)
    }
    assert found == {("decrypt", ""): (3, 4500), ("generate", "Rate limit exceeded"): (1, 200_000)}


async def test_nothing_is_asked_of_the_store_where_nothing_was_noted(world: World) -> None:
    store = CountingStore(world.store)
    metrics = Metrics(store, world.clock)
    await metrics.flush()
    note(metrics)
    assert store.writes == 0


async def test_all_that_waits_is_written_in_one_transaction(world: World) -> None:
    store = CountingStore(world.store)
    metrics = Metrics(store, world.clock)
    note(metrics, 1000)
    assert await metrics.flush() == 1000
    assert store.writes == 1


@pytest.mark.parametrize(
    ("operation", "options", "of_key", "of_device"),
    [
        (Operation.DECRYPT, {}, 1, 1),
        (Operation.GENERATE, {}, 0, 1),
        (Operation.ENCRYPT, {}, 0, 1),
        (Operation.DECRYPT, {"reason": Reason.NOT_DECRYPTED, "is_owner": True}, 1, 1),
        (Operation.DECRYPT, {"reason": Reason.NOT_DECRYPTED}, 0, 0),
        (Operation.DECRYPT, {"reason": Reason.KEY_NOT_FOUND, "is_owner": True}, 0, 0),
        (Operation.GENERATE, {"reason": Reason.FORBIDDEN, "is_owner": True}, 0, 0),
    ],
)
async def test_what_befell_a_stranger_is_counted_under_no_key_and_no_device(
    world: World, operation: Operation, options: dict[str, Any], of_key: int, of_device: int
) -> None:
    metrics = Metrics(world.store, world.clock)
    metrics.note(operation, 0.1, key_id="key_1", device_id="phone", **options)
    await metrics.flush()
    assert await total(world.store, world.clock) == 1
    numbers = [len(await rows(world.store, table)) for table in COUNTED]
    is_failure = "reason" in options
    assert numbers == [3, 3 * of_key, int(of_key and is_failure), 3 * of_device]
    (row,) = await rows(world.store, encryption_metrics)
    assert (row["key_id"], row["device_id"]) == ("key_1", "phone")


@pytest.mark.parametrize("text", ["x" * 129, "a\x00b", "\ud800"], ids=["long", "NUL", "surrogate"])
async def test_what_no_database_takes_does_not_keep_the_others_out(world: World, text: str) -> None:
    metrics = Metrics(world.store, world.clock)
    note(metrics, key_id=text)
    note(metrics, device_id=text)
    note(metrics, tenant=text * 2)
    metrics.note(Operation.DECRYPT, float("nan"))
    assert await metrics.flush() == 4
    found = [(row["key_id"], row["device_id"]) for row in await rows(world.store, encryption_metrics)]
    assert sorted(found, key=repr) == [("key_1", None), ("key_1", None), (None, "phone"), (None, None)]


async def test_what_finds_no_place_is_dropped_and_counted(world: World) -> None:
    store = CountingStore(world.store)
    metrics = Metrics(store, world.clock, capacity=10)
    note(metrics, 12)
    assert (metrics.waiting, metrics.dropped) == (10, 2)
    store.failure = AWAY
    await metrics.flush()
    # What could not be written takes its place as before.
    note(metrics, 5)
    assert (metrics.waiting, metrics.dropped) == (10, 7)
    store.failure = None
    assert await metrics.flush() == 10
    note(metrics, 4)
    assert await metrics.flush() == 4
    assert (metrics.waiting, metrics.dropped) == (0, 7)
    assert await total(world.store, world.clock) == 14


async def test_a_store_that_is_away_is_told_once_and_gets_everything_later(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    store = CountingStore(world.store)
    metrics = Metrics(store, world.clock)
    with caplog.at_level(logging.INFO, "keystead.devices"):
        for outage in range(2):
            store.failure = AWAY
            for _ in range(3):
                note(metrics, 2)
                assert await metrics.flush() == 0
            assert said(caplog) == ["WARNING", "INFO"] * outage + ["WARNING"]
            store.failure = None
            assert await metrics.flush() == 6
    assert said(caplog) == ["WARNING", "INFO"] * 2
    assert "store_unavailable" in caplog.text
    assert await total(world.store, world.clock) == 12


@pytest.mark.parametrize("failure", [AWAY, RuntimeError("a fault of ours"), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("moment", ["during", "after"])
async def test_whatever_ends_a_flush_each_metric_is_counted_once(
    world: World, failure: BaseException, moment: str
) -> None:
    store = Interrupted(world.store)
    metrics = Metrics(store, world.clock)
    note(metrics, 3)
    setattr(store, moment, failure)
    if isinstance(failure, asyncio.CancelledError):
        with pytest.raises(asyncio.CancelledError):
            await metrics.flush()
    else:
        assert await metrics.flush() == 0
    note(metrics, 2)
    assert metrics.waiting == 5
    assert await metrics.flush() == 5
    assert await total(world.store, world.clock) == 5


async def test_a_flush_that_waits_for_another_can_be_cancelled(world: World) -> None:
    metrics = Metrics(world.store, world.clock)
    note(metrics, 5)
    first, second = asyncio.create_task(metrics.flush()), asyncio.create_task(metrics.flush())
    await asyncio.sleep(0)
    second.cancel()
    assert await first == 5
    assert second.cancelled()
    assert await total(world.store, world.clock) == 5


class Stuck(CountingStore):
    """A store that takes nothing until it is let go."""

    def __init__(self, store: KeyStore) -> None:
        super().__init__(store)
        self.go_on = asyncio.Event()

    @asynccontextmanager
    async def transaction(self, *, once: bool = False) -> AsyncIterator[UnitOfWork]:
        """Begin a transaction once the store is let go."""
        await self.go_on.wait()
        async with super().transaction(once=once) as work:
            yield work


async def test_operations_wait_for_no_metrics(world: World) -> None:
    async with world.open() as km:
        room = await devices(km)
        room.metrics._store = stuck = Stuck(world.store)
        note(room.metrics)
        flush = asyncio.create_task(room.metrics.flush())
        async with asyncio.timeout(30):
            ada = await Client.of(room)
            await ada.set("correct horse")
            assert [await ada.is_right(secret) for secret in ("wrong horse", "correct horse")] == [False, True]
        assert not flush.done()
        stuck.go_on.set()
        # The last decrypt, with three others and a key, waited for the first flush to end.
        assert await flush == 1
        assert await room.metrics.flush() == 4
        assert await total(world.store, world.clock) == 5


async def test_flushes_at_once_write_each_metric_once(world: World) -> None:
    metrics = Metrics(world.store, world.clock)

    async def busy() -> int:
        written = 0
        for _ in range(5):
            note(metrics, 7)
            written += await metrics.flush()
        return written

    assert sum(await asyncio.gather(*(busy() for _ in range(6)))) == 210
    assert await total(world.store, world.clock) == 210


async def test_two_nodes_that_flush_at_once_add_up(postgres_url: str, clock: FakeClock) -> None:
    migrate(postgres_url)
    stores = [open_store(postgres_url) for _ in range(2)]

    async def node(store: KeyStore, seed: int) -> None:
        chance, metrics = random.Random(seed), Metrics(store, clock)
        for _ in range(20):
            for _ in range(30):
                reason = chance.choice([None, Reason.NOT_DECRYPTED])
                key, device = f"key_{chance.randrange(9)}", f"device_{chance.randrange(9)}"
                metrics.note(
                    Operation.DECRYPT, chance.random(), reason=reason, key_id=key, device_id=device, is_owner=True
                )
            assert await metrics.flush() == 30

    await asyncio.gather(*(node(store, seed) for seed, store in enumerate(stores)))
    assert await total(stores[0], clock) == 1200
    async with stores[0].reading() as work:
        failing = await work.failing_keys(clock.now(), clock.now(), threshold_percent=0, at_least=1)
        distinct, devices = await work.busiest_devices(clock.now(), clock.now(), limit=99)
    assert sum(key.total for key in failing) == sum(device.count for device in devices) == 1200
    assert distinct == 9
    for store in stores:
        await store.aclose()


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_counted_is_what_was_noted_less_what_was_dropped(world: World, seed: int) -> None:
    chance, store = random.Random(seed), Interrupted(world.store)
    metrics = Metrics(store, world.clock, capacity=50)
    noted = 0
    for _ in range(60):
        count = chance.randrange(20)
        noted += count
        note(metrics, count, reason=chance.choice([None, *Reason]), is_owner=chance.random() < 0.5)
        world.clock.advance(chance.randrange(600))
        store.failure = chance.choice([None, None, AWAY])
        if chance.random() < 0.4:
            setattr(store, chance.choice(["during", "after"]), AWAY)
        await metrics.flush()
    store.failure = store.during = store.after = None
    await metrics.flush()
    assert metrics.dropped > 0
    assert await total(world.store, world.clock) == noted - metrics.dropped
    by_length: dict[int, int] = {}
    for row in await rows(world.store, COUNTED[0]):
        by_length[row["seconds"]] = by_length.get(row["seconds"], 0) + row["count"]
    assert set(by_length.values()) == {noted - metrics.dropped}


async def test_upkeep_removes_each_kind_when_its_time_is_over(world: World) -> None:
    metrics = Metrics(world.store, world.clock)
    note(metrics, reason=Reason.NOT_DECRYPTED, is_owner=True)
    await metrics.flush()
    left = []
    for step in (2 * DAY - HOUR, 2 * HOUR, 5 * DAY, 393 * DAY, DAY):
        world.clock.advance(step)
        await metrics.upkeep()
        kept = [await rows(world.store, table) for table in (encryption_metrics, *COUNTED)]
        left.append([len(each) for each in kept])
    assert left == [[1, 3, 3, 1, 3], [1, 2, 3, 1, 3], [0, 2, 3, 1, 3], [0, 1, 2, 0, 2], [0, 0, 0, 0, 0]]


async def test_upkeep_goes_on_until_nothing_old_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keystead.devices.metrics.BATCH", 2)
    store = CountingStore(world.store)
    metrics = Metrics(store, world.clock, retention=Retention(raw=HOUR))
    note(metrics, 5)
    await metrics.flush()
    world.clock.advance(2 * HOUR)
    note(metrics, 1)
    await metrics.flush()
    before = store.writes
    assert await metrics.upkeep() == 5
    assert store.writes - before == 4
    assert len(await rows(world.store, encryption_metrics)) == 1


@pytest.mark.parametrize("name", ["raw", "minutes", "hours", "keys"])
def test_numbers_are_kept_for_as_long_as_a_summary_of_a_day_needs(name: str) -> None:
    with pytest.raises(ConfigurationError):
        Retention(**{name: timedelta(minutes=59) if name == "raw" else DAY})
