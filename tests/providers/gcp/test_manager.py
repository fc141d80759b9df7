"""From end to end: a store whose WRAP key is wrapped by Cloud KMS, opened by its URI."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.cloud.kms_v1.types import service as s

from keystead import GCPKMSProvider, KeyManager
from keystead.blocking import KeyManager as BlockingKeyManager
from keystead.errors import (
    DecryptionError,
    KeyDecryptionFailError,
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.manager import admin
from keystead.model import WRAP_KEYRING, EncryptedData, KeyRecord
from keystead.stores import open_store
from tests.fakes.gcp_kms import FakeCloudKms
from tests.providers.gcp.conftest import Make


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'keys.db'}"


@pytest.fixture
def uri(service: FakeCloudKms, key: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is configured in production, with an endpoint and an authority of its own."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", service.service_account_file)
    return uri_of(service, key)


def uri_of(service: FakeCloudKms, key: str) -> str:
    return f"gcpkms://{key}?endpoint={service.endpoint}&ca_file={service.ca_file}"


def opened(uri: str, url: str, **options: Any) -> KeyManager:
    return KeyManager.open(uri, store=url, background=False, **options)


async def wrap_rows(url: str) -> list[KeyRecord]:
    store = open_store(url)
    try:
        async with store.reading() as work:
            return sorted(await work.keys(keyring=WRAP_KEYRING), key=lambda row: row.version)
    finally:
        await store.aclose()


async def test_a_store_survives_a_restart_a_rotation_a_new_kek_version_and_a_rewrap(
    uri: str, url: str, service: FakeCloudKms, key: str
) -> None:
    async with opened(uri, url) as km:
        old = km.local_encrypt(b"before", context={"row": "1"})
        await km.rotate_data_key(promote="now")
        new = km.local_encrypt(b"after", context={"row": "2"})
    async with opened(uri, url) as km:
        assert km.local_decrypt(old, context={"row": "1"}) == b"before"
        report = await admin.rewrap(km, new_kek_version=True)
        assert report.wrap_keys == 1
    assert {row.kek_version for row in await wrap_rows(url)} == {"2"}
    service.set_state(key, "DESTROYED", 1)
    async with opened(uri, url) as km:
        assert km.local_decrypt(old, context={"row": "1"}) == b"before"
        assert km.local_decrypt(new, context={"row": "2"}) == b"after"


async def test_the_rows_record_key_version_and_algorithm_as_the_service_named_them(
    uri: str, url: str, key: str
) -> None:
    async with opened(uri, url):
        pass
    (row,) = await wrap_rows(url)
    named = (row.kek_provider, row.kek_key_id, row.kek_version, row.kek_algorithm)
    assert named == ("gcp", key, "1", "GOOGLE_SYMMETRIC_ENCRYPTION")


async def test_opening_a_store_is_one_call(uri: str, url: str, service: FakeCloudKms) -> None:
    async with opened(uri, url) as km:
        await km.keyring("a second one")
    service.faults.calls.clear()
    async with opened(uri, url) as km:
        km.local_encrypt(b"value")
    assert service.faults.calls == {"decrypt": 1}


async def test_a_version_that_was_disabled_does_not_open_the_store_and_enabled_again_it_does(
    uri: str, url: str, service: FakeCloudKms, key: str
) -> None:
    async with opened(uri, url) as km:
        blob = km.local_encrypt(b"value")
    service.set_state(key, "DISABLED")
    km = opened(uri, url)
    with pytest.raises(KeyStateError, match="DISABLED"):
        await km.initialize()
    await km.close()
    service.set_state(key, "ENABLED")
    async with opened(uri, url) as km:
        assert km.local_decrypt(blob) == b"value"


async def test_another_key_does_not_open_the_store(uri: str, url: str, service: FakeCloudKms, key: str) -> None:
    async with opened(uri, url):
        pass
    other = service.create_key("other", ring=key.partition("/cryptoKeys/")[0])
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE data_keys SET kek_key_id = ? WHERE keyring = ?", (other, WRAP_KEYRING))
    km = opened(uri, url)
    with pytest.raises((KeyDecryptionFailError, DecryptionError)):
        await km.initialize()
    await km.close()


@pytest.mark.parametrize("half", ["create_crypto_key_version", "update_crypto_key_primary_version"])
async def test_a_rotation_of_the_kek_that_failed_half_way_leaves_the_store_working(
    half: str, uri: str, url: str, service: FakeCloudKms, key: str
) -> None:
    async with opened(uri, url) as km:
        blob = km.local_encrypt(b"value")
        service.faults.fail_next(status="PERMISSION_DENIED", method=half)
        with pytest.raises((KeyRotationError, ProviderAuthError)):
            await admin.rewrap(km, new_kek_version=True)
        assert km.local_decrypt(blob) == b"value"
        await admin.rewrap(km, new_kek_version=True)
        assert km.local_decrypt(blob) == b"value"
    assert len(service.keys.key(key).versions) == 2
    assert {row.kek_version for row in await wrap_rows(url)} == {"2"}


async def test_rows_under_the_version_of_before_a_slow_change_of_primary_are_moved_later(
    uri: str, url: str, service: FakeCloudKms, key: str
) -> None:
    def still_the_old_one(request: Any) -> None:
        request.name = f"{key}/cryptoKeyVersions/1"

    async with opened(uri, url) as km:
        blob = km.local_encrypt(b"value")
        service.faults.change_next_request(still_the_old_one, 10, method="encrypt")
        await admin.rewrap(km, new_kek_version=True, new_wrap_key=False)
        assert {row.kek_version for row in await wrap_rows(url)} == {"1"}
        service.faults.heal()
        report = await km.perform_maintenance()
        assert report.rewrapped == 1
        assert km.local_decrypt(blob) == b"value"
    assert {row.kek_version for row in await wrap_rows(url)} == {"2"}


async def test_what_the_manager_encrypts_is_read_back_by_its_record(uri: str, url: str) -> None:
    async with opened(uri, url, context_prefix="orders") as km:
        data = await km.encrypt(b"value", context={"row": "1"})
        field = await km.encrypt_field({"a": 1}, context={"row": "1"})
        assert await km.decrypt(data.to_dict(), context={"row": "1"}) == b"value"
        assert await km.decrypt_field(str(field)) == {"a": 1}
        pair = await km.generate_data_key(key_spec="AES_128")
        assert len(pair.plaintext_key) == 16
        assert bytes((await km.open_data_key(pair.encrypted_key)).plaintext_key) == bytes(pair.plaintext_key)


async def test_an_outage_at_the_start_is_a_typed_error_and_the_next_start_works(
    uri: str, url: str, service: FakeCloudKms
) -> None:
    km = opened(uri, url)
    service.faults.fail_next(50)
    with pytest.raises(ProviderConnectionError):
        await km.initialize()
    service.faults.heal()
    await km.initialize()
    await km.close()


@pytest.mark.parametrize(("denies", "error"), [(False, KeyNotFoundError), (True, ProviderAuthError)])
async def test_a_store_under_a_key_that_is_not_there_or_not_allowed_says_so(
    denies: bool, error: type[KMSError], *, uri: str, url: str, service: FakeCloudKms, key: str
) -> None:
    if denies:
        service.faults.deny()
    else:
        uri = uri_of(service, f"{key.partition('/cryptoKeys/')[0]}/cryptoKeys/nobody-made-this")
    km = opened(uri, url)
    with pytest.raises(error):
        await km.initialize()
    await km.close()


def test_code_that_is_not_async_opens_the_same_store(uri: str, url: str) -> None:
    with BlockingKeyManager.open(uri, store=url, background=False) as km:
        blob = km.local_encrypt(b"value")
    with BlockingKeyManager.open(uri, store=url, background=False) as km:
        assert km.local_decrypt(blob) == b"value"


async def test_the_documented_manager_is_given_a_provider_and_a_full_name(make: Make, key: str, url: str) -> None:
    provider: GCPKMSProvider = make()
    async with KeyManager(
        providers={"gcp": provider}, default_provider="gcp", default_key_id=key, store=url, background=False
    ) as km:
        assert km.local_decrypt(km.local_encrypt(b"value")) == b"value"


def stored_by_fraiseql(
    service: FakeCloudKms, key: str, typed: str, plaintext: bytes, context: dict[str, str]
) -> dict[str, Any]:
    """Return a record as FraiseQL stored it: bound to the context's JSON, and naming the key as it was typed."""
    aad = json.dumps(context, sort_keys=True).encode() if context else b""
    request = s.EncryptRequest(name=key, plaintext=plaintext, additional_authenticated_data=aad)
    answer = service.serve("encrypt", request, service.tokens.issue())
    return {
        "ciphertext": answer.ciphertext.hex(),
        "key_id": f"gcp:{typed}",
        "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION",
        "encrypted_at": "2025-11-24T10:00:00+00:00",
        "context": context,
    }


