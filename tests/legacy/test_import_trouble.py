from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from keystead import KeyManager
from keystead.crypto.legacy import LegacyKey
from keystead.crypto.root_key import RootKeyGenerator
from keystead.errors import (
    ConflictError,
    InvalidInputError,
    KeyDecryptionFailError,
    KeyStateError,
    StoreRestoredError,
)
from keystead.lifecycle import legacy_import
from keystead.lifecycle.legacy_import import LegacyImport
from keystead.lifecycle.wrapping import seal_key
from keystead.model import KeyRecord, KeyringRecord
from tests.legacy.sources import (
    ITERATIONS,
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
)

RootKey = Callable[[], bytes]


def old_root(seed: str = SEED) -> RootKey:
    return RootKeyGenerator(seed, SALT, iterations=ITERATIONS, allow_known_defaults=True).generate_root_key


async def row_of(km: KeyManager, version: str) -> KeyRecord:
    session = await km.session()
    async with session.surroundings.store.reading() as work:
        row: KeyRecord | None = await work.find_legacy_key(version)
    assert row is not None
    return row


async def test_a_wrong_seed_changes_nothing_and_says_what_to_check(km: KeyManager, old_db: str) -> None:
    build(old_db, "data_keys", old_keys(2))

    with (
        pytest.warns(UserWarning, match="salt is under"),
        pytest.raises(KeyDecryptionFailError, match=r"none of 2 keys.*check seed"),
    ):
        await km.import_legacy(old_db, old_root("another seed of the test"))

    with pytest.raises(InvalidInputError):
        await km.import_legacy(old_db, lambda: ROOT, keyring="default")
    assert [each.name for each in await _keyrings(km)] == ["default", "keystead.index", "keystead.wrap"]


async def _keyrings(km: KeyManager) -> list[KeyringRecord]:
    session = await km.session()
    async with session.surroundings.store.reading() as work:
        found: list[KeyringRecord] = await work.keyrings()
        return found


async def test_the_published_default_seed_is_accepted_with_a_warning(km: KeyManager, old_db: str) -> None:
    generator = RootKeyGenerator(
        "default-seed-value", "default-salt-value", iterations=100_000, allow_known_defaults=True
    )
    with pytest.warns(UserWarning, match="published default"):
        root = generator.generate_root_key()
    build(old_db, "data_keys", old_keys(1, root=root))

    assert len((await km.import_legacy(old_db, lambda: root)).imported) == 1


async def test_keys_that_stood_in_clear_are_flagged_and_the_default_keyring_is_rotated(
    km: KeyManager, source: str, root: RootKey
) -> None:
    keys = [*old_keys(1, exposed=True), *old_keys(2)[1:]]
    build(source, "data_keys", keys)
    written = km.local_encrypt(b"before")

    report = await km.import_legacy(source, root)

    assert report.exposed == [keys[0].version]
    assert report.rotated_to == (await km.get_active_data_key()).version == 2
    assert km.needs_reencrypt(written)
    exposed = (await row_of(km, keys[0].version)).context
    assert exposed == {"legacy_version": keys[0].version, "legacy_exposed": "true"}
    assert (await row_of(km, keys[1].version)).context == {"legacy_version": keys[1].version}


async def test_no_key_in_clear_reaches_the_store(km: KeyManager, old_db: str, root: RootKey, tmp_path: Path) -> None:
    keys = old_keys(5, exposed=True)
    build(old_db, "data_keys", keys)

    await km.import_legacy(old_db, root)

    stored = b"".join(path.read_bytes() for path in tmp_path.glob("keys.db*"))
    assert [key for key in keys if key.key in stored or key.wrapped in stored] == []


async def test_a_key_only_the_clear_column_gives_is_used_and_told(km: KeyManager, old_db: str, root: RootKey) -> None:
    (key,) = old_keys(1, root=bytes(32), exposed=True)
    build(old_db, "data_keys", [key])

    report = await km.import_legacy(old_db, root)

    assert (report.imported, report.from_clear, report.exposed) == ([key.version],) * 3
    assert await km.decrypt_legacy(old_text(key)) == PLAINTEXT


