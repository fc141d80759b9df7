from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from keystead import DataKeyState, KeyManager
from keystead.crypto.legacy import LegacyKey
from keystead.crypto.root_key import RootKeyGenerator
from keystead.lifecycle.legacy_import import LegacyImport
from keystead.ports import AuditEvent
from tests.fakes.clock import FakeClock
from tests.legacy.sources import (
    FIRST,
    ITERATIONS,
    LAYOUTS,
    PLAINTEXT,
    ROOT,
    SALT,
    SEED,
    VECTORS,
    VERSION,
    OldKey,
    build,
    old_keys,
    old_text,
    rows,
)

RootKey = Callable[[], bytes]


def old_root(seed: str = SEED) -> RootKey:
    return RootKeyGenerator(seed, SALT, iterations=ITERATIONS, allow_known_defaults=True).generate_root_key


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_keys_of_every_layout_read_their_data_afterwards(
    km: KeyManager, source: str, layout: str, root: RootKey
) -> None:
    keys = old_keys(3, layout)
    build(source, layout, keys)

    report = await km.import_legacy(source, root)

    assert report.imported == [key.version for key in keys]
    assert (report.skipped, report.failed, report.exposed, report.rotated_to) == ([], {}, [], None)
    assert [await km.decrypt_legacy(old_text(key)) for key in keys] == [PLAINTEXT] * 3


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_the_source_is_not_changed(km: KeyManager, source: str, layout: str, root: RootKey) -> None:
    build(source, layout, old_keys(3, layout, exposed=True))
    table = "data_keys" if layout == "data_keys" else "kms_data_keys"
    before = rows(source, table)

    await km.import_legacy(source, root)

    assert rows(source, table) == before


async def test_the_vectors_of_the_reference_are_read_with_its_seed(km: KeyManager, old_db: str) -> None:
    build(old_db, "data_keys", [OldKey()])

    with pytest.warns(UserWarning, match="under 16 bytes"):
        await km.import_legacy(old_db, old_root())

    assert await km.decrypt_legacy(VECTORS["field"]["text"]) == PLAINTEXT
    assert (await km.get_data_key_by_version(VERSION)).keyring == "legacy"


async def test_an_imported_key_only_decrypts(km: KeyManager, old_db: str, root: RootKey) -> None:
    build(old_db, "data_keys", [OldKey()])
    await km.import_legacy(old_db, root)

    info = await km.get_data_key_by_version(VERSION)

    assert (info.state, info.algorithm) == (DataKeyState.DECRYPT_ONLY, "AES-256-GCM-LEGACY")
    assert info.created_at == FIRST.replace(microsecond=0)
    assert info.expires_at == FIRST + timedelta(days=1)


async def test_versions_are_numbered_by_creation(km: KeyManager, old_db: str, root: RootKey) -> None:
    keys = old_keys(4)
    build(old_db, "data_keys", [keys[2], keys[0], keys[3], keys[1]])

    await km.import_legacy(old_db, root)

    assert [(await km.get_data_key_by_version(key.version)).version for key in keys] == [1, 2, 3, 4]


async def test_a_second_import_finds_nothing_to_do(km: KeyManager, old_db: str, root: RootKey) -> None:
    build(old_db, "data_keys", old_keys(3, exposed=True))
    first = await km.import_legacy(old_db, root)

    second = await km.import_legacy(old_db, root)

    assert second.imported == []
    assert second.skipped == first.imported
    assert second.rotated_to is None


async def test_keys_added_to_the_source_later_are_imported_by_the_next_run(
    km: KeyManager, tmp_path: Path, root: RootKey
) -> None:
    keys = old_keys(3)
    build(f"sqlite:///{tmp_path / 'one.db'}", "data_keys", keys[:2])
    build(f"sqlite:///{tmp_path / 'two.db'}", "data_keys", keys)
    await km.import_legacy(f"sqlite:///{tmp_path / 'one.db'}", root)
    assert await km.decrypt_legacy(old_text(keys[0])) == PLAINTEXT

    report = await km.import_legacy(f"sqlite:///{tmp_path / 'two.db'}", root)

    assert (report.skipped, report.imported) == ([keys[0].version, keys[1].version], [keys[2].version])
    assert await km.decrypt_legacy(old_text(keys[2])) == PLAINTEXT


async def test_a_dry_run_changes_nothing(km: KeyManager, old_db: str, root: RootKey) -> None:
    build(old_db, "data_keys", old_keys(3, exposed=True))
    await km.run_due()
    epoch = (await km.session()).live.state

    report = await km.import_legacy(old_db, root, dry_run=True)

    assert report.is_dry_run
    assert len(report.imported) == len(report.exposed) == 3
    await km.run_due()
    assert (await km.session()).live.state == epoch


async def test_250_keys_are_imported(km: KeyManager, source: str, root: RootKey) -> None:
    keys = old_keys(250)
    build(source, "data_keys", keys)

    report = await km.import_legacy(source, root)

    assert len(report.imported) == 250
    assert [await km.decrypt_legacy(old_text(key)) for key in keys] == [PLAINTEXT] * 250


async def test_an_empty_table_is_imported(km: KeyManager, old_db: str, root: RootKey) -> None:
    build(old_db, "data_keys", [])

    assert (await km.import_legacy(old_db, root)).imported == []


async def test_the_imported_keys_have_a_keyring_of_their_own_name(km: KeyManager, old_db: str, root: RootKey) -> None:
    build(old_db, "data_keys", [OldKey()])

    await km.import_legacy(old_db, root, keyring="old-service")

    assert (await km.get_data_key_by_version(VERSION)).keyring == "old-service"
    assert await km.decrypt_legacy(VECTORS["field"]["text"]) == PLAINTEXT


def legacy_row() -> LegacyKey:
    return LegacyKey(VERSION, OldKey().wrapped)


async def test_a_key_without_a_time_of_creation_gets_the_time_of_its_import(km: KeyManager, clock: FakeClock) -> None:
    session = await km.session()
    work = LegacyImport(session.live, "legacy")

    await work.carry_out(await work.plan([legacy_row()], ROOT))

    assert (await km.get_data_key_by_version(VERSION)).created_at == clock.now()


async def test_every_imported_key_is_audited(
    km: KeyManager, old_db: str, root: RootKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(old_db, "data_keys", [OldKey()])
    events = []

    class Trail:
        async def record(self, work: object, event: AuditEvent) -> None:
            events.append((event.action, event.keyring, dict(event.details)))

    session = await km.session()
    monkeypatch.setattr(session.live, "surroundings", replace(session.surroundings, audit=Trail()))
    await km.import_legacy(old_db, root)

    assert events == [
        ("keyring.create", "legacy", {}),
        ("key.import", "legacy", {"version": 1, "legacy_version": VERSION, "exposed": 0}),
    ]
