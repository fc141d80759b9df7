"""A trail that was ended in order is over, for every process, until one begins it again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from keystead.errors import KMSError, StorageOperationError
from keystead.ledger.audit.mark import Mark, MarkReader
from keystead.manager.audit_mark import AuditMark
from keystead.stores.journal import FileJournal
from tests.audit.marks import Setting, state_of, takes_part
from tests.audit.places import checked, options, seal
from tests.audit.test_failures import OwnTrail, break_entries, mend_entries
from tests.fakes.world import World


async def test_once_ended_the_store_is_none_that_is_audited(setting: Setting) -> None:
    await setting.begin()
    await setting.end()
    assert state_of(setting.place).over is not None
    for given in (None, False, OwnTrail()):
        async with setting.open(audit=given) as km:
            assert not (await km.audit.status()).is_on
            await km.rotate_data_key()
    assert not setting.is_marked
    assert (await checked(setting.place)).valid


async def test_an_end_that_waits_to_be_sealed_is_one(setting: Setting) -> None:
    await setting.begin()
    async with setting.open() as km:
        await km.audit.end("moving house")
        assert not (await km.audit.status()).is_on
        assert state_of(setting.place).over is None
        for given in (None, False, OwnTrail()):
            async with setting.open(audit=given) as other:
                assert not (await other.audit.status()).is_on
    assert (await checked(setting.place)).valid


async def test_a_trail_that_ends_and_begins_again_and_again_is_valid(setting: Setting) -> None:
    await setting.begin()
    for _ in range(2):
        await setting.end()
        async with setting.open() as km:
            assert not takes_part(km)
            await km.rotate_data_key()
            await km.audit.begin()
            assert setting.is_marked
    assert state_of(setting.place).is_on
    report = await checked(setting.place, compares_store=True)
    assert (report.valid, report.log.warnings) == (True, [])


async def test_a_manager_that_ended_the_trail_begins_it_again(setting: Setting) -> None:
    async with setting.open(audit=options()) as km:
        await km.audit.end("for a while")
        await km.audit.begin()
        await km.audit.begin()
        assert setting.is_marked
        await seal(km)
        assert len(await km.audit.entries(action="audit.begin")) == 2
    assert state_of(setting.place).is_on
    assert (await checked(setting.place, compares_store=True)).valid


async def test_an_ended_trail_that_is_marked_again_begins_again(alone: Setting) -> None:
    await alone.begin()
    await alone.end()
    async with alone.open() as km:
        await km.rotate_data_key()
    alone.mark()
    async with alone.open() as km:
        assert takes_part(km)
    report = await checked(alone.place, compares_store=True)
    assert (report.valid, report.differences) == (True, [])


async def test_an_end_that_cannot_be_written_ends_nothing(alone: Setting) -> None:
    async with alone.open(audit=options(on_failure="warn")) as km:
        break_entries(alone.place)
        with pytest.raises(KMSError):
            await km.audit.end("moving house")
        mend_entries(alone.place)
    assert alone.is_marked
    assert (await checked(alone.place)).valid


async def test_processes_that_begin_at_once_begin_one_trail(world: World) -> None:
    managers = [world.manager(audit=True) for _ in range(4)]
    await asyncio.gather(*(km.initialize() for km in managers))
    await managers[0].audit.sequenced()
    assert len(await managers[0].audit.entries(action="audit.begin")) == 1
    assert (await managers[0].audit.verify(compares_store=True)).valid
    for km in managers:
        await km.close()


async def test_a_trail_begins_although_the_store_is_changed_at_that_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, read = MarkReader.read, []

    async def disturbed(self: MarkReader) -> Mark:
        mark = await real(self)
        read.append(mark)
        if len(read) == 1:
            async with world.store.transaction() as work:
                await work.bump_epoch()
        return mark

    monkeypatch.setattr(MarkReader, "read", disturbed)
    async with world.open(audit=True) as km:
        assert len(read) == 2
        await km.audit.sequenced()
        assert len(await km.audit.entries(action="audit.begin")) == 1
        assert (await km.audit.verify(compares_store=True)).valid


async def test_a_trail_that_is_ended_while_a_process_joins_is_not_begun_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open(audit=True) as km:
        real = AuditMark.is_on

        async def meanwhile(self: AuditMark, *, is_set: bool | None = None) -> bool:
            found = await real(self, is_set=is_set)
            monkeypatch.undo()
            await km.audit.end("moving house")
            return found

        monkeypatch.setattr(AuditMark, "is_on", meanwhile)
        async with world.open() as other:
            # As one that ran when it was ended.
            assert takes_part(other)
            assert not (await other.audit.status()).is_on
        await km.audit.sequenced()
        assert len(await km.audit.entries(action="audit.begin")) == 1
        assert (await km.audit.verify()).valid


async def test_a_process_notes_once_outside_the_database_that_a_trail_is_kept(world: World, tmp_path: Path) -> None:
    for _ in range(3):
        async with world.open(audit=True, state_dir=tmp_path):
            pass
    [journal] = tmp_path.glob("*.journal")
    assert journal.read_text().count('"audited":true') == 1


async def test_a_process_that_can_note_nothing_outside_the_database_takes_part_and_says_so(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: FileJournal, *given: object, audited: bool = False, **named: object) -> None:
        if audited:
            raise StorageOperationError("no more notes")

    monkeypatch.setattr(FileJournal, "append", refuse)
    async with world.open(audit=True, state_dir=tmp_path) as km:
        assert takes_part(km)
    assert "the state journal could not be written: storage_operation" in caplog.text
