from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from keystead.errors import (
    ConflictError,
    KeyDecryptionFailError,
    KeyGenerationFailError,
    KeyNotFoundError,
    ProviderConnectionError,
    ProviderNotConfiguredError,
    RotationNotSupportedError,
)
from keystead.lifecycle.rewrap import Rewrap, RewrapReport
from keystead.manager.manager import KeyManager
from keystead.model import WRAP_KEYRING, DataKeyPair, DataKeyState, EncryptedData, KeyRecord
from keystead.testing.fake_kms import FakeKMS
from tests.fakes.world import World, polled, session_of


class Plain:
    """A provider with the two methods every provider has."""

    def __init__(self, kms: FakeKMS) -> None:
        self._kms = kms

    provider_name = "plain"

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        return await self._kms.encrypt(plaintext, key_id, context=context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        return await self._kms.decrypt(encrypted, context=context)


async def rewrap_of(km: KeyManager) -> Rewrap:
    return (await session_of(km)).lifecycle.rewrap


async def filled(world: World, km: KeyManager) -> dict[str, bytes]:
    """Three keyrings with two versions each, and a ciphertext of every version."""
    sealed = {}
    for name in ("default", "a", "b"):
        ring = await km.keyring(name)
        sealed[f"{name} 1"] = ring.local_encrypt(b"x")
        await ring.rotate()
        sealed[f"{name} 2"] = ring.local_encrypt(b"x")
    return sealed


async def readable(km: KeyManager, sealed: Mapping[str, bytes]) -> bool:
    return all([await (await km.keyring(name.split()[0])).decrypt_local(blob) == b"x" for name, blob in sealed.items()])


async def wrapped_by(world: World) -> set[int | None]:
    return {row.wrapped_by for row in await world.rows() if row.keyring != WRAP_KEYRING}


async def test_everything_moves_under_a_new_wrap_version_and_stays_readable(world: World) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
        assert await (await rewrap_of(km)).run() == RewrapReport(data_keys=7)
        old, new = await world.rows(WRAP_KEYRING)
        assert (old.state, new.state) == (DataKeyState.DECRYPT_ONLY, DataKeyState.ACTIVE)
        assert await wrapped_by(world) == {new.id}
        assert await readable(km, sealed)
        assert await (await rewrap_of(km)).run(new_wrap_version=False) == RewrapReport()
    world.kms.calls.clear()
    async with world.open() as km:
        assert await readable(km, sealed)
    assert dict(world.kms.calls) == {"decrypt": 1}


async def test_wrap_rows_move_to_a_new_kek_version_by_the_service_itself(world: World) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
        await world.kms.rotate_key("billing")
        world.kms.calls.clear()
        assert await (await rewrap_of(km)).run(new_wrap_version=False) == RewrapReport(wrap_keys=1)
        assert dict(world.kms.calls) == {"describe": 1, "rewrap": 1}
        [row] = await world.rows(WRAP_KEYRING)
        assert (row.kek_provider, row.kek_key_id, row.kek_version) == ("cloud", "billing", "2")
    async with world.open() as km:
        assert await readable(km, sealed)


async def test_a_new_kek_version_is_asked_for_and_used_in_one_call(world: World) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
        before = {row.kek_version for row in await world.rows() if row.keyring == WRAP_KEYRING}
        await (await rewrap_of(km)).run(new_kek_version=True)
        after = {row.kek_version for row in await world.rows() if row.keyring == WRAP_KEYRING}
        assert len(after) == 1
        assert after.isdisjoint(before)
    async with world.open() as km:
        assert await readable(km, sealed)


async def test_a_kek_that_makes_no_versions_is_refused_before_anything_changes(world: World) -> None:
    async with world.open(providers={"cloud": Plain(world.kms)}) as km:
        rows = await world.rows()
        with pytest.raises(RotationNotSupportedError, match="its own console") as refused:
            await (await rewrap_of(km)).run(new_kek_version=True)
        assert not refused.value.retryable
        assert await world.rows() == rows


async def test_another_kek_leaves_old_rows_readable_and_moves_them_by_rewrap(world: World) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
    async with world.open(default_key_id="payroll") as km:
        assert await readable(km, sealed)
        [row] = await world.rows(WRAP_KEYRING)
        assert row.kek_key_id == "billing"
        world.kms.calls.clear()
        assert await (await rewrap_of(km)).run(new_wrap_version=False) == RewrapReport(wrap_keys=1)
        assert dict(world.kms.calls) == {"describe": 1, "decrypt": 1, "encrypt": 1}
        [row] = await world.rows(WRAP_KEYRING)
        assert row.kek_key_id == "payroll"
    world.kms.disable("billing")
    async with world.open(default_key_id="payroll") as km:
        assert await readable(km, sealed)


async def test_another_kek_wraps_new_wrap_versions(world: World) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
    async with world.open(default_key_id="payroll") as km:
        await (await session_of(km)).lifecycle.rotation.rotate(WRAP_KEYRING)
        assert [row.kek_key_id for row in await world.rows(WRAP_KEYRING)] == ["billing", "payroll"]
        await km.rotate_data_key()
    world.kms.calls.clear()
    async with world.open(default_key_id="payroll") as km:
        assert await readable(km, sealed)
    assert dict(world.kms.calls) == {"decrypt": 2}


async def test_another_provider_takes_over_and_the_old_one_is_no_longer_needed(world: World) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
    elsewhere = FakeKMS(clock=world.clock)
    both: dict[str, Any] = {"cloud": world.kms, "elsewhere": Plain(elsewhere)}
    options: dict[str, Any] = {"default_provider": "elsewhere", "default_key_id": "root"}
    async with world.open(providers=both, **options) as km:
        assert await readable(km, sealed)
        report = await (await rewrap_of(km)).run()
        assert report == RewrapReport(data_keys=7, wrap_keys=1)
        assert await readable(km, sealed)
        # A provider that cannot describe its keys has nothing newer to offer.
        assert await (await rewrap_of(km)).run(new_wrap_version=False) == RewrapReport()
    world.kms.fail_always()
    async with world.open(providers={"elsewhere": Plain(elsewhere)}, default_key_id="root") as km:
        assert await readable(km, sealed)


async def test_a_renamed_instance_is_found_by_its_alias_and_its_rows_get_the_new_name(world: World) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
    providers: dict[str, Any] = {"renamed": world.kms}
    with pytest.raises(ProviderNotConfiguredError, match="'cloud'"):
        async with world.open(providers=providers):
            pass
    async with world.open(providers=providers, provider_aliases={"cloud": "renamed"}) as km:
        assert await readable(km, sealed)
        await (await rewrap_of(km)).run(new_wrap_version=False)
    async with world.open(providers=providers) as km:
        assert await readable(km, sealed)


async def test_disabled_versions_move_too_and_tombstones_stay_empty(world: World) -> None:
    async with world.open() as km:
        await filled(world, km)
        session = await session_of(km)
        one, two = (await world.rows("a"))[0], (await world.rows("b"))[0]
        await session.lifecycle.destruction.disable(one.id)
        await session.lifecycle.destruction.destroy_now(two)
        report = await session.lifecycle.rewrap.run()
        assert report == RewrapReport(data_keys=6)
        rows = {row.id: row for row in await world.rows()}
        assert (rows[one.id].state, rows[two.id].wrapped_key) == (DataKeyState.DISABLED, None)
        active = next(row for row in rows.values() if row.keyring == WRAP_KEYRING and row.version == 2)
        assert rows[one.id].wrapped_by == active.id


@pytest.mark.parametrize("at", range(1, 8))
async def test_an_interrupted_rewrap_is_resumed(world: World, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
        rewrap = await rewrap_of(km)
        write, writes = rewrap._write, 0

        async def killed(row: KeyRecord, **columns: object) -> bool:
            nonlocal writes
            writes += 1
            if writes == at:
                raise KeyboardInterrupt
            return await write(row, **columns)

        monkeypatch.setattr(rewrap, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            await rewrap.run()
        assert await readable(km, sealed)
    async with world.open() as km:
        assert await readable(km, sealed)
        report = await (await rewrap_of(km)).run(new_wrap_version=False)
        assert report.data_keys == 8 - at
        assert len(await wrapped_by(world)) == 1
        assert await readable(km, sealed)


async def test_one_row_that_cannot_be_moved_does_not_keep_the_others(world: World) -> None:
    async with world.open() as km:
        await filled(world, km)
        rows = await world.rows("a")
        async with world.store.transaction() as work:
            broken = bytes(len(rows[0].wrapped_key or b""))
            await work.change_key(rows[0].id, rows[0].state, wrapped_key=broken)
        with pytest.raises(KeyDecryptionFailError, match=str(rows[0].id)):
            await (await rewrap_of(km)).run()
        _, new = await world.rows(WRAP_KEYRING)
        moved = [row for row in await world.rows() if row.wrapped_by == new.id]
        assert len(moved) == 6


async def test_a_wrap_row_that_the_kms_does_not_open_does_not_keep_the_others(world: World) -> None:
    async with world.open() as km:
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING)
        await world.kms.rotate_key("billing")
        world.kms.fail_next(1, KeyNotFoundError("gone"), operation="rewrap")
        with pytest.raises(KeyNotFoundError):
            await session.lifecycle.rewrap.wrap_rows()
        assert sorted(row.kek_version or "" for row in await world.rows(WRAP_KEYRING)) == ["1", "2"]
        assert await session.lifecycle.rewrap.wrap_rows() == (1, 0)


async def test_a_row_that_changed_meanwhile_is_left_to_who_changed_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km, world.open() as other:
        sealed = await filled(world, km)
        await polled(other)
        session = await session_of(km)
        await session.lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")
        rewrap, theirs = session.lifecycle.rewrap, await rewrap_of(other)
        write = rewrap._write

        async def slow(row: KeyRecord, **columns: object) -> bool:
            monkeypatch.setattr(rewrap, "_write", write)
            await theirs.data_rows()
            return await write(row, **columns)

        monkeypatch.setattr(rewrap, "_write", slow)
        moved, skipped = await rewrap.data_rows()
        assert (moved, skipped > 0) == (0, True)
        await world.kms.rotate_key("billing")
        monkeypatch.setattr(rewrap, "_write", lose)
        assert await rewrap.wrap_rows() == (0, 2)
        assert await readable(km, sealed)


async def lose(row: KeyRecord, **columns: object) -> bool:
    return False


async def test_a_row_whose_state_changed_within_the_write_is_skipped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        await filled(world, km)
        rewrap = await rewrap_of(km)

        async def conflict(*arguments: object, **changes: object) -> None:
            raise ConflictError("another process was faster")

        [row, _] = await world.rows("a")
        with monkeypatch.context() as patch:
            patch.setattr("keystead.stores.keys.KeyWriteRows.change_key", conflict)
            assert await rewrap._write(row, wrapped_key=row.wrapped_key) is False


async def test_without_an_active_wrap_version_nothing_can_be_moved(world: World) -> None:
    async with world.open() as km:
        [row] = await world.rows(WRAP_KEYRING)
        async with world.store.transaction() as work:
            epoch = await work.bump_epoch()
            await work.change_key(row.id, row.state, state=DataKeyState.DECRYPT_ONLY, published_epoch=epoch)
        await polled(km)
        with pytest.raises(KeyNotFoundError, match="no active version"):
            await (await rewrap_of(km)).data_rows()


async def test_each_wrap_keyring_keeps_to_its_own_rows(world: World) -> None:
    async with world.open() as km:
        await km.keyring("tenant", tenant_wrap="tenant-wrap")
        rewrap = await rewrap_of(km)
        assert await rewrap.wrap_keyrings() == [WRAP_KEYRING, "tenant-wrap"]
        assert await rewrap.run(wrap_keyring="tenant-wrap") == RewrapReport(data_keys=1)
        assert await rewrap.run() == RewrapReport(data_keys=2)


# --- drawing and unwrapping through a provider


async def test_a_provider_that_draws_no_keys_wraps_one_drawn_here(world: World) -> None:
    providers: dict[str, Any] = {"plain": Plain(world.kms)}
    async with world.open(providers=providers) as km:
        sealed = km.local_encrypt(b"x")
    assert dict(world.kms.calls) == {"encrypt": 1}
    async with world.open(providers=providers) as km:
        assert km.local_decrypt(sealed) == b"x"


async def test_a_key_of_another_size_is_refused_when_drawn_and_when_unwrapped(world: World) -> None:
    generate = world.kms.generate_data_key

    async def short(key_id: str, **options: Any) -> DataKeyPair:
        return await generate(key_id, **{**options, "key_spec": "AES_128"})

    world.kms.generate_data_key = short  # type: ignore[method-assign]
    with pytest.raises(KeyGenerationFailError, match="32 bytes"):
        async with world.open():
            pass
    world.kms.generate_data_key = generate  # type: ignore[method-assign]
    async with world.open():
        pass
    decrypt = world.kms.decrypt

    async def cut(*arguments: Any, **options: Any) -> bytes:
        return (await decrypt(*arguments, **options))[:16]

    world.kms.decrypt = cut  # type: ignore[method-assign]
    with pytest.raises(KeyDecryptionFailError):
        async with world.open():
            pass


async def test_an_alias_is_never_stored_only_what_the_service_answered(world: World) -> None:
    world.kms.create_key("arn:1")
    world.kms.add_alias("alias/billing", "arn:1")
    async with world.open(default_key_id="alias/billing") as km:
        sealed = km.local_encrypt(b"x")
    [row] = await world.rows(WRAP_KEYRING)
    assert row.kek_key_id == "arn:1"
    world.kms.create_key("arn:2")
    world.kms.add_alias("alias/billing", "arn:2")
    async with world.open(default_key_id="alias/billing") as km:
        assert km.local_decrypt(sealed) == b"x"
        await (await rewrap_of(km)).run(new_wrap_version=False)
        [row] = await world.rows(WRAP_KEYRING)
        assert row.kek_key_id == "arn:2"
        assert (await km.perform_maintenance()).rewrapped == 0


async def test_the_context_prefix_is_sealed_with_every_wrap_key(world: World) -> None:
    async with world.open(context_prefix="shop") as km:
        sealed = km.local_encrypt(b"x")
    [row] = await world.rows(WRAP_KEYRING)
    assert row.context == {"service": "shop"}
    async with world.open() as km:  # what was sealed is in the row, so another prefix later does no harm
        assert km.local_decrypt(sealed) == b"x"


async def test_an_outage_during_a_rewrap_leaves_everything_as_it_was(world: World) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
        await world.kms.rotate_key("billing")
        before = await world.rows()
        world.kms.fail_always()
        with pytest.raises(ProviderConnectionError):
            await (await rewrap_of(km)).run(new_wrap_version=False)
        assert await world.rows() == before
        assert await readable(km, sealed)
