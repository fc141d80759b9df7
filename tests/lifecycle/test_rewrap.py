from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from keystead.errors import (
    KeyDecryptionFailError,
    KeyGenerationFailError,
    KeyNotFoundError,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderNotConfiguredError,
    RotationNotSupportedError,
)
from keystead.lifecycle.rewrap import RewrapReport
from keystead.model import WRAP_KEYRING, DataKeyPair, DataKeyState, EncryptedData
from keystead.testing.fake_kms import FakeKMS
from tests.canary.watch import SecretWatch, learning
from tests.fakes.world import KEY_ID, World, polled, session_of
from tests.lifecycle.rewrapping import filled, readable, rewrap_of, wrapped_by


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
        assert dict(world.kms.calls) == {"describe": 1, "rewrap": 1, "decrypt": 1}
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
        assert dict(world.kms.calls) == {"describe": 1, "decrypt": 2, "encrypt": 1}
        [row] = await world.rows(WRAP_KEYRING)
        assert row.kek_key_id == "payroll"
    world.kms.disable("billing")
    async with world.open(default_key_id="payroll") as km:
        assert await readable(km, sealed)


async def test_a_kek_that_wraps_another_key_than_it_was_given_replaces_no_wrap(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
    before = await world.rows(WRAP_KEYRING)
    async with world.open(default_key_id="payroll") as km:
        encrypt = world.kms.encrypt

        async def of_another(
            plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
        ) -> EncryptedData:
            return await encrypt(bytes(len(plaintext)), key_id, context=context)

        monkeypatch.setattr(world.kms, "encrypt", of_another)
        with pytest.raises(KeyDecryptionFailError):
            await (await rewrap_of(km)).run(new_wrap_version=False)
        assert await readable(km, sealed)
    assert await world.rows(WRAP_KEYRING) == before


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


async def test_a_wrap_is_replaced_only_by_one_that_the_new_kek_was_seen_to_open(world: World) -> None:
    elsewhere = FakeKMS(clock=world.clock)
    both: dict[str, Any] = {"cloud": world.kms, "elsewhere": elsewhere}
    options: dict[str, Any] = {"default_provider": "elsewhere", "default_key_id": "root"}
    async with world.open() as km:
        sealed = await filled(world, km)
    before = await world.rows(WRAP_KEYRING)
    # Whoever may encrypt under the new KEK, and not decrypt, would find out at the next start.
    elsewhere.deny("decrypt")
    async with world.open(providers=both, **options) as km:
        with pytest.raises(ProviderAuthError):
            await (await rewrap_of(km)).wrap_rows()
        assert await world.rows(WRAP_KEYRING) == before
        elsewhere.heal()
        assert await (await rewrap_of(km)).wrap_rows() == (1, 0)
    async with world.open(providers={"elsewhere": elsewhere}, default_key_id="root") as km:
        assert await readable(km, sealed)


@pytest.mark.parametrize("by_the_service", [True, False])
async def test_a_wrap_of_another_key_than_the_one_inside_replaces_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, by_the_service: bool
) -> None:
    async with world.open() as km:
        sealed = await filled(world, km)
    provider: Any = world.kms if by_the_service else Plain(world.kms)
    before = await world.rows(WRAP_KEYRING)

    async def wrong(*given: Any, context: Mapping[str, str] | None = None) -> EncryptedData:
        made = await FakeKMS().encrypt(bytes(32), "billing", context=context)
        return replace(made, key_reference=replace(made.key_reference, provider="cloud"))

    monkeypatch.setattr(provider, "rewrap" if by_the_service else "encrypt", wrong, raising=False)
    await world.kms.rotate_key("billing")
    key_id = KEY_ID if by_the_service else "payroll"
    async with world.open(providers={"cloud": provider}, default_key_id=key_id) as km:
        with pytest.raises(KeyDecryptionFailError):
            await (await rewrap_of(km)).wrap_rows()
        assert await world.rows(WRAP_KEYRING) == before
        assert await readable(km, sealed)


async def test_no_traceback_of_a_rewrap_shows_the_wrap_key(world: World) -> None:
    elsewhere, watch = FakeKMS(clock=world.clock), SecretWatch()
    both: dict[str, Any] = {"cloud": world.kms, "elsewhere": elsewhere}
    with learning(watch):
        async with world.open() as km:
            await filled(world, km)
        async with world.open(providers=both, default_provider="elsewhere", default_key_id="root") as km:
            elsewhere.fail_always()
            with pytest.raises(ProviderConnectionError) as caught:
                await (await rewrap_of(km)).wrap_rows()
    shown = traceback.TracebackException(type(caught.value), caught.value, caught.tb, capture_locals=True)
    assert watch.find("".join(shown.format())) == []


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
