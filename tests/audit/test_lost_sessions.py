"""Sessions whose rows somebody removed or changed: their own first entries tell of them as well."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keystead.manager.manager import KeyManager
from tests.audit.places import Place, checked, kinds, options, seal


async def rejected(km: KeyManager) -> list[str]:
    """Seal what waits, and return why entries were rejected."""
    await seal(km)
    return [record.rejected for record in await km.audit.entries() if record.rejected is not None]


def removed(place: Place) -> None:
    place.execute("DELETE FROM audit_sessions")


def altered(place: Place) -> None:
    for session, wrapped in place.execute("SELECT id, wrapped_key FROM audit_sessions"):
        other = bytes(wrapped)[:-1] + bytes([wrapped[-1] ^ 1])
        place.execute("UPDATE audit_sessions SET wrapped_key = ? WHERE id = ?", other, session)


def of_another_time(place: Place) -> None:
    place.execute("UPDATE audit_sessions SET begun_ms = begun_ms - 999999999")


def of_another_node(place: Place) -> None:
    place.execute("UPDATE audit_sessions SET node = 'elsewhere'")


def without_a_key(place: Place) -> None:
    place.execute("UPDATE audit_sessions SET wrapped_key = ?", b"x" * 100)


Attack = Callable[[Place], None]
each_attack = pytest.mark.parametrize(
    "attack", [removed, altered, of_another_time, of_another_node, without_a_key], ids=lambda each: each.__name__
)


@each_attack
async def test_entries_are_taken_whose_session_is_told_of_by_its_first_one_that_waits(
    place: Place, attack: Attack
) -> None:
    async with place.open(audit=options()) as gone:
        await gone.audit.record("order.paid", number=1)
        attack(place)
        async with place.open(audit=options()) as km:
            report = await km.audit.verify()
            assert (report.valid, report.unchecked) == (True, 0)
            assert await rejected(km) == []
            assert len(await km.audit.entries(action="order.paid")) == 1


@each_attack
async def test_entries_are_taken_whose_session_is_told_of_by_its_first_one_in_the_log(
    place: Place, attack: Attack
) -> None:
    async with place.open(audit=options()) as gone:
        async with place.open(audit=options()) as km:
            await seal(km)
        await gone.audit.record("order.paid", number=1)
        attack(place)
        async with place.open(audit=options()) as km:
            assert await rejected(km) == []
            assert len(await km.audit.entries(action="order.paid")) == 1
            assert (await km.audit.verify()).valid


async def test_what_others_tell_of_a_session_before_it_does_is_passed_over(sqlite_place: Place) -> None:
    async with sqlite_place.open(audit=options()) as gone:
        await gone.audit.record("order.paid", number=1)
        [[session]] = sqlite_place.execute("SELECT session FROM audit_entries WHERE instr(entry, 'order.paid')")
        [[first]] = sqlite_place.execute(
            "SELECT entry FROM audit_entries WHERE session = ? ORDER BY id LIMIT 1", session
        )
        removed(sqlite_place)
        for number in range(3):
            forged = bytes(first).replace(b'"begun":1', b'"begun":2')
            sqlite_place.insert(number.to_bytes(16), session, forged, bytes(32))
        async with sqlite_place.open(audit=options()) as km:
            assert await rejected(km) == ["code"] * 3
            assert len(await km.audit.entries(action="order.paid")) == 1


async def test_a_session_that_nothing_tells_of_makes_no_entry_authentic(place: Place) -> None:
    async with place.open(audit=options()) as gone:
        await gone.audit.record("order.paid", number=1)
        session = place.execute("SELECT session FROM audit_entries ORDER BY id DESC LIMIT 1")[0][0]
        removed(place)
        first = place.execute("SELECT id FROM audit_entries WHERE session = ? ORDER BY id LIMIT 1", session)[0][0]
        place.execute("DELETE FROM audit_entries WHERE id = ?", first)
        async with place.open(audit=options()) as km:
            assert set(await rejected(km)) == {"session"}
        await gone.audit.record("order.paid", number=2)
    assert "inserted" in kinds(await checked(place))