@pytest.mark.parametrize("clear", [b"", bytes(32)], ids=["empty", "zeros"])
async def test_a_blanked_clear_column_is_none(km: KeyManager, old_db: str, root: RootKey, clear: bytes) -> None:
    build(old_db, "data_keys", [replace(OldKey(), clear=clear)])

    report = await km.import_legacy(old_db, root)

    assert (report.imported, report.exposed, report.rotated_to) == ([VERSION], [], None)


async def test_two_columns_with_different_keys_are_not_guessed_between(
    km: KeyManager, old_db: str, root: RootKey
) -> None:
    good, bad = old_keys(2)
    build(old_db, "data_keys", [good, replace(bad, clear=b"x" * 32)])

    report = await km.import_legacy(old_db, root)

    assert report.imported == [good.version]
    assert "two different keys" in report.failed[bad.version]


async def test_a_clear_column_of_another_length_is_flagged_and_not_used(
    km: KeyManager, old_db: str, root: RootKey
) -> None:
    good, bad = old_keys(2)
    build(
        old_db, "data_keys", [replace(good, clear=b"x" * 31), replace(bad, clear=b"x" * 31, wrapped=bad.wrapped[:-1])]
    )

    report = await km.import_legacy(old_db, root)

    assert (report.imported, report.exposed) == ([good.version], [good.version, bad.version])
    assert report.failed == {bad.version: "a legacy wrapped key is 60 bytes"}


async def test_a_damaged_key_does_not_stop_the_others(km: KeyManager, old_db: str, root: RootKey) -> None:
    good, altered, short, named = old_keys(4)
    altered = replace(altered, wrapped=altered.wrapped[:-1] + b"\x00")
    short = replace(short, wrapped=b"")
    named = replace(named, version="latest")
    build(old_db, "data_keys", [good, altered, short, named])

    report = await km.import_legacy(old_db, root)

    assert report.imported == [good.version]
    assert "does not open" in report.failed[altered.version]
    assert "60 bytes" in report.failed[short.version]
    assert "neither v and digits" in report.failed["latest"]


async def test_a_revoked_key_is_imported_disabled(km: KeyManager, old_db: str, root: RootKey) -> None:
    revoked, other = old_keys(2, "kms_data_keys")
    build(old_db, "kms_data_keys", [replace(revoked, status="revoked"), replace(other, status="expired")])

    report = await km.import_legacy(old_db, root)

    assert report.disabled == [revoked.version]
    assert await km.decrypt_legacy(old_text(other)) == PLAINTEXT
    with pytest.raises(KeyStateError, match="disabled"):
        await km.decrypt_legacy(old_text(revoked))
    session = await km.session()
    await session.lifecycle.destruction.enable((await row_of(km, revoked.version)).id)
    assert await km.decrypt_legacy(old_text(revoked)) == PLAINTEXT


async def test_another_source_with_the_same_version_is_refused_for_that_version(
    km: KeyManager, tmp_path: Path, root: RootKey
) -> None:
    one, two = old_keys(2, "kms_data_keys")
    build(f"sqlite:///{tmp_path / 'one.db'}", "kms_data_keys", [one])
    build(f"sqlite:///{tmp_path / 'two.db'}", "kms_data_keys", [replace(two, version=one.version), two])
    await km.import_legacy(f"sqlite:///{tmp_path / 'one.db'}", root)

    report = await km.import_legacy(f"sqlite:///{tmp_path / 'two.db'}", root)

    assert report.imported == [two.version]
    assert "another key has this version" in report.failed[one.version]
    assert await km.decrypt_legacy(old_text(one)) == PLAINTEXT


async def test_a_version_that_stands_twice_with_one_key_is_imported_once(
    km: KeyManager, old_db: str, root: RootKey
) -> None:
    (key,) = old_keys(1, "kms_data_keys")
    build(old_db, "kms_data_keys", [replace(key, status="inactive"), replace(key, status="expired")])

    report = await km.import_legacy(old_db, root)

    assert (report.imported, report.skipped) == ([key.version], [key.version])


