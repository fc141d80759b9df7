"""What holds for imported keys whatever is done to them, and for old tables at the store's own URL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from keystead import DataKeyState, KeyManager, LocalKMSConfig, LocalKMSProvider
from keystead.errors import (
    DecryptionError,
    ForeignSchemaError,
    InvalidAlgorithmError,
    InvalidInputError,
    KeyStateError,
    NoActiveKeyError,
)
from keystead.lifecycle.restoration import recover_store
from keystead.stores.schema import migrate
from tests.fakes.clock import FakeClock
from tests.legacy.conftest import KEK
from tests.legacy.sources import PLAINTEXT, VECTORS, VERSION, OldKey, build, rows

TEXT: str = VECTORS["field"]["text"]


@pytest.fixture
async def imported(km: KeyManager, old_db: str, root: Callable[[], bytes]) -> KeyManager:
    build(old_db, "data_keys", [OldKey()])
    await km.import_legacy(old_db, root)
    return km


async def test_imported_keys_never_encrypt(imported: KeyManager) -> None:
    handle = await imported.keyring("legacy", create=False)

    with pytest.raises(NoActiveKeyError):
        handle.local_encrypt(b"new data")


async def test_an_envelope_is_never_opened_under_an_imported_key(imported: KeyManager) -> None:
    handle = await imported.keyring("legacy", create=False)
    blob = bytearray(imported.local_encrypt(b"data"))
    blob[2:10] = (await imported.get_data_key_by_version(VERSION)).id.to_bytes(8, "big")

    with pytest.raises(DecryptionError):
        handle.local_decrypt(bytes(blob))
    with pytest.raises(DecryptionError):
        await imported.decrypt_local(bytes(blob))


async def test_the_keyring_is_never_rotated(imported: KeyManager) -> None:
    handle = await imported.keyring("legacy", create=False)

    with pytest.raises(KeyStateError, match="only decrypt"):
        await handle.rotate()
    assert [info.state for info in await handle.versions()] == [DataKeyState.DECRYPT_ONLY]


async def test_the_keyring_is_not_to_be_had_for_encryption(imported: KeyManager) -> None:
    with pytest.raises(InvalidInputError, match="another name"):
        await imported.keyring("legacy")
    with pytest.raises(InvalidAlgorithmError):
        await imported.keyring("mine", algorithm="AES-256-GCM-LEGACY")


async def test_maintenance_leaves_the_keyring_alone(imported: KeyManager, clock: FakeClock) -> None:
    clock.advance(timedelta(days=400).total_seconds())

    report = await imported.perform_maintenance()

    assert report.failures == {}
    assert (await imported.get_data_key_by_version(VERSION)).state is DataKeyState.DECRYPT_ONLY
    assert await imported.decrypt_legacy(TEXT) == PLAINTEXT


async def test_a_new_wrap_version_takes_imported_keys_along(
    imported: KeyManager, new_manager: Callable[[], KeyManager]
) -> None:
    before = (await imported.get_data_key_by_version(VERSION)).wrapped_by
    session = await imported.session()
    await session.lifecycle.rotation.rotate("keystead.wrap", promote="now")
    await session.lifecycle.rewrap.data_rows()

    async with new_manager() as other:
        assert (await other.get_data_key_by_version(VERSION)).wrapped_by != before
        assert await other.decrypt_legacy(TEXT) == PLAINTEXT


async def test_recovery_leaves_imported_keys_as_they_are(imported: KeyManager) -> None:
    session = await imported.session()
    async with session.surroundings.store.transaction() as work:
        await work.set_restored(True)
    await session.live.refresh()

    await recover_store(session.live, session.lifecycle.rotation, session.lifecycle.destruction)

    assert (await imported.get_data_key_by_version(VERSION)).state is DataKeyState.DECRYPT_ONLY
    assert await imported.decrypt_legacy(TEXT) == PLAINTEXT


async def test_a_destruction_wants_a_persons_word_because_old_data_names_no_id(
    imported: KeyManager, tmp_path: Path
) -> None:
    session = await imported.session()
    key = await imported.get_data_key_by_version(VERSION)
    await imported.run_due()

    with pytest.raises(KeyStateError, match=f"names '{VERSION}' instead of its id"):
        await session.lifecycle.destruction.schedule(key.id)
    scheduled = await session.lifecycle.destruction.schedule(key.id, without_sources=True)

    assert scheduled.state is DataKeyState.PENDING_DESTROY


@pytest.mark.parametrize("layout", ["data_keys"])
async def test_an_old_table_at_the_stores_own_url_is_refused_and_left_alone(source: str, layout: str) -> None:
    build(source, layout, [OldKey()])
    before = rows(source, layout)
    provider = LocalKMSProvider(LocalKMSConfig(master_key=KEK))

    with pytest.raises(ForeignSchemaError, match="import legacy --from"):
        async with KeyManager({"local": provider}, store=source, background=False):
            pass
    with pytest.raises(ForeignSchemaError, match="import legacy --from"):
        migrate(source)

    assert rows(source, layout) == before


async def test_a_keystead_store_is_no_source(km: KeyManager, tmp_path: Path, root: Callable[[], bytes]) -> None:
    with pytest.raises(ForeignSchemaError, match="store export"):
        await km.import_legacy(f"sqlite:///{tmp_path / 'keys.db'}", root)
