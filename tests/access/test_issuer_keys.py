"""An issuer's keys are read when they are needed, not more often, and are not used for longer than is said."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from keystead.access import issuer_keys
from keystead.access.issuer_keys import MAX_AGE_S, MAX_ANSWER, PAUSE_S, REFRESH_S, RETRY_S, IssuerAddress, KnownKeys
from keystead.errors import IssuerUnavailableError
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import DISCOVERY, KEYS, FakeIssuer, Page, SigningKey, ec_key, ed_key, rsa_key

READING = [DISCOVERY, KEYS]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still, for background tasks as well."""
    return FakeClock(instant=False)


@pytest.fixture
def issuer(clock: FakeClock) -> Iterator[FakeIssuer]:
    """An issuer with one key."""
    with FakeIssuer(clock) as started:
        started.publish(ec_key())
        yield started


def known(issuer: FakeIssuer, clock: FakeClock, *, jwks_uri: str | None = None, url: str | None = None) -> KnownKeys:
    return KnownKeys(IssuerAddress(url or issuer.url, jwks_uri, ("ES256", "EdDSA", "RS256")), clock)


@pytest.fixture
def keys(issuer: FakeIssuer, clock: FakeClock) -> KnownKeys:
    """Its keys, none of them read yet."""
    return known(issuer, clock)


@asynccontextmanager
async def kept(keys: KnownKeys) -> AsyncIterator[None]:
    task = asyncio.create_task(keys.keep())
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.005)


async def has(keys: KnownKeys, key: SigningKey) -> bool:
    return await keys.find(key.kid, key.algorithm) is not None


async def test_keys_are_read_once_and_found_by_many(keys: KnownKeys, issuer: FakeIssuer) -> None:
    found = await asyncio.gather(*(has(keys, ec_key()) for _ in range(50)))
    assert all(found)
    assert await has(keys, ec_key())
    assert issuer.asked == READING


async def test_who_comes_while_keys_are_read_waits_for_them(keys: KnownKeys, issuer: FakeIssuer) -> None:
    issuer.delay_s = 0.05
    first = asyncio.create_task(has(keys, ec_key()))
    await until(lambda: keys._is_reading)
    assert await has(keys, ec_key())
    assert await first
    assert issuer.asked == READING