async def test_a_destroyed_key_does_not_come_back(km: KeyManager, old_db: str, root: RootKey) -> None:
    build(old_db, "data_keys", [OldKey()])
    await km.import_legacy(old_db, root)
    session = await km.session()
    await session.lifecycle.destruction.destroy_now(await row_of(km, VERSION))

    report = await km.import_legacy(old_db, root)

    assert (report.imported, report.skipped) == ([], [VERSION])
    with pytest.raises(KeyStateError, match="destroyed"):
        await km.decrypt_legacy(VECTORS["field"]["text"])


@pytest.mark.parametrize("name", ["default", "keystead.wrap", ""])
async def test_a_keyring_that_cannot_take_imported_keys_is_refused(
    km: KeyManager, old_db: str, root: RootKey, name: str
) -> None:
    build(old_db, "data_keys", [OldKey()])

    with pytest.raises(InvalidInputError):
        await km.import_legacy(old_db, root, keyring=name)


async def test_a_keyring_made_in_between_is_refused_as_well(km: KeyManager, root: RootKey) -> None:
    session = await km.session()
    work = LegacyImport(session.live, "legacy")
    plan = await work.plan([legacy_row()], ROOT)
    await km.keyring("legacy")

    with pytest.raises(InvalidInputError, match="exists and encrypts data"):
        await work.carry_out(plan)


def legacy_row() -> LegacyKey:
    return LegacyKey(VERSION, OldKey().wrapped)


async def test_an_import_at_the_same_time_is_adopted(km: KeyManager, root: RootKey) -> None:
    session = await km.session()
    one, two = LegacyImport(session.live, "legacy"), LegacyImport(session.live, "legacy")
    mine, other = await one.plan([legacy_row()], ROOT), await two.plan([legacy_row()], ROOT)
    await two.carry_out(other)

    report = await one.carry_out(mine)

    assert (report.imported, report.skipped) == ([], [VERSION])


async def test_a_restored_store_imports_nothing(km: KeyManager, old_db: str, root: RootKey) -> None:
    build(old_db, "data_keys", [OldKey()])
    session = await km.session()
    work = LegacyImport(session.live, "legacy")
    plan = await work.plan([legacy_row()], ROOT)
    async with session.surroundings.store.transaction() as writing:
        await writing.set_restored(True)

    with pytest.raises(StoreRestoredError):
        await km.import_legacy(old_db, root)
    with pytest.raises(StoreRestoredError):
        await work.carry_out(plan)


async def test_an_import_cut_off_in_a_batch_keeps_the_batches_before_it(
    km: KeyManager, old_db: str, root: RootKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = old_keys(7)
    build(old_db, "data_keys", keys)
    monkeypatch.setattr(legacy_import, "BATCH", 3)
    sealed = 0

    def seal_five(*arguments: object) -> KeyRecord:
        nonlocal sealed
        sealed += 1
        if sealed == 6:
            raise ConflictError("cut off")
        return seal_key(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(legacy_import, "seal_key", seal_five)
    with pytest.raises(ConflictError):
        await km.import_legacy(old_db, root)
    monkeypatch.setattr(legacy_import, "seal_key", seal_key)

    report = await km.import_legacy(old_db, root)

    assert report.skipped == [key.version for key in keys[:3]]
    assert report.imported == [key.version for key in keys[3:]]
    assert [(await km.get_data_key_by_version(key.version)).version for key in keys] == [1, 2, 3, 4, 5, 6, 7]


async def test_an_import_killed_midway_is_finished_by_the_next(
    new_manager: Callable[[], KeyManager], old_db: str, root: RootKey, tmp_path: Path
) -> None:
    keys = old_keys(60, exposed=True)
    build(old_db, "data_keys", keys)
    program = Path(__file__).with_name("killed_import.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    killed = subprocess.run(
        [sys.executable, str(program), old_db, str(tmp_path / "keys.db"), "25"], env=environment, check=False
    )
    assert killed.returncode == -9

    async with new_manager() as km:
        report = await km.import_legacy(old_db, root)

        assert len(report.skipped) == 20
        assert report.skipped + report.imported == [key.version for key in keys]
        assert report.rotated_to is not None
        assert [await km.decrypt_legacy(old_text(key)) for key in keys] == [PLAINTEXT] * 60
