"""Subjects beside what else a store does: rotation, rewrap, exports, several processes, and the blocking door."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from keystead import blocking
from keystead.erasure.following import STALE_S
from keystead.errors import InvalidInputError, KeyInUseError, KeyNotFoundError, KeyStateError, KMSError
from keystead.lifecycle.portable import dump, parse
from keystead.lifecycle.restoration import export_store, import_store
from keystead.manager import admin, backup
from keystead.manager.manager import KeyManager
from keystead.model import SUBJECT_PREFIX
from keystead.ports import ErasureMark
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.stores import open_store
from tests.audit.places import KEK
from tests.audit.places import Place as Database
from tests.erasure.places import Place
from tests.fakes.clock import FakeClock


async def test_of_many_who_ask_at_once_for_a_new_subject_all_get_one_keyring(place: Place) -> None:
    async with place.open() as one, place.open() as two:
        asked = await asyncio.gather(*(km.subject("ada") for km in (one, two) * 8))
        assert len({handle.name for handle in asked}) == 1
        blobs = [handle.local_encrypt(b"x") for handle in asked]
        for handle in asked:
            for blob in blobs:
                assert await handle.decrypt_local(blob) == b"x"
    assert place.database.execute("SELECT count(*) FROM subjects") == [(1,)]


async def test_of_two_who_forget_at_once_one_has_done_it(place: Place) -> None:
    async with place.open() as one, place.open() as two:
        for name in ("ada", "bob", "cy"):
            await one.subject(name)
        done = await asyncio.gather(
            one.forget("ada"), two.forget("ada"), one.forget("bob"), two.forget("cy"), return_exceptions=True
        )
        failed = [each for each in done if isinstance(each, BaseException)]
        assert [type(each) for each in failed] == [KeyNotFoundError]
    assert len(place.lines()) == 4


async def test_keys_of_subjects_are_rewrapped_and_do_not_age(place: Place) -> None:
    clock = FakeClock()
    async with place.open(clock=clock) as km:
        handle = await km.subject("ada")
        blob = handle.local_encrypt(b"x")
        clock.advance(400 * 86400.0)
        report = await km.perform_maintenance()
        assert report.failures == {}
        assert [info.version for info in await handle.versions()] == [1]
        assert await (await km.subject("ada")).decrypt_local(blob) == b"x"


async def test_names_of_subjects_keyrings_are_the_stores_own(place: Place) -> None:
    async with place.open() as km:
        name = (await km.subject("ada")).name
        assert name.startswith(SUBJECT_PREFIX)
        with pytest.raises(InvalidInputError):
            await km.keyring(name)


async def test_keys_that_vouch_for_the_log_are_not_destroyed(place: Place) -> None:
    async with place.open() as km:
        await km.subject("ada")
        old = (await admin.rotate_keyring(km, "keystead.erasures", promote="now", may_prove=True)).version - 1
        [key] = [each for each in await (await km.session()).versions("keystead.erasures") if each.version == old]
        with pytest.raises(KeyInUseError, match="vouches for lines of the log of erasures"):
            await admin.schedule_destroy(km, key.id, wait=timedelta(days=7), without_sources=True)
        await km.subject("bob")
        await km.forget("ada")
    async with place.open() as km:
        assert (await km.subject("bob")).local_encrypt(b"x")


async def test_an_export_has_subjects_and_follows_the_log(place: Place, tmp_path: Path) -> None:
    async with place.open() as km:
        ada, bob = (await km.subject("ada")).local_encrypt(b"a"), (await km.subject("bob")).local_encrypt(b"b")
        text = await backup.export_text(km)
        await km.forget("ada")
    assert [subject.keyring.startswith(SUBJECT_PREFIX) for subject in parse(text).subjects] == [True, True]
    other = Place(Database(f"sqlite:///{tmp_path}/other.db"), place.log)
    store = open_store(other.database.url)
    await import_store(store, parse(text))
    await store.aclose()
    async with other.open(state_dir=tmp_path / "elsewhere") as km:
        await backup.recover(km)
        with pytest.raises(KeyNotFoundError):
            await km.subject("ada", create=False)
        with pytest.raises(KMSError):
            await km.prefetch([ada])
            (await km.session()).live.rings()[-1].local_decrypt(ada)
        assert await (await km.subject("bob", create=False)).decrypt_local(bob) == b"b"


async def test_an_export_without_subjects_is_as_it_was(place: Place) -> None:
    async with place.open(erasures=None) as km:
        document = await export_store((await km.session()).live)
    text = dump(document)
    assert '"version": 1' in text
    assert '"subjects"' not in text
    assert parse(text).erasures is None


async def test_a_mark_of_an_export_is_read_as_it_was_written(place: Place) -> None:
    async with place.open() as km:
        await km.subject("ada")
        document = await export_store((await km.session()).live)
    assert '"version": 2' in dump(document)
    assert parse(dump(document)).erasures == document.erasures
    assert isinstance(document.erasures, ErasureMark)


async def test_an_erasure_waits_for_who_has_not_acknowledged(place: Place) -> None:
    clock = FakeClock()
    async with place.open(clock=clock) as one, place.open(clock=clock) as two:
        await one.subject("ada")
        await two.subject("ada")
        await (await two.session()).become_node()
        began = clock.monotonic()
        receipt = await one.forget("ada")
        assert (receipt.nodes_seen, receipt.nodes_unseen) == (0, 1)
        assert 5.0 <= clock.monotonic() - began < 6.0


async def test_an_erasure_ends_once_everybody_has_acknowledged(place: Place) -> None:
    async with place.open() as one, place.open(background=True, epoch_max_age_s=0.2) as two:
        await one.subject("ada")
        held = await two.subject("ada")
        blob = held.local_encrypt(b"x")
        receipt = await one.forget("ada")
        assert (receipt.nodes_seen, receipt.nodes_unseen) == (1, 0)
        with pytest.raises(KeyStateError):
            held.local_decrypt(blob)


async def test_a_background_task_looks_often_once_a_subject_is_used(place: Place) -> None:
    async with place.open(background=True, epoch_max_age_s=3600.0) as km:
        held = await km.subject("ada")
        blob = held.local_encrypt(b"x")
        await asyncio.sleep(STALE_S + 1.0)
        assert held.local_decrypt(blob) == b"x"


async def test_a_store_in_memory_has_a_log_that_goes_with_it() -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=KEK))
    async with KeyManager({"local": provider}, store="memory://", background=False) as km:
        blob = (await km.subject("ada")).local_encrypt(b"x")
        receipt = await km.forget("ada")
        receipt.verify(await km.receipt_keys())
        assert [each.key_id for each in receipt.keks] == ["default"]
        with pytest.raises(KMSError):
            await km.prefetch([blob])
            (await km.session()).live.rings()[-1].local_decrypt(blob)


def test_the_blocking_door_has_them_too(tmp_path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=KEK))
    store = f"sqlite:///{tmp_path}/keys.db"
    with blocking.KeyManager({"local": provider}, store=store, erasures=tmp_path / "outside" / "log") as km:
        ada = km.subject("ada")
        blob = ada.local_encrypt(b"x")
        assert ada.local_decrypt(blob) == b"x"
        receipt = km.forget("ada")
        receipt.verify(km.receipt_keys())
        with pytest.raises(KMSError):
            ada.local_decrypt(blob)


def test_a_manager_that_goes_on_in_another_loop_rests_and_is_woken_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=KEK))
    km = KeyManager(
        {"local": provider},
        store=f"sqlite:///{tmp_path}/keys.db",
        erasures=tmp_path / "outside" / "log",
        epoch_max_age_s=3600.0,
    )

    async def begin() -> None:
        await km.initialize()
        await asyncio.sleep(0.1)

    async def go_on() -> None:
        session, polls = await km.session(), 0
        poll = session.poll

        async def counted() -> None:
            nonlocal polls
            polls += 1
            await poll()

        with monkeypatch.context() as patch:
            patch.setattr(session, "poll", counted)
            await asyncio.sleep(0.5)
        assert polls <= 1
        held = await km.subject("ada")
        blob = held.local_encrypt(b"x")
        await asyncio.sleep(STALE_S + 1.0)
        assert held.local_decrypt(blob) == b"x"
        await km.close()

    asyncio.run(begin())
    asyncio.run(go_on())


def test_a_thread_that_uses_a_subject_first_wakes_the_task(tmp_path: Path) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=KEK))
    where: dict[str, Any] = {"store": f"sqlite:///{tmp_path}/keys.db", "erasures": tmp_path / "outside" / "log"}
    with blocking.KeyManager({"local": provider}, **where) as km:
        blob = km.subject("ada").local_encrypt(b"x")
    with blocking.KeyManager({"local": provider}, epoch_max_age_s=3600.0, **where) as km:
        time.sleep(0.2)
        km.prefetch([blob])
        held = km.subject("ada")
        time.sleep(STALE_S + 1.0)
        assert held.local_encrypt(b"x")