async def test_a_fault_of_its_own_does_not_end_what_keeps_keys_young(
    keys: KnownKeys, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(issuer_keys, "fetch_keys", fails)
        async with kept(keys):
            await until(lambda: clock.slept == [RETRY_S])
            patch.undo()
            clock.advance(RETRY_S)
            await until(lambda: clock.slept == [RETRY_S, REFRESH_S])
            assert await has(keys, ec_key())


async def test_where_the_keys_are_may_be_set(issuer: FakeIssuer, clock: FakeClock) -> None:
    issuer.pages["/p?q=1"] = Page(json.dumps({"keys": [ed_key().jwk]}).encode())
    assert await has(known(issuer, clock, jwks_uri=f"{issuer.url}/p?q=1"), ed_key())
    assert issuer.asked == ["/p?q=1"]


async def test_an_issuer_with_a_path_has_its_discovery_below_it(issuer: FakeIssuer, clock: FakeClock) -> None:
    for path in ("/realms/main", "/realms/main/"):
        document = {"issuer": issuer.url + path, "jwks_uri": issuer.url + KEYS}
        issuer.pages["/realms/main" + DISCOVERY] = Page(json.dumps(document).encode())
        assert await has(known(issuer, clock, url=issuer.url + path), ec_key())


async def test_a_new_key_is_read_at_once(keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock) -> None:
    assert await has(keys, ec_key())
    issuer.publish(ec_key(), ed_key())
    clock.advance(PAUSE_S)
    assert await has(keys, ed_key())
    assert issuer.asked == READING * 2


async def test_tokens_that_name_random_keys_do_not_make_it_hammer_the_issuer(
    keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock
) -> None:
    for _ in range(3):
        found = await asyncio.gather(*(keys.find(f"random {number}", "ES256") for number in range(100)))
        assert found == [None] * 100
        assert [await keys.find(f"another {number}", "ES256") for number in range(100)] == [None] * 100
        assert await has(keys, ec_key())
        clock.advance(PAUSE_S)
    assert issuer.asked == READING * 3


async def test_a_known_key_of_another_algorithm_causes_no_reading(
    keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock
) -> None:
    assert await has(keys, ec_key())
    clock.advance(PAUSE_S)
    assert await keys.find("ec", "RS256") is None
    assert await keys.find(None, "RS256") is None
    assert issuer.asked == READING


async def test_keys_are_read_in_the_background_before_they_age_and_withdrawn_ones_go(
    keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock
) -> None:
    async with kept(keys):
        await until(lambda: clock.slept == [REFRESH_S])
        assert issuer.asked == READING
        issuer.publish(ed_key())
        clock.advance(REFRESH_S - 1)
        assert await has(keys, ec_key())
        assert issuer.asked == READING
        clock.advance(1)
        await until(lambda: clock.slept == [REFRESH_S] * 2)
        assert issuer.asked == READING * 2
        assert await has(keys, ed_key())
        assert not await has(keys, ec_key())


async def test_known_keys_outlive_an_outage_of_a_bounded_time(
    keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(keys):
        await until(lambda: clock.slept == [REFRESH_S])
        issuer.is_down = True
        clock.advance(REFRESH_S)
        for count in range(1, 4):
            await until(lambda count=count: clock.slept[1:] == [RETRY_S] * count)  # type: ignore[misc]
            assert await has(keys, ec_key())
            clock.advance(RETRY_S)
        await until(lambda: clock.slept[1:] == [RETRY_S] * 4)
        clock.advance(MAX_AGE_S - REFRESH_S - 3 * RETRY_S - 1)
        assert await has(keys, ec_key())
        clock.advance(1)
        with pytest.raises(IssuerUnavailableError):
            await has(keys, ec_key())
        issuer.is_down = False
        clock.advance(PAUSE_S)
        assert await has(keys, ec_key())
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert "discovery cannot be read" in told[0]
    assert told[1] == "the issuer's keys are read again"


async def test_an_unknown_key_is_neither_good_nor_bad_while_the_issuer_is_down(
    keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock
) -> None:
    assert await has(keys, ec_key())
    clock.advance(PAUSE_S)
    issuer.is_down = True
    asked = len(issuer.asked)
    for _ in range(3):
        with pytest.raises(IssuerUnavailableError, match="discovery cannot be read"):
            await has(keys, ed_key())
        assert await has(keys, ec_key())
    assert len(issuer.asked) == asked + 1
    issuer.is_down = False
    clock.advance(PAUSE_S)
    assert not await has(keys, ed_key())


async def test_an_issuer_that_withdraws_every_key_has_none(
    keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock
) -> None:
    assert await has(keys, ec_key())
    issuer.publish()
    clock.advance(MAX_AGE_S)
    assert not await has(keys, ec_key())


async def test_keys_that_are_not_used_are_told_of_once(
    keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.published += [rsa_key().private_jwk]
    for _ in range(2):
        assert not await has(keys, rsa_key())
        clock.advance(PAUSE_S)
    assert [record.message for record in caplog.records] == ["1 key(s) of the issuer are not used"]


def page(document: object, **given: object) -> Page:
    return Page(json.dumps(document).encode(), **given)  # type: ignore[arg-type]


BROKEN: dict[str, tuple[dict[str, Page], str]] = {
    "no discovery": ({DISCOVERY: Page(b"", 404)}, "status 404"),
    "a failing issuer": ({KEYS: Page(b"", 500)}, "key set cannot be read: it answers with status 500"),
    "no JSON": ({DISCOVERY: Page(b"<html>")}, "discovery names nothing"),
    "no object": ({DISCOVERY: page([])}, "discovery names nothing"),
    "deep": ({DISCOVERY: Page(b"[" * 100_000)}, "discovery names nothing"),
    "no key set": ({KEYS: page({})}, "cannot be used: it has no list"),
    "endless discovery": ({DISCOVERY: Page(b" " * (MAX_ANSWER + 1))}, "more than 262144 bytes"),
    "endless keys": ({KEYS: Page(b" " * (MAX_ANSWER + 1))}, "more than 262144 bytes"),
    "discovery elsewhere": ({DISCOVERY: Page(b"", 302, {"Location": "/other"})}, "status 302"),
    "keys elsewhere": ({KEYS: Page(b"", 301, {"Location": "/other"})}, "status 301"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_an_issuer_should_not_answer_is_not_taken(keys: KnownKeys, issuer: FakeIssuer, name: str) -> None:
    pages, told = BROKEN[name]
    issuer.pages = {"/other": page({"keys": [ec_key().jwk]}), **pages}
    with pytest.raises(IssuerUnavailableError, match=told):
        await has(keys, ec_key())
    assert "/other" not in issuer.asked


@pytest.mark.parametrize("change", ["/", "x", None])
async def test_a_discovery_of_another_issuer_is_not_taken(
    keys: KnownKeys, issuer: FakeIssuer, change: str | None
) -> None:
    named = None if change is None else issuer.url + change
    issuer.pages[DISCOVERY] = page({"issuer": named, "jwks_uri": issuer.url + KEYS})
    with pytest.raises(IssuerUnavailableError, match="of another issuer"):
        await has(keys, ec_key())
    assert issuer.asked == [DISCOVERY]


@pytest.mark.parametrize(
    "uri", ["http://example.com/keys", "file:///etc/passwd", "ftp://127.0.0.1/", "https://a:b@127.0.0.1/", "//x", ""]
)
async def test_a_key_set_is_read_over_https_or_from_this_machine(keys: KnownKeys, issuer: FakeIssuer, uri: str) -> None:
    issuer.pages[DISCOVERY] = page({"issuer": issuer.url, "jwks_uri": uri})
    with pytest.raises(IssuerUnavailableError, match="a jwks_uri that is not read"):
        await has(keys, ec_key())


async def test_an_issuer_elsewhere_does_not_have_this_machine_read_itself(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"issuer": "https://id.example.com", "jwks_uri": issuer.url + KEYS}
    monkeypatch.setattr(issuer_keys, "_document", lambda *given: json.dumps(document).encode())
    with pytest.raises(IssuerUnavailableError, match="http:// is for this machine alone"):
        address = issuer_keys.IssuerAddress("https://id.example.com", None, ("RS256",))
        issuer_keys.fetch_keys(address, time.monotonic() + 1)


async def test_an_issuer_that_answers_late_is_not_waited_for(
    keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.delay_s = 0.4
    with monkeypatch.context() as patched, pytest.raises(IssuerUnavailableError, match="discovery cannot be read"):
        patched.setattr(issuer_keys, "TIMEOUT_S", 0.1)
        await has(keys, ec_key())
    issuer.delay_s = 0
    clock.advance(PAUSE_S)
    assert await has(keys, ec_key())


async def test_a_resolver_that_hangs_costs_one_thread_and_no_more(
    keys: KnownKeys, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def hangs(*given: object) -> None:
        go_on.wait(5)
        raise IssuerUnavailableError

    monkeypatch.setattr(issuer_keys, "TIMEOUT_S", -0.4)
    monkeypatch.setattr(issuer_keys, "fetch_keys", hangs)
    before = threading.active_count()
    for told in ("does not answer", "still being asked", "still being asked"):
        with pytest.raises(IssuerUnavailableError, match=told):
            await has(keys, ec_key())
        clock.advance(PAUSE_S)
        assert threading.active_count() == before + 1
    go_on.set()
    await until(lambda: threading.active_count() == before)


async def test_who_leaves_before_the_keys_are_read_leaves_nothing_unsure(
    keys: KnownKeys, issuer: FakeIssuer, clock: FakeClock
) -> None:
    issuer.delay_s = 0.05
    leaving = asyncio.create_task(has(keys, ec_key()))
    await until(lambda: len(keys._flights) == 1)
    await asyncio.sleep(0.01)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    with pytest.raises(IssuerUnavailableError, match="have not been read"):
        await has(keys, ec_key())
    await until(lambda: not keys._is_reading)
    clock.advance(PAUSE_S)
    assert await has(keys, ec_key())


async def test_a_system_without_threads_asks_no_issuer(keys: KnownKeys, clock: FakeClock) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(IssuerUnavailableError, match="no thread"):
            await has(keys, ec_key())
    clock.advance(PAUSE_S)
    assert await has(keys, ec_key())
