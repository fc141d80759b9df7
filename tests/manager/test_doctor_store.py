"""What the doctor finds about a store, and that it changes nothing there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager
from keystead.errors import (
    ForeignSchemaError,
    KMSError,
    SchemaVersionError,
    StorageOperationError,
    StoreUnavailableError,
)
from keystead.lifecycle.surroundings import NoJournal
from keystead.lifecycle.wrapping import row_context
from keystead.manager import admin, backup
from keystead.manager.findings import DoctorReport, Finding, Health
from keystead.model import WRAP_KEYRING, DataKeyState, KeyringPurpose
from keystead.providers.multi.format import Container, Content
from keystead.providers.multi.provider import MultiKMSProvider
from keystead.testing import FakeKMS
from tests.fakes.world import CountingStore, World, polled, session_of
from tests.providers.multi.sets import sealed_with, wrapped_by


def told(report: DoctorReport, check: str) -> Finding:
    [finding] = [each for each in report.findings if (each.about, each.check) == ("store", check)]
    return finding


def statuses(report: DoctorReport) -> dict[str, Health]:
    return {each.check: each.status for each in report.findings if each.about == "store"}


async def test_a_healthy_store_is_well_in_everything_and_stays_as_it_is(world: World, tmp_path: Path) -> None:
    async with world.open(state_dir=tmp_path) as km:
        await backup.note_export(km, backup.read_export(await backup.export_text(km)))
        before = await world.rows()
        report = await km.doctor()
        assert statuses(report) == dict.fromkeys(
            ["reachable", "schema", "restored", "WRAP keys", "exports", "nodes", "index keys", "rotation"], Health.OK
        )
        assert await world.rows() == before


async def test_a_store_that_is_down_is_told_and_the_providers_are_examined_all_the_same(world: World) -> None:
    store = CountingStore(world.store)
    store.failure = StoreUnavailableError("the database cannot be reached")
    km = world.manager(store=store)
    report = await km.doctor()
    assert not report.is_well
    assert told(report, "reachable").detail == "the database cannot be reached"
    assert "start the database" in (told(report, "reachable").cure or "")
    assert statuses(report)["WRAP keys"] is Health.SKIPPED
    assert all(each.status is Health.OK for each in report.findings if each.about == "provider cloud")
    await km.close()


@pytest.mark.parametrize("error", [SchemaVersionError("run `keystead migrate`"), ForeignSchemaError("not ours")])
async def test_another_schema_is_told_as_such(world: World, error: KMSError) -> None:
    store = CountingStore(world.store)
    store.failure = error
    km = world.manager(store=store)
    report = await km.doctor()
    assert (told(report, "reachable").status, told(report, "schema").status) == (Health.OK, Health.FAIL)
    await km.close()


async def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    km = KeyManager({"cloud": FakeKMS()}, default_key_id="kek", store=f"sqlite:///{tmp_path}/keys.db")
    report = await km.doctor()
    assert "keystead init" in (told(report, "reachable").cure or "")
    assert list(tmp_path.iterdir()) == []
    await km.close()


async def test_a_restored_store_says_what_to_do(world: World) -> None:
    async with world.open() as km:
        async with world.store.transaction() as work:
            await work.set_restored(True)
        report = await km.doctor()
    assert told(report, "restored").status is Health.FAIL
    assert "keystead store recover" in (told(report, "restored").cure or "")


async def test_a_wrap_key_of_another_kek_is_named(world: World) -> None:
    async with world.open():
        [row] = await world.rows(WRAP_KEYRING)
    km = world.manager(providers={"cloud": FakeKMS(keys=["billing"], clock=world.clock)})
    report = await km.doctor()
    assert told(report, "WRAP keys").status is Health.FAIL
    assert str(row.id) in told(report, "WRAP keys").detail


async def test_many_wrap_keys_that_do_not_unwrap_are_counted(world: World) -> None:
    async with world.open() as km:
        for _ in range(7):
            await (await session_of(km)).lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")
    km = world.manager(providers={"cloud": FakeKMS(keys=["billing"], clock=world.clock)})
    details = [each.detail for each in (await km.doctor()).findings if each.check == "WRAP keys"]
    assert len(details) == 6
    assert details[-1] == "3 more do not unwrap"


async def test_a_kms_that_is_away_is_the_providers_finding_and_not_the_stores(world: World) -> None:
    async with world.open() as km:
        world.kms.fail_always()
        report = await km.doctor()
    finding = told(report, "WRAP keys")
    assert (finding.status, finding.detail) == (
        Health.SKIPPED,
        "1 could not be asked for (provider_connection): see the providers",
    )


async def test_a_disabled_kek_is_told_at_the_wrap_keys_too(world: World) -> None:
    async with world.open() as km:
        world.kms.disable()
        assert told(await km.doctor(), "WRAP keys").status is Health.FAIL


async def test_an_export_older_than_the_newest_key_is_a_warning(world: World, tmp_path: Path) -> None:
    async with world.open(state_dir=tmp_path) as km:
        assert told(await km.doctor(), "exports").detail == "no export of this store is known here"
        await backup.note_export(km, backup.read_export(await backup.export_text(km)))
        assert told(await km.doctor(), "exports").status is Health.OK
        world.clock.advance(timedelta(days=1))
        await km.rotate_data_key()
        finding = told(await km.doctor(), "exports")
        assert (finding.status, "keystead store export" in (finding.cure or "")) == (Health.WARN, True)
        await backup.note_export(km, backup.read_export(await backup.export_text(km)))
        assert told(await km.doctor(), "exports").status is Health.OK


async def test_without_a_state_folder_nothing_is_known_of_exports(world: World) -> None:
    NoJournal().append("store", exported_at=world.clock.now())
    async with world.open() as km:
        assert told(await km.doctor(), "exports").status is Health.SKIPPED


async def test_a_state_folder_that_cannot_be_read_is_a_warning(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*arguments: object) -> None:
        raise StorageOperationError("the state folder cannot be used")

    async with world.open(state_dir=tmp_path) as km:
        with monkeypatch.context() as patch:
            patch.setattr("keystead.stores.journal.FileJournal.read", unreadable)
            assert told(await km.doctor(), "exports").status is Health.WARN


async def test_an_empty_store_has_nothing_to_export_and_nothing_to_unwrap(world: World, tmp_path: Path) -> None:
    km = world.manager(state_dir=tmp_path)
    report = await km.doctor()
    assert told(report, "exports").detail == "there is no key to export yet"
    assert "none is there yet" in told(report, "WRAP keys").detail


async def test_a_process_that_holds_a_promotion_up_is_told(world: World) -> None:
    async with world.open() as km, world.open() as other:
        await polled(km, other)
        await km.rotate_data_key()
        finding = told(await km.doctor(), "nodes")
        assert (finding.status, "keyring 'default'" in finding.detail) == (Health.WARN, True)
        await polled(other, km)
        assert told(await km.doctor(), "nodes").detail == "2 running processes"


async def test_an_index_key_in_mid_rotation_is_told(world: World) -> None:
    async with world.open() as km:
        async with world.store.transaction() as work:
            [row] = [row for row in await work.keys() if row.purpose is KeyringPurpose.INDEX]
            version = await work.take_version(row.keyring)
            new = replace(row, id=row.id ^ 1, version=version, state=DataKeyState.PRE_ACTIVE, activated_at=None)
            await work.add_key(new)
        finding = told(await km.doctor(), "index keys")
    assert finding.status is Health.WARN
    assert "keystead reencrypt" in (finding.cure or "")


async def test_a_rotation_that_does_not_happen_is_told(world: World) -> None:
    async with world.open() as km:
        world.clock.advance(timedelta(days=80))
        assert told(await km.doctor(), "rotation").status is Health.WARN
        world.clock.advance(timedelta(days=20))
        finding = told(await km.doctor(), "rotation")
    assert (finding.status, "'default' has expired" in finding.detail) == (Health.FAIL, True)


async def test_a_store_that_does_not_answer_ends_at_the_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    km = world.manager()
    monkeypatch.setattr(world.store, "open", hang)
    assert "--timeout" in (told(await km.doctor(deadline_s=0.1), "time").cure or "")


# --- several KEKs


def several(world: World, **keks: FakeKMS) -> dict[str, Any]:
    members = {name: kms.provider() for name, kms in keks.items()}
    key_ids = dict.fromkeys(members, "kek")
    provider = MultiKMSProvider(members, policy="any", key_ids=key_ids, clock=world.clock, patience_s=5.0)
    return {"providers": {"both": provider}, "default_key_id": "default"}


async def test_wraps_that_are_missing_or_of_former_keks_are_told_with_the_cure(world: World) -> None:
    a, b, c = (FakeKMS(clock=world.clock) for _ in range(3))
    b.deny()
    async with world.open(**several(world, a=a, b=b)) as km:
        b.heal()
        finding = told(await km.doctor(), "wraps")
        assert finding.detail == "b: missing in 1 of 1 WRAP key"
        assert finding.cure == "`keystead key rewrap`"
        await admin.rewrap(km, new_wrap_key=False)
        assert told(await km.doctor(), "wraps").detail == "every KEK opens each WRAP key"
    async with world.open(**several(world, b=b, c=c)) as km:
        details = {
            each.detail for each in (await km.doctor()).findings if (each.about, each.check) == ("store", "wraps")
        }
    assert details == {"a: unconfigured in 1 of 1 WRAP key", "c: missing in 1 of 1 WRAP key"}


async def test_a_kek_that_is_away_is_told_apart_from_one_that_refuses(world: World) -> None:
    a, b = FakeKMS(clock=world.clock), FakeKMS(clock=world.clock)
    async with world.open(**several(world, a=a, b=b)) as km:
        b.fail_always()
        finding = told(await km.doctor(), "wraps")
        assert (finding.status, finding.detail) == (Health.SKIPPED, "b: could not be asked for 1 of 1 WRAP key")


async def test_a_key_slipped_in_by_who_holds_one_kek_is_found(world: World) -> None:
    a, b = FakeKMS(clock=world.clock), FakeKMS(clock=world.clock)
    mine = bytes(range(32))
    async with world.open(**several(world, a=a, b=b)) as km:
        session = await session_of(km)
        [row] = await world.rows(WRAP_KEYRING)
        context = row_context(session.live.store_id, row)
        content = Content.of(mine, bytes(32))
        slipped = await wrapped_by(a, "a", mine, context, content.commitment)
        wraps = {**Container.parse(row.wrapped_key or b"").by_name(), "a": slipped}
        forged = sealed_with(content, wraps, context)
        async with world.store.transaction() as work:
            await work.change_key(row.id, row.state, wrapped_key=forged.to_bytes(), kek_version=forged.key_version)
        report = await km.doctor()
    assert not report.is_well
    assert f"WRAP key {row.id}: b refuses its wrap" in told(report, "wraps").detail
    assert "keystead key rewrap" in (told(report, "wraps").cure or "")
