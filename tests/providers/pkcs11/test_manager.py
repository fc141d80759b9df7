"""From end to end: a store whose WRAP key is wrapped inside a token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager, Pkcs11KMSProvider
from keystead.blocking import KeyManager as BlockingKeyManager
from keystead.errors import KeyNotFoundError, KeyStateError, ProviderAuthError, ProviderConnectionError
from keystead.manager import admin
from keystead.model import WRAP_KEYRING, KeyRecord
from keystead.stores import open_store
from tests.providers.pkcs11.faulty import Faults
from tests.services.softhsm import PIN, SoftHsm


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'keys.db'}"


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    file = tmp_path / "pin"
    file.write_text(PIN)
    file.chmod(0o600)
    return file


@pytest.fixture
def uri(softhsm: SoftHsm, key: str, pin_file: Path) -> str:
    return f"pkcs11:token=kms;object={key}?module-path={softhsm.path}&pin-source=file:{pin_file}"


def opened(uri: str, url: str, **options: Any) -> KeyManager:
    return KeyManager.open(uri, store=url, background=False, **options)


async def wrap_rows(url: str) -> list[KeyRecord]:
    store = open_store(url)
    try:
        async with store.reading() as work:
            return sorted(await work.keys(keyring=WRAP_KEYRING), key=lambda row: row.version)
    finally:
        await store.aclose()


@pytest.mark.parametrize("uses", ["ENCRYPT DECRYPT", "WRAP UNWRAP"])
async def test_a_store_survives_a_restart_a_rotation_a_new_kek_version_and_the_loss_of_the_old_one(
    softhsm: SoftHsm, uri: str, key: str, url: str, uses: str
) -> None:
    softhsm.set_attributes(key, **{use: use in uses for use in ("ENCRYPT", "DECRYPT", "WRAP", "UNWRAP")})
    async with opened(uri, url) as km:
        old = km.local_encrypt(b"before", context={"row": "1"})
        await km.rotate_data_key(promote="now")
        new = km.local_encrypt(b"after", context={"row": "2"})
    async with opened(uri, url) as km:
        assert km.local_decrypt(old, context={"row": "1"}) == b"before"
        report = await admin.rewrap(km, new_kek_version=True)
        assert report.wrap_keys == 1
    (version,) = {row.kek_version for row in await wrap_rows(url)}
    assert version != "01"
    softhsm.destroy(key, id_hex="01")
    async with opened(uri, url) as km:
        assert km.local_decrypt(old, context={"row": "1"}) == b"before"
        assert km.local_decrypt(new, context={"row": "2"}) == b"after"


async def test_the_rows_record_label_id_and_mechanism(uri: str, key: str, url: str) -> None:
    async with opened(uri, url):
        pass
    (row,) = await wrap_rows(url)
    named = (row.kek_provider, row.kek_key_id, row.kek_version, row.kek_algorithm)
    assert named == ("pkcs11", key, "01", "CKM_AES_GCM")


async def test_maintenance_moves_the_rows_to_a_version_that_the_tokens_own_tool_made(
    softhsm: SoftHsm, uri: str, key: str, url: str
) -> None:
    async with opened(uri, url) as km:
        blob = km.local_encrypt(b"value")
        softhsm.make_aes(key, id_hex="02")
        report = await km.perform_maintenance()
        assert report.rewrapped == 1
        assert km.local_decrypt(blob) == b"value"
    assert [row.kek_version for row in await wrap_rows(url)] == ["02"]


async def test_opening_a_store_is_one_turn(softhsm: SoftHsm, uri: str, url: str) -> None:
    async with opened(uri, url) as km:
        await km.keyring("a second one")
    before = softhsm.module.worker.turns
    km = opened(uri, url)
    await km.initialize()
    assert softhsm.module.worker.turns - before == 1
    await km.close()


async def test_a_wrong_pin_at_the_start_is_tried_once_and_a_corrected_one_opens_the_store(
    softhsm: SoftHsm, uri: str, url: str, pin_file: Path, faults: Faults
) -> None:
    softhsm.module._refused.clear()
    pin_file.write_text("wrong")
    for _ in range(2):
        km = opened(uri, url)
        with pytest.raises(ProviderAuthError):
            await km.initialize()
        await km.close()
    assert faults.calls["open"] == 1
    pin_file.write_text(PIN)
    async with opened(uri, url) as km:
        assert km.local_decrypt(km.local_encrypt(b"value")) == b"value"


async def test_a_token_that_is_missing_at_the_start_is_a_typed_error_and_the_same_manager_starts_when_it_is_back(
    softhsm: SoftHsm, uri: str, url: str
) -> None:
    async with opened(uri, url) as km:
        blob = km.local_encrypt(b"value")
    softhsm.remove_tokens()
    km = opened(uri, url)
    with pytest.raises(ProviderConnectionError):
        await km.initialize()
    softhsm.insert_tokens()
    await km.initialize()
    assert km.local_decrypt(blob) == b"value"
    await km.close()


async def test_data_is_encrypted_while_the_token_is_away(softhsm: SoftHsm, uri: str, url: str) -> None:
    async with opened(uri, url) as km:
        softhsm.remove_tokens()
        blob = km.local_encrypt(b"value")
        with pytest.raises(ProviderConnectionError):
            await km.encrypt(b"value")
        softhsm.insert_tokens()
        assert km.local_decrypt(blob) == b"value"
        assert await km.decrypt(await km.encrypt(b"value")) == b"value"


async def test_a_key_that_was_disabled_or_destroyed_does_not_open_the_store(
    softhsm: SoftHsm, uri: str, key: str, url: str
) -> None:
    async with opened(uri, url):
        pass
    softhsm.set_attributes(key, ENCRYPT=False, DECRYPT=False)
    await refused(uri, url, KeyStateError)
    softhsm.destroy(key)
    await refused(uri, url, KeyNotFoundError)


async def refused(uri: str, url: str, error: type[Exception]) -> None:
    km = opened(uri, url)
    with pytest.raises(error):
        await km.initialize()
    await km.close()


async def test_what_the_manager_encrypts_in_the_token_is_read_back_by_its_record(uri: str, url: str) -> None:
    async with opened(uri, url, context_prefix="orders") as km:
        data = await km.encrypt(b"value", context={"row": "1"})
        field = await km.encrypt_field({"a": 1}, context={"row": "1"})
        assert await km.decrypt(data.to_dict(), context={"row": "1"}) == b"value"
        assert await km.decrypt_field(str(field)) == {"a": 1}
        pair = await km.generate_data_key(key_spec="AES_128")
        assert len(pair.plaintext_key) == 16
        assert bytes((await km.open_data_key(pair.encrypted_key)).plaintext_key) == bytes(pair.plaintext_key)


def test_code_that_is_not_async_opens_the_same_store(uri: str, url: str) -> None:
    with BlockingKeyManager.open(uri, store=url, background=False) as km:
        blob = km.local_encrypt(b"value")
    with BlockingKeyManager.open(uri, store=url, background=False) as km:
        assert km.local_decrypt(blob) == b"value"


async def test_a_provider_given_by_hand_works_without_a_uri(softhsm: SoftHsm, key: str, url: str) -> None:
    provider = Pkcs11KMSProvider(softhsm.config())
    async with KeyManager(
        providers={"hsm": provider}, default_provider="hsm", default_key_id=key, store=url, background=False
    ) as km:
        assert km.local_decrypt(km.local_encrypt(b"value")) == b"value"
    (row,) = await wrap_rows(url)
    assert row.kek_provider == "hsm"


@pytest.mark.parametrize("key_id", ["object={};id=%01", "object={}"])
async def test_a_store_opens_under_each_spelling_of_a_key_id_and_records_the_label(
    softhsm: SoftHsm, key: str, url: str, key_id: str
) -> None:
    provider = Pkcs11KMSProvider(softhsm.config())
    async with KeyManager(
        providers={"hsm": provider},
        default_provider="hsm",
        default_key_id=key_id.format(key),
        store=url,
        background=False,
    ) as km:
        assert km.local_decrypt(km.local_encrypt(b"value")) == b"value"
    (row,) = await wrap_rows(url)
    assert (row.kek_key_id, row.kek_version) == (key, "01")
