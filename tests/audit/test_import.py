"""What becomes of the trail when a store is exported, and imported elsewhere."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from keystead.errors import ConfigurationError
from keystead.lifecycle import portable
from keystead.lifecycle.portable import StoreExport
from keystead.manager import backup
from keystead.manager.manager import KeyManager
from tests.audit.places import auditing_of, kinds
from tests.audit.worlds import actions
from tests.fakes.world import World, copied, polled, put_back, raw


async def exported(km: KeyManager) -> StoreExport:
    return backup.read_export(await backup.export_text(km))


async def imported(world: World, export: StoreExport) -> World:
    """Return another database, of the same KMS, that an export was imported into."""
    other = World(world.clock)
    other.kms = world.kms
    await backup.import_export(other.manager(), export)
    return other


async def test_an_imported_store_keeps_a_trail_as_the_exported_one_did(world: World) -> None:
    async with world.open(audit=True) as km:
        await km.rotate_data_key()
        export = await exported(km)
    assert export.state.audited
    other = await imported(world, export)
    async with other.open() as km:
        assert auditing_of(km).trail.is_on
        assert "audit.begin" in await actions(other)
        await km.audit.sequenced()
        [begun] = await km.audit.entries(action="audit.begin")
        assert begun.details["restored"] is True
        await backup.recover(km)
        await km.audit.sequenced()
        report = await km.audit.verify(compares_store=True)
        assert (report.valid, report.differences) == (True, [])
    # Once begun it goes on, and does not begin again.
    async with other.open() as km:
        await km.audit.sequenced()
        assert len(await km.audit.entries(action="audit.begin")) == 1
        assert (await km.audit.verify(compares_store=True)).valid


async def test_an_imported_store_refuses_a_manager_that_would_change_it_without_a_word(world: World) -> None:
    async with world.open(audit=True) as km:
        other = await imported(world, await exported(km))
    with pytest.raises(ConfigurationError, match="keeps an audit trail"):
        async with other.open(audit=False):
            pass


async def test_a_trail_of_an_import_has_another_name(world: World) -> None:
    async with world.open(audit=True) as km:
        before = (await km.audit.status()).stream
        other = await imported(world, await exported(km))
    async with other.open() as km:
        assert (await km.audit.status()).stream != before


async def ended(km: KeyManager) -> None:
    await km.audit.end("moving house")
    await km.audit.sequenced()


async def ending(km: KeyManager) -> None:
    await km.audit.end("moving house")


async def never_begun(km: KeyManager) -> None:
    """Keep no trail at all."""


@pytest.mark.parametrize("ends", [ended, ending, never_begun])
async def test_a_store_without_a_trail_is_imported_as_one(
    world: World, ends: Callable[[KeyManager], Awaitable[None]]
) -> None:
    async with world.open(audit=True if ends is not never_begun else None) as km:
        await ends(km)
        export = await exported(km)
    assert not export.state.audited
    other = await imported(world, export)
    for given in (None, False):
        async with other.open(audit=given) as km:
            assert not (await km.audit.status()).is_on
            assert not auditing_of(km).trail.is_on
    async with other.open() as km:
        await backup.recover(km)
        await km.audit.begin()
        await km.audit.sequenced()
        report = await km.audit.verify(compares_store=True)
        assert (report.valid, report.differences) == (True, [])


async def test_an_export_says_that_a_trail_is_kept_although_the_mark_was_taken_off(world: World) -> None:
    async with world.open(audit=True) as km:
        raw(world.store).execute("UPDATE store_state SET audited = 0")
        assert (await exported(km)).state.audited


async def test_an_export_that_does_not_say_it_was_of_an_audited_store_if_it_has_the_keyring(world: World) -> None:
    def without(text: str) -> StoreExport:
        document = json.loads(text)
        del document["store"]["audited"]
        document["sha256"] = portable._digest(document["store"])
        return portable.parse(json.dumps(document))

    async with world.open() as km:
        assert not without(await backup.export_text(km)).state.audited
        await km.audit.begin()
        assert without(await backup.export_text(km)).state.audited


async def test_a_trail_that_was_removed_is_missed_in_a_store_that_is_made_to_look_imported(world: World) -> None:
    async with world.open(audit=True) as km:
        await km.audit.sequenced()
    database = raw(world.store)
    database.execute("DROP TRIGGER audit_log_fixed")
    for table in ("audit_entries", "audit_sessions", "audit_log", "audit_state"):
        database.execute(f"DELETE FROM {table}")
    database.execute("UPDATE store_state SET restored = 1")
    async with world.open() as km:
        await km.audit.sequenced()
        assert kinds(await km.audit.verify()) == {"replaced"}


async def test_a_backup_of_before_the_trail_waits_for_its_recovery_where_the_trail_is_known(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open(state_dir=tmp_path) as km:
        sealed = km.local_encrypt(b"x")
        taken = copied(world.store)
        await km.audit.begin()
        await km.audit.sequenced()
    put_back(world.store, taken)
    async with world.open(state_dir=tmp_path) as km:
        assert "once it has been recovered" in caplog.text
        assert not auditing_of(km).trail.is_on
        assert km.local_decrypt(sealed) == b"x"
        await backup.recover(km)
        await polled(km)
        assert auditing_of(km).trail.is_on
        await km.audit.sequenced()
        # The trail that is known to have been is not there.
        assert kinds(await km.audit.verify()) == {"replaced"}
