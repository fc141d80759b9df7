"""A pair that decrypted a moment ago is not looked up again, and yet what became of it elsewhere holds at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from keystead.devices.assembly import Devices
from keystead.devices.client_keys import ClientKeys
from keystead.devices.operations import Reason as Failure
from keystead.devices.pairs import OpenKey
from keystead.devices.secrets import Reason, Verdict
from keystead.model import SecretBytes
from keystead.ports import ClientKeyRecord
from tests.audit.places import Place, an_empty_place, options
from tests.devices.room import ADA, CODE, DAY, Client, devices, later
from tests.fakes.clock import FakeClock

SECRET: Final = "correct horse"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store with its schema."""
    return an_empty_place(request, tmp_path)


@asynccontextmanager
async def two_nodes(place: Place) -> AsyncIterator[tuple[Client, Devices]]:
    """Give a user's device on one node, which has verified a secret there, and another node."""
    async with place.open(audit=options()) as km, place.open(audit=options()) as elsewhere:
        ada, other = await Client.of(await devices(km)), await devices(elsewhere)
        await ada.set(SECRET)
        assert await ada.is_right(SECRET)
        yield ada, other


async def failures(place: Place) -> int:
    [(counted, cleared)] = place.execute("SELECT counted, cleared FROM user_credentials")
    return int(counted - cleared)


async def test_it_is_looked_up_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    look = ClientKeys.find_for

    async def looked(*given: object) -> tuple[ClientKeyRecord, bool]:
        asked.append("a pair")
        return await look(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(ClientKeys, "find_for", looked)
    async with two_nodes(place) as (ada, other):
        asked.clear()
        assert [await ada.is_right(secret) for secret in (SECRET, "another", SECRET)] == [True, False, True]
        assert asked == []
        assert await ada.on(other).is_right(SECRET)
        assert asked == ["a pair"]


ELSEWHERE: Final[dict[str, tuple[Callable[[Devices], Awaitable[object]], Reason]]] = {
    "revoked": (lambda room: room.owners.revoke(ADA, "phone"), Reason.KEY_EXPIRED),
    "forgotten": (lambda room: room.owners.forget(ADA, "ada"), Reason.DECRYPTION_FAILED),
}


@pytest.mark.parametrize(("change", "reason"), ELSEWHERE.values(), ids=list(ELSEWHERE))
async def test_what_is_done_to_it_on_another_node_holds_from_then_on(
    place: Place, change: Callable[[Devices], Awaitable[object]], reason: Reason
) -> None:
    async with two_nodes(place) as (ada, other):
        await change(other)
        before = place.execute("SELECT counted FROM user_credentials")
        assert await ada.verify(SECRET) == Verdict(reason)
        assert place.execute("SELECT counted FROM user_credentials") == before


async def test_a_ciphertext_that_succeeded_on_another_node_is_a_replay_and_no_guess(place: Place) -> None:
    async with two_nodes(place) as (ada, other):
        sent = ada.sealed(SECRET)
        assert (await other.secrets.verify(ADA, CODE, sent)).is_right
        assert await ada.room.secrets.verify(ADA, CODE, sent) == Verdict(Reason.REPLAYED)
        assert await failures(place) == 0
        assert [each.reason for each in ada.room.metrics._noted if each.reason] == [Failure.REPLAYED]


async def test_what_is_wrong_with_it_costs_one_decryption(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    decrypted: list[str] = []
    open_ = OpenKey.open

    def opened(key: OpenKey, *given: Any) -> SecretBytes:
        decrypted.append("a ciphertext")
        return open_(key, *given)

    monkeypatch.setattr(OpenKey, "open", opened)
    async with two_nodes(place) as (ada, other):
        sent = ada.sealed(SECRET)
        assert (await other.secrets.verify(ADA, CODE, sent)).is_right
        for replay in (True, False):
            decrypted.clear()
            given = sent if replay else ada.sealed(SECRET)
            assert not (await ada.room.secrets.verify(ADA, CODE, given)).is_right
            assert len(decrypted) == 1
            await other.owners.revoke(ADA, "phone")


async def test_one_that_has_expired_meanwhile_is_refused(place: Place, clock: FakeClock) -> None:
    async with place.open(audit=options(), clock=clock) as km:
        ada = await Client.of(await devices(km))
        await ada.set(SECRET)
        assert await ada.is_right(SECRET)
        await later(km, clock, 40 * DAY + timedelta(seconds=1))
        assert await ada.verify(SECRET) == Verdict(Reason.KEY_EXPIRED)


async def test_a_locked_secret_is_told_as_such(place: Place) -> None:
    async with two_nodes(place) as (ada, _):
        assert [(await ada.verify("another")).reason for _ in range(6)] == [Reason.WRONG] * 5 + [Reason.LOCKED]
        assert (await ada.verify(SECRET)).reason is Reason.LOCKED
