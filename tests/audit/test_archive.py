"""Records that are moved out of the database, and verified together with those that stay."""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead.errors import CouldNotVerifyError, InvalidInputError, InvalidProofError, StorageOperationError
from keystead.ledger import Verifier
from keystead.manager.audit_files import take
from keystead.manager.manager import KeyManager
from keystead.ports import AuditEvent
from tests.audit.places import Place, auditing_of, kinds, options, seal
from tests.fakes.clock import FakeClock

QUIET = timedelta(days=9)
"""So long after its end every session of a file is over."""


async def days(km: KeyManager, clock: FakeClock, count: int, *, quiet: timedelta = QUIET) -> None:
    """Write some events on each of so many days, begin another day, and let time go by."""
    for day in range(count):
        for number in range(3):
            await km.audit.record("order.paid", day=day, number=number)
        await seal(km)
        clock.advance(timedelta(days=1))
    await km.audit.record("order.paid", day=count, number=0)
    await km.audit.checkpoint()
    clock.advance(quiet)


def insert(place: Place, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert entries, as whoever has the database can."""
    for row in rows:
        place.insert(*row)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where to."""
    return tmp_path / "archive"


async def test_files_that_ended_are_moved_and_verified_together_with_what_stays(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 3)
        before = place.lines()
        taken = await km.audit.archive(folder, before=clock.now() - QUIET - timedelta(hours=12))
        assert [path.name for path in taken.files] == ["audit.log.000001.gz", "audit.log.000002.gz"]
        kept = b"".join(gzip.decompress(path.read_bytes()) for path in taken.files).splitlines()
        assert kept == before[: taken.records]
        assert place.lines()[: len(before) - taken.records] == before[taken.records :]
        whole = await km.audit.verify(archive=folder, compares_store=True)
        assert (whole.valid, whole.differences, whole.log.first) == (True, [], 0)
        assert whole.entries == sum(b'"d":{"entry":' in line for line in [*kept, *place.lines()])


async def test_what_stays_is_verified_alone_and_says_where_the_rest_is(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 2)
        taken = await km.audit.archive(folder, before=clock.now())
        report = await km.audit.verify(compares_store=True)
        assert (report.valid, report.log.first, report.differences) == (True, taken.records, [])


async def test_records_that_somebody_deletes_without_a_word_are_missed(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 2)
        [first] = place.execute("SELECT min(seq) FROM audit_log WHERE kind = 'file' AND seq > 0")
        place.execute("DELETE FROM audit_log WHERE seq < ?", first[0])
        assert not (await km.audit.verify()).valid


async def test_an_archived_file_that_was_altered_or_is_gone_is_found(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 3)
        taken = await km.audit.archive(folder, before=clock.now(), compress=False)
        content = taken.files[1].read_bytes()
        taken.files[1].write_bytes(content.replace(b"order.paid", b"order.sold", 1))
        assert "modified" in kinds(await km.audit.verify(archive=folder))
        taken.files[1].unlink()
        assert not (await km.audit.verify(archive=folder)).valid


async def test_a_second_archive_goes_on_where_the_first_has_ended(place: Place, clock: FakeClock, folder: Path) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 1)
        first = await km.audit.archive(folder, before=clock.now())
        await days(km, clock, 2)
        second = await km.audit.archive(folder, before=clock.now())
        assert not {path.name for path in first.files} & {path.name for path in second.files}
        assert (await km.audit.verify(archive=folder, compares_store=True)).valid
        assert (await km.audit.verify(compares_store=True)).valid


async def test_nothing_is_moved_out_of_a_trail_that_was_changed(place: Place, clock: FakeClock, folder: Path) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 1)
        place.tamper("UPDATE audit_log SET action = 'order.lost' WHERE action = 'order.paid'")
        before = place.lines()
        with pytest.raises(InvalidProofError, match="nothing was moved"):
            await km.audit.archive(folder, before=clock.now())
        assert (place.lines(), folder.exists()) == (before, False)


async def test_a_file_stays_while_a_session_of_it_may_have_entries_to_come(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 2, quiet=timedelta(days=6))
        assert (await km.audit.archive(folder, before=clock.now())).files == []
        clock.advance(timedelta(days=1))
        assert len((await km.audit.archive(folder, before=clock.now())).files) == 1
        clock.advance(timedelta(days=1))
        assert len((await km.audit.archive(folder, before=clock.now())).files) == 1


