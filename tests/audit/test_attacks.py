"""What somebody with the whole database, and no key, can do to the trail: nothing that is not found."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from keystead.ledger.audit.trail import Told
from keystead.ports import AuditEvent
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores.schema import migrate
from tests.audit.places import OTHER_KEK, Place, auditing_of, checked, kinds, options, seal


async def written(place: Place, events: int = 12) -> bytes:
    """Write and seal some events, and return a checkpoint of them."""
    async with place.open(audit=options()) as km:
        for number in range(events):
            await km.audit.record("order.paid", number=number)
        await seal(km)
        return await km.audit.checkpoint()


def of_events(place: Place) -> list[int]:
    """Return the numbers of the records of the events."""
    return [row[0] for row in place.execute("SELECT seq FROM audit_log WHERE action = 'order.paid' ORDER BY seq")]


async def test_an_untouched_trail_is_valid(place: Place) -> None:
    kept = await written(place)
    report = await checked(place, since=kept, compares_store=True)
    assert (report.valid, report.differences, report.unchecked) == (True, [], 0)
    assert report.entries > 12


def altered(place: Place, seqs: list[int]) -> None:
    replaced = (
        "CAST(replace(CAST(line AS TEXT), 'order.paid', 'order.sold') AS BLOB)"
        if place.is_sqlite
        else "convert_to(replace(convert_from(line, 'UTF8'), 'order.paid', 'order.sold'), 'UTF8')"
    )
    place.tamper(f"UPDATE audit_log SET line = {replaced} WHERE seq = {seqs[3]}")


def deleted(place: Place, seqs: list[int]) -> None:
    place.tamper(f"DELETE FROM audit_log WHERE seq = {seqs[3]}")


def closed_up(place: Place, seqs: list[int]) -> None:
    last = place.execute("SELECT max(seq) FROM audit_log")[0][0]
    place.tamper(
        f"DELETE FROM audit_log WHERE seq = {seqs[3]}",
        *(f"UPDATE audit_log SET seq = {at - 1} WHERE seq = {at}" for at in range(seqs[3] + 1, last + 1)),
    )


def reordered(place: Place, seqs: list[int]) -> None:
    place.tamper(
        f"UPDATE audit_log SET seq = -1 WHERE seq = {seqs[3]}",
        f"UPDATE audit_log SET seq = {seqs[3]} WHERE seq = {seqs[4]}",
        f"UPDATE audit_log SET seq = {seqs[4]} WHERE seq = -1",
    )


def duplicated(place: Place, seqs: list[int]) -> None:
    last = place.execute("SELECT max(seq) FROM audit_log")[0][0]
    place.tamper(f"INSERT INTO audit_log (seq, line) SELECT {last + 1}, line FROM audit_log WHERE seq = {seqs[3]}")


def first_file_gone(place: Place, seqs: list[int]) -> None:
    place.tamper(f"DELETE FROM audit_log WHERE seq <= {seqs[3]}")


def listed_as_another(place: Place, seqs: list[int]) -> None:
    place.tamper(f"UPDATE audit_log SET action = 'order.lost' WHERE seq = {seqs[3]}")


def hidden_by_key(place: Place, seqs: list[int]) -> None:
    place.tamper("UPDATE audit_log SET key_id = 1 WHERE key_id IS NOT NULL")


def tail_gone(place: Place, seqs: list[int]) -> None:
    place.tamper(f"DELETE FROM audit_log WHERE seq > {seqs[5]}")


def state_forged(place: Place, seqs: list[int]) -> None:
    place.tamper("UPDATE audit_state SET size = size - 1")


def state_gone(place: Place, seqs: list[int]) -> None:
    place.tamper("DELETE FROM audit_state")


def all_gone(place: Place, seqs: list[int]) -> None:
    place.tamper("DELETE FROM audit_log", "DELETE FROM audit_entries")


@pytest.mark.parametrize(
    "attack",
    [
        altered,
        deleted,
        closed_up,
        reordered,
        duplicated,
        first_file_gone,
        listed_as_another,
        hidden_by_key,
        tail_gone,
        state_forged,
        state_gone,
    ],
    ids=lambda attack: attack.__name__,
)
async def test_what_is_done_to_the_tables_is_found(place: Place, attack: Callable[[Place, list[int]], None]) -> None:
    await written(place)
    attack(place, of_events(place))
    async with place.open(audit=None) as km:
        report = await km.audit.verify()
    assert not report.valid


async def test_an_emptied_trail_is_no_valid_one(place: Place) -> None:
    kept = await written(place)
    all_gone(place, [])
    assert not (await checked(place)).valid
    place.tamper("DELETE FROM audit_state", "DELETE FROM audit_log", "DELETE FROM audit_entries")
    async with place.open(audit=None) as km:
        await seal(km)
        assert (await km.audit.entries(limit=1))[0].action == "audit.session"
        report = await km.audit.verify(since=kept)
    assert "replaced" in kinds(report)


async def test_a_cut_end_is_found_by_a_kept_checkpoint_even_where_the_state_is_put_back_with_it(place: Place) -> None:
    await written(place)
    earlier = place.kept()
    kept = await written(place)
    place.tamper()
    place.put_back(earlier)
    async with place.open(audit=None) as km:
        report = await km.audit.verify(since=kept)
        assert "rolled_back" in kinds(report)
        # Nothing else could tell: what is there is what once was.
        assert [error for error in (await km.audit.verify()).log.errors if error.file == "audit_log"] == []


async def test_a_session_that_was_rolled_back_while_it_went_on_is_missed(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        earlier = place.kept()
        await km.audit.record("order.paid", number=1)
        await seal(km)
        place.tamper()
        place.put_back(earlier)
        await km.audit.record("order.paid", number=2)
        await seal(km)
        report = await km.audit.verify()
    assert kinds(report) == {"missing"}
    assert "and not here" in report.log.errors[0].message


async def test_an_entry_that_was_deleted_before_it_was_sealed_is_missed(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid", number=1)
        last = place.execute("SELECT id FROM audit_entries ORDER BY id DESC LIMIT 1")[0][0]
        place.execute("DELETE FROM audit_entries WHERE id = ?", last)
        assert (await km.audit.verify()).log.records_checked == 0
        await km.audit.record("order.paid", number=2)
        await seal(km)
        report = await km.audit.verify()
    assert kinds(report) == {"missing"}


async def test_a_forged_entry_is_sealed_as_a_rejection(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async with place.open(audit=options()) as km:
        [(_, session, entry, code)] = place.execute("SELECT * FROM audit_entries ORDER BY id LIMIT 1")
        place.insert(secrets.token_bytes(16), session, entry, bytes(32))
        place.insert(secrets.token_bytes(16), "0" * 32, entry, code)
        place.insert(secrets.token_bytes(16), session, entry, code)
        await seal(km)
        found = [record.rejected for record in await km.audit.entries(action="audit.rejected")]
        assert sorted(filter(None, found)) == ["code", "malformed", "session"]
        assert caplog.text.count("not authentic") == 3
        assert (await km.audit.status()).rejected == 3
        report = await km.audit.verify()
    assert kinds(report) == {"inserted"}
    assert len(report.outstanding.records) == report.log.findings == 3


async def test_an_entry_that_was_altered_while_it_waited_is_rejected_and_missed(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid", number=1)
        [(last, entry)] = place.execute("SELECT id, entry FROM audit_entries ORDER BY id DESC LIMIT 1")
        place.execute("UPDATE audit_entries SET entry = ? WHERE id = ?", bytes(entry).replace(b"paid", b"sold"), last)
        await km.audit.record("order.paid", number=2)
        await seal(km)
        report = await km.audit.verify()
    assert kinds(report) == {"inserted", "missing"}


async def test_a_replayed_entry_is_rejected(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid", number=1)
        waiting = place.execute("SELECT * FROM audit_entries")
        await seal(km)
        for row in waiting:
            place.insert(*row)
        await seal(km)
        found = {record.rejected for record in await km.audit.entries(action="audit.rejected")}
        assert found == {"duplicate"}
        assert place.waiting() == 0
        assert len(await km.audit.entries(action="order.paid")) == 1


async def test_a_replayed_entry_is_found_even_where_the_table_was_made_to_take_it(place: Place) -> None:
    async with place.open(audit=options()) as km:
        await km.audit.record("order.paid", number=1)
        waiting = place.execute("SELECT * FROM audit_entries")
        await seal(km)
        place.tamper("UPDATE audit_log SET entry_id = NULL")
        for row in waiting:
            place.insert(*row)
        await seal(km)
        report = await km.audit.verify()
    assert "duplicated" in kinds(report)


async def test_an_entry_behind_the_end_of_its_session_is_found(place: Place) -> None:
    async with place.open(audit=options()) as km:
        session = auditing_of(km).trail._session
        assert session is not None
        trail = auditing_of(km).trail
        await km.audit.record("order.paid")
    # Whoever has taken the key of a session may still use it.
    [late], _ = trail._draw_in(session, [Told(AuditEvent("order.paid"), None)])
    place.insert_entry(late)
    report = await checked(place)
    assert kinds(report) == {"inserted"}
    assert "of a session that had ended" in report.log.errors[0].message


async def test_a_state_that_was_rolled_back_alone_costs_no_record(place: Place) -> None:
    await written(place)
    earlier = place.execute("SELECT * FROM audit_state")
    before = place.lines()
    await written(place)
    place.execute("DELETE FROM audit_state")
    place.execute(f"INSERT INTO audit_state VALUES ({', '.join('?' for _ in earlier[0])})", *earlier[0])
    kept = await written(place)
    assert place.lines()[: len(before)] == before
    async with place.open(audit=None) as km:
        await seal(km)
        assert [record.details["found"] for record in await km.audit.entries(action="audit.state")] == ["behind"]
        assert kinds(await km.audit.verify(since=kept)) == {"rolled_back"}


async def test_a_state_that_was_removed_is_made_from_the_records_and_told(place: Place) -> None:
    await written(place)
    place.execute("DELETE FROM audit_state")
    kept = await written(place)
    async with place.open(audit=None) as km:
        await seal(km)
        assert [record.details["found"] for record in await km.audit.entries(action="audit.state")] == ["altered"]
        assert kinds(await km.audit.verify(since=kept)) == {"modified"}


async def test_a_tail_that_was_cut_while_nobody_sealed_stays_a_gap(place: Place) -> None:
    await written(place)
    tail_gone(place, of_events(place))
    await written(place)
    async with place.open(audit=None) as km:
        report = await km.audit.verify()
        assert "missing" in kinds(report)
        assert [record.details["found"] for record in await km.audit.entries(action="audit.state")] == ["ahead"]


async def test_the_trail_of_another_store_is_not_taken_for_this_one(place: Place, tmp_path: Path) -> None:
    await written(place)
    url = f"sqlite:///{tmp_path}/other.db"
    migrate(url)
    other = Place(url)
    await written(other)
    if place.is_sqlite:
        place.tamper()
        place.put_back(other.kept())
        report = await checked(place)
        assert "untrusted" in kinds(report)
        assert not report.valid


async def test_the_trail_of_a_store_of_another_kek_is_not_taken_for_this_one(
    sqlite_place: Place, tmp_path: Path
) -> None:
    await written(sqlite_place)
    url = f"sqlite:///{tmp_path}/other.db"
    migrate(url)
    other = Place(url)
    providers = {"local": LocalKMSProvider(LocalKMSConfig(master_key=OTHER_KEK))}
    async with other.open(providers=providers) as km:
        await km.audit.record("order.paid", number=1)
        await seal(km)
    state = sqlite_place.execute("SELECT * FROM audit_state")
    sqlite_place.tamper()
    sqlite_place.put_back({**other.kept(), "audit_state": state})
    assert "replaced" in kinds(await checked(sqlite_place))
