"""Whether a store is audited is not for whoever writes its database to say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import ConfigurationError
from keystead.ledger.audit.beginning import settling, write_keys
from keystead.ledger.audit.entries import split_payload
from keystead.ledger.format.records import parse_line
from keystead.stores.audit_rows import AuditRows
from tests.audit.marks import Setting, acknowledged, found, state_of, takes_part
from tests.audit.places import Place, auditing_of, checked, kinds, options, seal
from tests.audit.test_failures import OwnTrail
from tests.fakes.world import polled

UNMARKED = "the store was not marked as audited"
TABLES = ("audit_entries", "audit_sessions", "audit_log", "audit_state")


async def test_a_process_takes_part_although_the_mark_was_taken_off_and_says_so(setting: Setting) -> None:
    await setting.begin()
    setting.unmark()
    async with setting.open() as km:
        assert takes_part(km)
        assert setting.is_marked
        await km.rotate_data_key()
        await seal(km)
        assert len(await km.audit.entries(action="key.rotate")) == 2
    setting.mark()
    report = await checked(setting.place, compares_store=True)
    assert [error.message.partition(": ")[2][: len(UNMARKED)] for error in report.log.errors] == [UNMARKED]
    assert report.differences == []


async def test_who_has_looked_into_it_is_not_told_again(alone: Setting) -> None:
    await alone.begin()
    alone.unmark()
    async with alone.open() as km:
        await acknowledged(km)
    report = await checked(alone.place)
    assert report.valid
    assert any(UNMARKED in warning for warning in report.log.warnings)


async def test_a_mark_that_was_taken_off_is_found_before_anything_is_sealed(alone: Setting) -> None:
    await alone.begin()
    alone.unmark()
    async with alone.open() as km:
        report = await km.audit.verify()
    assert UNMARKED in report.log.errors[0].message


async def test_each_time_the_mark_is_taken_off_is_found(alone: Setting) -> None:
    await alone.begin()
    for _ in range(2):
        alone.unmark()
        async with alone.open() as km:
            await seal(km)
    assert len((await checked(alone.place)).log.errors) == 2


@pytest.mark.parametrize("given", [False, OwnTrail()], ids=["audit=False", "a trail of its own"])
async def test_a_store_is_refused_as_audited_although_the_mark_was_taken_off(alone: Setting, given: Any) -> None:
    await alone.begin()
    alone.unmark()
    with pytest.raises(ConfigurationError, match="keeps an audit trail"):
        async with alone.open(audit=given):
            pass


async def test_a_manager_that_ran_before_joins_although_the_mark_was_taken_off_at_once(alone: Setting) -> None:
    async with alone.open() as old:
        await alone.begin()
        alone.unmark()
        await polled(old)
        assert takes_part(old)
        await old.rotate_data_key()
        await seal(old)
        assert len(await old.audit.entries(action="key.rotate")) == 2


async def test_a_manager_with_a_trail_of_its_own_changes_nothing_although_the_mark_was_taken_off_at_once(
    alone: Setting,
) -> None:
    async with alone.open(audit=OwnTrail()) as old:
        await alone.begin()
        alone.unmark()
        await polled(old)
        with pytest.raises(ConfigurationError, match="this manager has one of its own"):
            await old.rotate_data_key()
        alone.mark()
        await alone.end()
        await polled(old)
        await old.rotate_data_key()


def sealed_end(place: Place) -> tuple[bytes, bytes, str]:
    """Return the entry that ended the trail, its code, and its session."""
    [(line,)] = place.execute("SELECT line FROM audit_log WHERE action = 'audit.end'")
    parts = split_payload(parse_line(bytes(line)).payload)
    assert parts is not None
    session = parts[0].partition(b'"session":"')[2][:32].decode()
    return *parts, session


def replayed(place: Place) -> None:
    entry, code, session = sealed_end(place)
    [(entry_id,)] = place.execute("SELECT entry_id FROM audit_log WHERE action = 'audit.end'")
    place.tamper("UPDATE audit_log SET entry_id = NULL")
    place.insert(entry_id, session, entry, code)


def altered(place: Place) -> None:
    entry, code, session = sealed_end(place)
    entry = entry.replace(b'"epoch":', b'"epoch":9')
    entry_id = bytes.fromhex(entry.partition(b'"id":"')[2][:36].decode().replace("-", ""))
    place.insert(entry_id, session, entry, code)


def of_no_session(place: Place) -> None:
    entry, code, _ = sealed_end(place)
    place.insert(bytes(16), "0" * 32, entry, code)


def out_of_the_state(place: Place) -> None:
    place.execute(
        "UPDATE audit_state SET state = CAST(replace(CAST(state AS TEXT), '\"over\":null', '\"over\":99') AS BLOB)"
        if place.is_sqlite
        else "UPDATE audit_state SET state = "
        "convert_to(replace(convert_from(state, 'UTF8'), '\"over\":null', '\"over\":99'), 'UTF8')"
    )


def without_state(place: Place) -> None:
    place.execute("DELETE FROM audit_state")


def without_keyring(place: Place) -> None:
    for table, column in (("data_keys", "keyring"), ("keyrings", "name")):
        place.execute(f"DROP TRIGGER {table}_keep" + ("" if place.is_sqlite else f" ON {table}"))
        place.execute(f"DELETE FROM {table} WHERE {column} = 'keystead.audit'")


@pytest.mark.parametrize(
    "attack",
    [replayed, altered, of_no_session, out_of_the_state, without_state, without_keyring],
    ids=lambda attack: attack.__name__,
)
async def test_no_end_is_made_without_a_key(alone: Setting, attack: Callable[[Place], None]) -> None:
    await alone.begin()
    await alone.end()
    await alone.begin()
    attack(alone.place)
    alone.unmark()
    async with alone.open() as km:
        assert takes_part(km)
        await seal(km)
        assert not (await km.audit.verify()).valid
    assert alone.is_marked


@pytest.mark.parametrize("left", ["audit_state", "audit_log", "keyring"])
async def test_any_trace_of_a_trail_has_processes_take_part(alone: Setting, left: str) -> None:
    await alone.begin()
    alone.place.tamper(*(f"DELETE FROM {table}" for table in TABLES if table != left))
    if left != "keyring":
        without_keyring(alone.place)
    alone.unmark()
    async with alone.open() as km:
        assert takes_part(km)
    assert alone.is_marked


async def test_a_state_of_when_the_trail_was_ended_is_not_believed_beside_later_records(alone: Setting) -> None:
    await alone.begin()
    await alone.end()
    earlier = {"audit_state": alone.place.kept()["audit_state"]}
    await alone.begin()
    alone.place.put_back(earlier)
    alone.unmark()
    async with alone.open() as km:
        assert takes_part(km)
        await seal(km)
        told = {record.details["found"] for record in await km.audit.entries(action="audit.state")}
        assert told == {"unmarked", "behind"}
    # What was believed to have ended it does not do so later either.
    assert state_of(alone.place).is_on


async def test_a_whole_trail_of_when_it_was_ended_is_not_believed_where_it_is_known_to_have_begun_again(
    place: Place, tmp_path: Path
) -> None:
    setting = Setting(place, tmp_path, has_journal=True)
    await setting.begin()
    await setting.end()
    earlier = place.kept()
    await setting.begin()
    place.tamper()
    place.put_back(earlier)
    setting.unmark()
    async with setting.open() as km:
        assert takes_part(km)
        await seal(km)
    # By now it is in the state as well, for processes that know nothing.
    assert state_of(place).is_on
    assert UNMARKED in (await checked(place)).log.errors[0].message


async def test_a_trail_of_which_nothing_is_left_is_missed_where_it_is_known(place: Place, tmp_path: Path) -> None:
    setting = Setting(place, tmp_path, has_journal=True)
    await setting.begin()
    place.tamper(*(f"DELETE FROM {table}" for table in TABLES))
    without_keyring(place)
    setting.unmark()
    async with setting.open() as km:
        await seal(km)
        report = await km.audit.verify()
    assert kinds(report) == {"replaced"}


async def test_a_state_made_from_the_records_is_one_of_a_trail_that_is_kept(alone: Setting) -> None:
    await alone.begin()
    async with alone.open() as km:
        await km.audit.end("moving house")
        await seal(km)
        alone.place.execute("DELETE FROM audit_state")
        await km.audit.record("order.paid")
    assert state_of(alone.place).is_on


async def test_a_store_that_never_kept_a_trail_is_asked_once_and_gets_nothing(
    alone: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with alone.open():
        pass
    asked: list[str] = []
    for name in ("has_audit_trace", "audit_state", "audit_entries", "audit_size"):
        real = getattr(AuditRows, name)

        def counted(self: AuditRows, *given: Any, _name: str = name, _real: Any = real, **named: Any) -> Any:
            asked.append(_name)
            return _real(self, *given, **named)

        monkeypatch.setattr(AuditRows, name, counted)
    async with alone.open() as km:
        await km.rotate_data_key()
    assert asked == ["has_audit_trace"]
    assert alone.place.execute("SELECT name FROM keyrings WHERE name = 'keystead.audit'") == []
    assert not alone.is_marked


async def test_a_trail_that_begins_where_it_had_not_ended_is_a_finding(alone: Setting) -> None:
    async with alone.open(audit=options()) as km:
        trail = auditing_of(km).trail
        async with settling(trail) as written, trail.store.transaction() as work:
            written.extend(await write_keys(trail, work, "audit.begin"))
        waiting = await km.audit.verify()
        await seal(km)
        report = await km.audit.verify()
        await acknowledged(km)
        later = await km.audit.verify()
    what = "the trail begins, and had not ended: what changed between is not in it"
    assert found([error.message for error in waiting.log.errors]) == [what]
    assert found([error.message for error in report.log.errors]) == [what]
    assert (later.valid, f"{what} (acknowledged)" in found(later.log.warnings)) == (True, True)