async def test_a_file_stays_whose_entries_are_of_a_clock_far_ahead_until_that_time_is_over(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    ahead = FakeClock(clock.now() + timedelta(days=5))
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await km.audit.record("order.paid")
        async with place.open(audit=options(), clock=ahead, grace_s=None) as other:
            await other.audit.record("order.paid")
        await days(km, clock, 3)
        assert (await km.audit.archive(folder, before=clock.now())).files == []
        await days(km, clock, 3)
        assert (await km.audit.archive(folder, before=clock.now())).files
        assert (await km.audit.verify()).valid


async def test_a_file_stays_while_entries_of_a_session_of_its_time_wait(
    place: Place, clock: FakeClock, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        late = await auditing_of(km).trail.draw_elsewhere(AuditEvent("order.late"))
        await days(km, clock, 2)
        place.insert_entry(late)
        monkeypatch.setattr(auditing_of(km), "_sequencer", None)
        assert (await km.audit.archive(folder, before=clock.now())).files == []
        monkeypatch.undo()
        await seal(km)
        assert len(await km.audit.entries(action="order.late")) == 1
        assert (await km.audit.archive(folder, before=clock.now())).files


async def test_an_entry_that_was_archived_is_not_sealed_a_second_time(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await km.audit.record("order.paid", number=-1)
        old = place.execute("SELECT * FROM audit_entries")
        await days(km, clock, 1)
        assert (await km.audit.archive(folder, before=clock.now())).files
        insert(place, old)
        await seal(km)
        found = [record.rejected for record in await km.audit.entries(action="audit.rejected")]
        assert found == ["archived"] * len(old)
        assert kinds(await km.audit.verify(archive=folder)) == {"inserted"}
    # Nor by a process that knows of nothing but the state.
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        insert(place, old)
        await seal(km)
        assert len(await km.audit.entries(action="audit.rejected")) == 2 * len(old)


async def test_an_entry_that_was_archived_is_not_sealed_a_second_time_although_the_state_is_gone(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        old = place.execute("SELECT * FROM audit_entries")
        await days(km, clock, 1)
        await km.audit.archive(folder, before=clock.now())
    place.execute("DELETE FROM audit_state")
    insert(place, old)
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await seal(km)
        found = {record.rejected for record in await km.audit.entries(action="audit.rejected")}
        assert found == {"archived"}
        await km.audit.record("order.paid", number=-2)
        await seal(km)
        assert [record.details["number"] for record in await km.audit.entries(action="order.paid")][-1] == -2


async def test_a_late_entry_is_sealed_although_what_was_sealed_with_its_session_was_archived(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 1)
        late = await auditing_of(km).trail.draw_elsewhere(AuditEvent("order.late"))
        await km.audit.record("order.paid", number=-1)
        await seal(km)
        assert (await km.audit.archive(folder, before=clock.now())).files
        clock.advance(timedelta(days=6))
        place.insert_entry(late)
        await seal(km)
        assert len(await km.audit.entries(action="order.late")) == 1
        assert (await km.audit.verify()).valid


async def test_entries_of_a_session_are_missed_although_its_first_one_was_deleted_after_an_archive(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 1)
        await km.audit.archive(folder, before=clock.now())
        assert (await km.audit.verify()).log.first > 0
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await km.audit.record("order.lost")
        place.execute("DELETE FROM audit_entries")
        await km.audit.record("order.paid")
        await seal(km)
        report = await km.audit.verify()
        assert kinds(report) == {"missing"}
        assert report.outstanding.missing
        assert kinds(await km.audit.verify(archive=folder)) == {"missing"}


async def test_a_session_is_missed_of_which_everything_was_deleted_by_the_one_that_follows_it(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 1)
        await km.audit.archive(folder, before=clock.now())
        clock.advance(timedelta(hours=25))
        await km.audit.record("order.lost")
        former = place.execute("SELECT session FROM audit_entries ORDER BY id DESC LIMIT 1")[0][0]
        clock.advance(timedelta(hours=25))
        await km.audit.record("order.paid")
        place.execute("DELETE FROM audit_entries WHERE session = ?", former)
        await seal(km)
        assert kinds(await km.audit.verify()) == {"missing"}


async def test_what_was_acknowledged_is_moved(place: Place, clock: FakeClock, folder: Path) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        place.insert(secrets.token_bytes(16), "0" * 32, b"{}", bytes(32))
        await days(km, clock, 1)
        with pytest.raises(InvalidProofError, match="nothing was moved"):
            await km.audit.archive(folder, before=clock.now())
        await km.audit.acknowledge((await km.audit.verify()).log.size - 1, reason="looked into")
        assert (await km.audit.archive(folder, before=clock.now())).files
        assert (await km.audit.verify(archive=folder)).valid
        assert (await km.audit.verify()).valid


async def test_nothing_is_moved_out_of_a_trail_that_does_not_continue_what_was_kept(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 1)
        earlier = place.kept()
        await km.audit.record("order.paid")
        kept = await km.audit.checkpoint()
    place.tamper()
    place.put_back(earlier)
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        with pytest.raises(InvalidProofError, match="nothing was moved"):
            await km.audit.archive(folder, before=clock.now(), since=kept)


async def test_nothing_that_has_not_ended_is_moved(place: Place, clock: FakeClock, folder: Path) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await km.audit.record("order.paid")
        await seal(km)
        taken = await km.audit.archive(folder, before=clock.now() + timedelta(days=5))
        assert (taken.files, taken.records) == ([], 0)


async def test_a_folder_without_a_trail_is_no_archive(place: Place, tmp_path: Path) -> None:
    async with place.open(audit=options()) as km:
        await seal(km)
        with pytest.raises(InvalidInputError, match="no file of an audit trail"):
            await km.audit.verify(archive=tmp_path)


async def test_what_the_trail_began_with_has_to_be_at_hand_to_compare_the_store(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 2)
        await km.audit.archive(folder, before=clock.now())
        place.execute("DELETE FROM audit_log WHERE action = 'audit.snapshot'")
        with pytest.raises(CouldNotVerifyError, match="--archive"):
            await km.audit.verify(compares_store=True)


async def test_an_export_is_a_log_that_every_reader_of_logs_verifies(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 2)
        policy = await km.audit.trust_policy()
        files = await km.audit.export(folder)
        providers = {"local": next(iter(km.named_providers().values()))}
    assert [path.name for path in files] == ["audit.log.000001", "audit.log.000002", "audit.log"]
    with Verifier(policy, providers) as verifier:
        report = verifier.verify(folder / "audit.log")
    assert (report.valid, report.records_checked) == (True, sum(len(path.read_bytes().splitlines()) for path in files))


TABLES = ("audit_entries", "audit_sessions", "audit_log", "audit_state")


async def archived_trail(place: Place, clock: FakeClock, folder: Path) -> list[Path]:
    """Write some days of a trail, and move them away."""
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 2)
        return (await km.audit.archive(folder, before=clock.now() - QUIET - timedelta(hours=12))).files


@pytest.mark.parametrize("compress", [True, False])
async def test_no_archive_is_written_over_that_of_another_trail(
    place: Place, clock: FakeClock, folder: Path, compress: bool
) -> None:
    files = await archived_trail(place, clock, folder)
    held = {path: path.read_bytes() for path in files}
    place.tamper(*(f"DELETE FROM {table}" for table in TABLES), "UPDATE store_state SET audited = (1 = 0)")
    state_dir = folder.parent / "knows nothing"
    async with place.open(audit=options(), clock=clock, grace_s=None, state_dir=state_dir) as km:
        await days(km, clock, 2)
        before = place.lines()
        with pytest.raises(StorageOperationError, match="was not written over"):
            await km.audit.archive(folder, before=clock.now(), compress=compress)
        assert place.lines()[: len(before)] == before
    assert {path: path.read_bytes() for path in folder.iterdir()} == held


async def test_an_archive_that_was_broken_off_is_made_again_over_its_own_files(
    place: Place, clock: FakeClock, folder: Path
) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 2)
        store, report = auditing_of(km).trail.store, await km.audit.verify()
        begun = await take(store, folder, clock.now(), now=clock.now(), compress=True, report=report)
        taken = await km.audit.archive(folder, before=clock.now())
        assert (taken.files, (await km.audit.verify(archive=folder)).valid) == (begun.files, True)


async def test_a_file_that_is_damaged_is_not_written_over_either(place: Place, clock: FakeClock, folder: Path) -> None:
    folder.mkdir()
    (folder / "audit.log.000001.gz").write_bytes(gzip.compress(b"what was there")[:-9])
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 2)
        with pytest.raises(StorageOperationError, match="was not written over"):
            await km.audit.archive(folder, before=clock.now())


async def test_what_changed_after_it_was_verified_is_not_deleted(place: Place, clock: FakeClock, folder: Path) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 2)
        report = await km.audit.verify()
        [[seq, line]] = place.execute(
            "SELECT seq, line FROM audit_log WHERE action = 'order.paid' ORDER BY seq LIMIT 1"
        )
        place.tamper()
        place.execute("UPDATE audit_log SET line = ? WHERE seq = ?", bytes(line).replace(b"paid", b"lost"), seq)
        with pytest.raises(InvalidProofError, match="nothing was deleted"):
            await take(auditing_of(km).trail.store, folder, clock.now(), now=clock.now(), compress=True, report=report)


async def test_an_export_replaces_only_a_copy_that_it_continues(place: Place, clock: FakeClock, folder: Path) -> None:
    async with place.open(audit=options(), clock=clock, grace_s=None) as km:
        await days(km, clock, 1)
        await km.audit.export(folder)
        await days(km, clock, 1)
        await km.audit.export(folder)
        held = (folder / "audit.log").read_bytes()
        for other in (held[:-3] + b"x\n", held + b"more\n", b"of somebody's\n"):
            (folder / "audit.log").write_bytes(other)
            with pytest.raises(StorageOperationError, match="was not written over"):
                await km.audit.export(folder)
            assert (folder / "audit.log").read_bytes() == other
