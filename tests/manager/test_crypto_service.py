"""Named fields, batches and keyed hashes; and the six operations on data keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidAlgorithmError,
    InvalidInputError,
    KeyStateError,
    StoreRestoredError,
)
from keystead.manager.crypto_service import BatchResult
from keystead.manager.manager import KeyManager
from keystead.model import DataKeyState, EncryptedField
from tests.fakes.world import World


@pytest.fixture
async def km(world: World) -> AsyncIterator[KeyManager]:
    """An initialised manager."""
    async with world.open() as manager:
        yield manager


# --- fields


@pytest.mark.parametrize("value", [b"x", b"", bytearray(b"x"), memoryview(b"x")])
async def test_a_named_value_comes_back(km: KeyManager, value: Any) -> None:
    service = km.crypto_service
    assert km.crypto_service is service
    field = await service.encrypt_field("iban", value)
    assert (field.name, field.version, field.algorithm) == ("iban", 1, "AES-256-GCM")
    assert await service.decrypt_field(field) == bytes(value)
    assert await service.decrypt_field(field, "iban") == bytes(value)
    assert await service.decrypt_field(replace(field, algorithm="AES-GCM-256")) == bytes(value)


@pytest.mark.parametrize(
    "change", [{"name": "ssn"}, {"name": ""}, {"version": 2}, {"version": 0}, {"value": bytes((0xAE,)) + bytes(63)}]
)
async def test_a_field_whose_name_version_or_bytes_were_changed_does_not_decrypt(
    km: KeyManager, change: dict[str, Any]
) -> None:
    field = await km.crypto_service.encrypt_field("iban", b"x")
    with pytest.raises(DecryptionError):
        await km.crypto_service.decrypt_field(replace(field, **change))


async def test_a_field_is_not_taken_for_one_of_another_name(km: KeyManager) -> None:
    field = await km.crypto_service.encrypt_field("iban", b"x")
    with pytest.raises(DecryptionError):
        await km.crypto_service.decrypt_field(field, "ssn")
    with pytest.raises(DecryptionError):
        await km.crypto_service.decrypt_field(replace(field, name="ssn"), "ssn")


async def test_a_field_is_no_plain_envelope_and_a_plain_envelope_no_field(km: KeyManager) -> None:
    field = await km.crypto_service.encrypt_field("iban", b"x")
    with pytest.raises(DecryptionError):
        km.local_decrypt(field.value)
    with pytest.raises(DecryptionError):
        await km.crypto_service.decrypt_field(EncryptedField(km.local_encrypt(b"x"), 1, name="iban"))


@pytest.mark.parametrize("algorithm", ["AES-128-GCM", "", "CHACHA20"])
async def test_another_algorithm_is_refused(km: KeyManager, algorithm: str) -> None:
    field = await km.crypto_service.encrypt_field("iban", b"x")
    with pytest.raises(InvalidAlgorithmError):
        await km.crypto_service.decrypt_field(replace(field, algorithm=algorithm))


@pytest.mark.parametrize("value", ["text", None, 1, ["x"]])
async def test_a_value_that_is_no_bytes_is_refused(km: KeyManager, value: Any) -> None:
    with pytest.raises(InvalidInputError, match="bytes"):
        await km.crypto_service.encrypt_field("iban", value)


@pytest.mark.parametrize("name", [None, 1, b"iban", "\ud800"])
async def test_a_name_that_is_no_text_is_refused(km: KeyManager, name: Any) -> None:
    with pytest.raises(InvalidInputError):
        await km.crypto_service.encrypt_field(name, b"x")


@pytest.mark.parametrize("field", [None, b"x", "v1700:AES:00", {"value": b"x"}])
async def test_what_is_no_field_is_refused(km: KeyManager, field: Any) -> None:
    with pytest.raises(InvalidInputError):
        await km.crypto_service.decrypt_field(field)


async def test_fields_outlive_rotation_and_restart(world: World) -> None:
    async with world.open() as km:
        field = await km.crypto_service.encrypt_field("iban", b"x")
        await km.rotate_data_key()
        newer = await km.crypto_service.encrypt_field("iban", b"y")
        assert newer.version == 2
    async with world.open() as km:
        assert await km.crypto_service.decrypt_field(field) == b"x"
        assert await km.crypto_service.decrypt_field(newer) == b"y"


async def test_a_cleared_cache_keeps_the_active_version_and_fetches_the_others(world: World) -> None:
    async with world.open() as km:
        old = await km.crypto_service.encrypt_field("iban", b"x")
        await km.rotate_data_key()
        new = await km.crypto_service.encrypt_field("iban", b"y")
        calls = world.calls()
        await km.crypto_service.clear_cache()
        ring = km.default.ring
        assert [key.version for key in ring.snapshot.keys.values()] == [2]
        assert await km.crypto_service.decrypt_field(new) == b"y"
        assert await km.crypto_service.decrypt_field(old) == b"x"
        assert [key.version for key in ring.snapshot.keys.values()] == [2, 1]
        assert world.calls() == calls


async def test_a_field_under_an_unknown_key_says_so(km: KeyManager) -> None:
    field = await km.crypto_service.encrypt_field("iban", b"x")
    value = field.value[:2] + (7).to_bytes(8, "big") + field.value[10:]
    with pytest.raises(DataKeyNotLoadedError):
        await km.crypto_service.decrypt_field(replace(field, value=value))


# --- batches


async def test_a_batch_keeps_its_order(km: KeyManager) -> None:
    values = {"z": b"1", "a": b"2", "m": b""}
    sealed = await km.crypto_service.encrypt_batch(values)
    assert (list(sealed), len(sealed), sealed.errors) == (["z", "a", "m"], 3, {})
    opened = await km.crypto_service.decrypt_batch(sealed)
    assert list(opened.items()) == list(values.items())
    assert dict(await km.crypto_service.encrypt_batch({})) == {}


async def test_a_failed_name_raises_its_own_error_and_the_others_are_there(km: KeyManager) -> None:
    values: dict[str, Any] = {"z": b"1", "bad": None, "a": b"2"}
    sealed = await km.crypto_service.encrypt_batch(values)
    assert (list(sealed), list(sealed.errors)) == (["z", "bad", "a"], ["bad"])
    with pytest.raises(InvalidInputError, match="None"):
        sealed["bad"]
    with pytest.raises(KeyError):
        sealed["absent"]
    fields = {"z": sealed["z"], "a": replace(sealed["a"], version=9), "swapped": sealed["z"]}
    opened = await km.crypto_service.decrypt_batch(fields)
    assert (opened["z"], sorted(opened.errors)) == (b"1", ["a", "swapped"])
    with pytest.raises(DecryptionError):
        opened["swapped"]


async def test_asking_whether_a_name_is_in_a_batch_raises_nothing(km: KeyManager) -> None:
    bad: dict[str, Any] = {"good": b"x", "bad": None}
    sealed = await km.crypto_service.encrypt_batch(bad)
    assert ("good" in sealed, "bad" in sealed, "absent" in sealed) == (True, True, False)
    assert isinstance(sealed, BatchResult)


async def test_an_atomic_batch_raises_the_first_error(km: KeyManager) -> None:
    bad: dict[str, Any] = {"good": b"x", "bad": None, "worse": 7}
    with pytest.raises(InvalidInputError, match="None"):
        await km.crypto_service.encrypt_batch(bad, atomic=True)
    sealed = await km.crypto_service.encrypt_batch({"a": b"1", "b": b"2"}, atomic=True)
    with pytest.raises(DecryptionError):
        await km.crypto_service.decrypt_batch({"a": sealed["b"]}, atomic=True)
    assert dict(await km.crypto_service.decrypt_batch(sealed, atomic=True)) == {"a": b"1", "b": b"2"}


# --- hashes


async def test_a_hash_is_keyed_and_outlives_rotation_and_restart(world: World) -> None:
    async with world.open() as km:
        first = km.hash_field("Zoë")
        assert (len(first), int(first, 16) > 0) == (64, True)
        assert km.hash_field("Zoë".encode()) == km.crypto_service.hash_field("Zoë") == first
        assert km.hash_field("Zoë".encode(), name="") == first
        await km.rotate_data_key()
        assert km.hash_field("Zoë") == first
    world.kms.calls.clear()
    async with world.open() as km:
        assert km.hash_field("Zoë") == first
    assert world.calls() == 1
    elsewhere = World()
    async with elsewhere.open() as km:
        assert km.hash_field("Zoë") != first


async def test_names_and_values_have_hashes_of_their_own(km: KeyManager) -> None:
    hashes = [km.hash_field(value, name=name) for value in ("", "x", "X") for name in ("", "email", "phone")]
    assert len(set(hashes)) == 9


@pytest.mark.parametrize("value", [None, 1, ["x"], "\ud800"])
async def test_what_has_no_hash_is_refused(km: KeyManager, value: Any) -> None:
    with pytest.raises(InvalidInputError):
        km.hash_field(value)


async def test_a_restored_store_without_index_keyring_hashes_nothing_and_still_decrypts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
    monkeypatch.setattr("keystead.manager.session.INDEX_KEYRING", "keystead.later")
    async with world.store.transaction() as work:
        await work.set_restored(True)
    async with world.open() as km:
        with pytest.raises(StoreRestoredError):
            km.hash_field("x")
        with pytest.raises(StoreRestoredError):
            km.local_encrypt(b"x")
        assert km.local_decrypt(sealed) == b"x"


# --- the Go KMS's six operations on data keys


async def test_a_new_data_key_is_the_active_one(km: KeyManager) -> None:
    keys = km.data_keys
    assert km.data_keys is keys
    assert (await keys.generate_data_key()).version == 2
    assert (await keys.generate_data_key("AES-GCM-256")).version == 3
    assert (await keys.rotate_data_key()).version == 4
    active = await keys.get_active_data_key()
    assert (active.version, active.is_active) == (4, True)
    assert (await keys.get_data_key_by_version(2)).state is DataKeyState.DECRYPT_ONLY


async def test_a_data_key_of_another_algorithm_is_not_made(km: KeyManager) -> None:
    with pytest.raises(InvalidAlgorithmError, match="AES-128-GCM"):
        await km.data_keys.generate_data_key("AES-128-GCM")
    assert (await km.get_active_data_key()).version == 1


async def test_only_the_active_version_encrypts(km: KeyManager) -> None:
    first = await km.data_keys.encrypt_with_data_key(b"x", 1)
    await km.rotate_data_key()
    second = await km.data_keys.encrypt_with_data_key(b"y", 2)
    assert (first.version, second.version) == (1, 2)
    assert await km.data_keys.decrypt_with_data_key(first) == b"x"
    assert await km.data_keys.decrypt_with_data_key(second) == b"y"
    for version in (1, 3):
        with pytest.raises(KeyStateError, match="version 2"):
            await km.data_keys.encrypt_with_data_key(b"x", version)


async def test_a_version_made_active_elsewhere_encrypts_at_once(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await one.rotate_data_key()
        assert (await two.data_keys.encrypt_with_data_key(b"x", 2)).version == 2


async def test_a_version_that_is_replaced_meanwhile_does_not_encrypt(
    km: KeyManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = km.get_active_data_key

    async def then_rotate() -> Any:
        info = await known()
        await km.rotate_data_key()
        return info

    monkeypatch.setattr(km, "get_active_data_key", then_rotate)
    with pytest.raises(KeyStateError):
        await km.data_keys.encrypt_with_data_key(b"x", 1)
