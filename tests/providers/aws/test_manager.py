"""From end to end: a store whose WRAP key is wrapped by AWS KMS, named by an alias."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager
from keystead.blocking import KeyManager as BlockingKeyManager
from keystead.errors import KeyNotFoundError, ProviderConnectionError
from keystead.manager import admin
from keystead.manager.doctor import examine_uri
from keystead.manager.findings import Health
from keystead.model import WRAP_KEYRING, KeyRecord
from keystead.runtime.clock import SystemClock
from keystead.stores import open_store
from tests.providers.subjects.aws import faults_of
from tests.services.aws import AwsService


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'keys.db'}"


def opened(moto: AwsService, alias: str, url: str, **options: Any) -> KeyManager:
    return KeyManager.open(moto.uri(alias), store=url, background=False, **options)


async def wrap_rows(url: str) -> list[KeyRecord]:
    store = open_store(url)
    try:
        async with store.reading() as work:
            return sorted(await work.keys(keyring=WRAP_KEYRING), key=lambda row: row.version)
    finally:
        await store.aclose()


async def test_a_store_survives_a_restart_a_rotation_and_a_rewrap(moto: AwsService, url: str) -> None:
    alias = moto.point("store", moto.key("first"))
    async with opened(moto, alias, url) as km:
        old = km.local_encrypt(b"before", context={"row": "1"})
        await km.rotate_data_key(promote="now")
        new = km.local_encrypt(b"after", context={"row": "2"})
    async with opened(moto, alias, url) as km:
        assert km.local_decrypt(old, context={"row": "1"}) == b"before"
        await admin.rewrap(km, new_kek_version=True)
    async with opened(moto, alias, url) as km:
        assert km.local_decrypt(old, context={"row": "1"}) == b"before"
        assert km.local_decrypt(new, context={"row": "2"}) == b"after"


async def test_the_rows_record_the_arn_and_not_the_alias(moto: AwsService, url: str) -> None:
    alias = moto.point("store", moto.key("first"))
    async with opened(moto, alias, url):
        pass
    (row,) = await wrap_rows(url)
    assert (row.kek_provider, row.kek_key_id, row.kek_algorithm) == ("aws", moto.key("first"), "SYMMETRIC_DEFAULT")


async def test_an_alias_that_moved_wraps_new_keys_under_the_new_key_and_leaves_old_rows_readable(
    moto: AwsService, url: str
) -> None:
    first, second = moto.create(), moto.create()
    alias = moto.point("moves", first)
    async with opened(moto, alias, url) as km:
        old = km.local_encrypt(b"before")
    moto.point("moves", second)
    async with opened(moto, alias, url) as km:
        assert km.local_decrypt(old) == b"before"
        await admin.rewrap(km)
        assert km.local_decrypt(old) == b"before"
    assert [row.kek_key_id for row in await wrap_rows(url)] == [second, second]


async def test_a_new_wrap_version_is_under_the_alias_of_now_before_anything_is_rewrapped(
    moto: AwsService, url: str
) -> None:
    first, second = moto.create(), moto.create()
    alias = moto.point("moves-too", first)
    async with opened(moto, alias, url):
        pass
    moto.point("moves-too", second)
    async with opened(moto, alias, url) as km:
        session = await km.session()
        await session.lifecycle.rotation.rotate(WRAP_KEYRING, promote="now")
        blob = km.local_encrypt(b"value")
    assert [row.kek_key_id for row in await wrap_rows(url)] == [first, second]
    async with opened(moto, alias, url) as km:
        assert km.local_decrypt(blob) == b"value"


async def test_maintenance_brings_rows_of_a_former_key_under_the_alias_of_now(moto: AwsService, url: str) -> None:
    first, second = moto.create(), moto.create()
    alias = moto.point("moves-again", first)
    async with opened(moto, alias, url):
        pass
    moto.point("moves-again", second)
    async with opened(moto, alias, url) as km:
        report = await km.perform_maintenance()
        assert report.rewrapped == 1
    assert [row.kek_key_id for row in await wrap_rows(url)] == [second]


async def test_opening_a_store_is_one_call_to_aws(moto: AwsService, url: str) -> None:
    alias = moto.point("store", moto.key("first"))
    async with opened(moto, alias, url) as km:
        await km.keyring("a second one")
    faults = faults_of(moto)
    assert faults is not None
    before = faults.calls()
    async with opened(moto, alias, url) as km:
        km.local_encrypt(b"value")
    assert faults.calls() - before == 1


async def test_what_the_manager_encrypts_by_aws_is_read_back_by_its_record(moto: AwsService, url: str) -> None:
    alias = moto.point("store", moto.key("first"))
    async with opened(moto, alias, url, context_prefix="orders") as km:
        data = await km.encrypt(b"value", context={"row": "1"})
        field = await km.encrypt_field({"a": 1}, context={"row": "1"})
        assert await km.decrypt(data.to_dict(), context={"row": "1"}) == b"value"
        assert await km.decrypt_field(str(field)) == {"a": 1}
        pair = await km.generate_data_key(key_spec="AES_128")
        assert bytes((await km.open_data_key(pair.encrypted_key)).plaintext_key) == bytes(pair.plaintext_key)


async def test_what_fraiseql_stored_is_read_by_the_manager(moto: AwsService, url: str) -> None:
    alias = moto.point("store", moto.key("first"))
    context = {"service": "orders", "_encoding": "utf-8"}
    blob = moto.admin.encrypt(KeyId=alias, Plaintext="naïve".encode(), EncryptionContext=context)["CiphertextBlob"]
    stored = {
        "ciphertext": blob.hex(),
        "key_id": f"aws:{alias}",
        "algorithm": "SYMMETRIC_DEFAULT",
        "encrypted_at": "2025-11-24T10:00:00+00:00",
        "context": context,
    }
    async with opened(moto, alias, url) as km:
        assert await km.decrypt_field(stored) == "naïve"


async def test_an_outage_at_the_start_is_a_typed_error_and_the_next_start_works(moto: AwsService, url: str) -> None:
    alias = moto.point("store", moto.key("first"))
    faults = faults_of(moto)
    assert faults is not None
    km = opened(moto, alias, url)
    faults.fail_next(50)
    with pytest.raises(ProviderConnectionError):
        await km.initialize()
    faults.heal()
    await km.initialize()
    await km.close()


async def test_a_store_under_a_key_that_is_not_there_says_so(moto: AwsService, url: str) -> None:
    km = opened(moto, "alias/nobody-made-this", url)
    with pytest.raises(KeyNotFoundError):
        await km.initialize()
    await km.close()


def test_code_that_is_not_async_opens_the_same_store(moto: AwsService, url: str) -> None:
    alias = moto.point("store", moto.key("first"))
    with BlockingKeyManager.open(moto.uri(alias), store=url, background=False) as km:
        blob = km.local_encrypt(b"value")
    with BlockingKeyManager.open(moto.uri(alias), store=url, background=False) as km:
        assert km.local_decrypt(blob) == b"value"


async def test_the_doctor_finds_nothing_wrong_with_a_key_of_the_service(moto: AwsService) -> None:
    uri = moto.uri(moto.point("store", moto.key("first")))
    report = await examine_uri(uri, clock=SystemClock(), random=os.urandom, deadline_s=60.0)
    assert [finding for finding in report.findings if finding.status is Health.FAIL] == []