@pytest.mark.parametrize("is_short", [False, True])
async def test_what_fraiseql_stored_is_read_by_the_manager(
    is_short: bool, uri: str, url: str, service: FakeCloudKms, key: str
) -> None:
    context = {"service": "orders", "_encoding": "utf-8", "place": "café"}
    typed = key.rpartition("/")[2] if is_short else key
    stored = stored_by_fraiseql(service, key, typed, "naïve".encode(), context)
    async with opened(uri, url) as km:
        assert await km.decrypt_field(stored) == "naïve"
        assert await km.decrypt(stored_by_fraiseql(service, key, typed, b"value", {})) == b"value"
        with pytest.raises(DecryptionError):
            await km.decrypt(stored | {"context": context | {"place": "cafe"}})


async def test_foreign_data_is_not_read_as_ours_and_ours_is_not_foreign(
    make: Make, service: FakeCloudKms, key: str
) -> None:
    provider = make()
    foreign = EncryptedData.from_dict(stored_by_fraiseql(service, key, key, b"value", {"a": "b"}))
    assert await provider.decrypt_foreign(foreign) == b"value"
    with pytest.raises(DecryptionError):
        await provider.decrypt(foreign)
    with pytest.raises(DecryptionError):
        await provider.decrypt_foreign(await provider.encrypt(b"value", key, context={"a": "b"}))
