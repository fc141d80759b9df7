"""Per-request data that FraiseQL's local KMS wrote, read under the same master key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keystead import EncryptedData, KeyManager, LocalKMSConfig, LocalKMSProvider, telemetry
from keystead.crypto.legacy import fraiseql_local_aads
from keystead.errors import DecryptionError, SystemShutdownError
from keystead.ports import ReadsForeignData
from keystead.providers.guard import GuardedProvider
from keystead.testing import FakeKMS
from tests.crypto.vectors import load

FRAISEQL = load("legacy.json")["fraiseql"]
MASTER_KEY = bytes.fromhex(FRAISEQL["local"]["key"])
RECORDS: dict[str, dict[str, Any]] = {case["comment"]: case for case in FRAISEQL["records"]}
RECORD: dict[str, Any] = RECORDS["encrypt"]["dict"]
PLAINTEXT = bytes.fromhex(RECORDS["encrypt"]["plaintext"])

every_record = pytest.mark.parametrize("case", RECORDS.values(), ids=RECORDS)


@pytest.fixture
async def km() -> AsyncIterator[KeyManager]:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=MASTER_KEY))
    manager = KeyManager({"local": provider}, store="memory://", provider_aliases={"dev": "local"})
    yield manager
    await manager.close()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    forms: list[str] = []
    monkeypatch.setattr(telemetry, "legacy_read", forms.append)
    return forms


@every_record
async def test_its_records_are_read_and_counted(km: KeyManager, counted: list[str], case: dict[str, Any]) -> None:
    assert await km.decrypt(case["dict"]) == bytes.fromhex(case["plaintext"])
    assert counted == ["fraiseql"]


@every_record
async def test_its_records_are_read_after_a_database_sorted_their_context(km: KeyManager, case: dict[str, Any]) -> None:
    sorted_record = json.loads(json.dumps(case["dict"], sort_keys=True))

    assert await km.decrypt(sorted_record) == bytes.fromhex(case["plaintext"])


async def test_the_documents_bare_reference_is_read(km: KeyManager) -> None:
    bare = {**RECORD, "key_reference": {"provider": "local", "key_id": "orders"}}
    del bare["key_id"]

    assert await km.decrypt(bare) == PLAINTEXT


async def test_another_instance_name_is_mapped(km: KeyManager) -> None:
    assert await km.decrypt({**RECORD, "key_id": "dev:orders"}) == PLAINTEXT


async def test_a_text_field_comes_back_as_text_and_a_bytes_field_as_bytes(km: KeyManager) -> None:
    assert await km.decrypt_field(RECORDS["encrypt_field of text"]["dict"]) == "na\u00efve"
    assert await km.decrypt_field(RECORDS["encrypt_field of bytes, with a prefix"]["dict"]) == b"\x00\xff"


async def test_a_field_of_another_type_is_refused(km: KeyManager) -> None:
    with pytest.raises(DecryptionError, match="not a field of that type"):
        await km.decrypt_field(RECORDS["encrypt_field of text"]["dict"], field_type="bytes")


async def test_the_callers_context_is_compared_without_its_hidden_pair(km: KeyManager) -> None:
    record = RECORDS["encrypt_field of text"]["dict"]

    assert await km.decrypt_field(record, context={"a": "1", "b": "2"}) == "na\u00efve"
    with pytest.raises(DecryptionError):
        await km.decrypt_field(record, context={"a": "1"})


async def test_a_data_key_of_it_opens_what_it_sealed(km: KeyManager) -> None:
    record = RECORDS["the wrapped half of generate_data_key"]

    pair = await km.open_data_key(record["dict"])

    assert bytes(pair.plaintext_key) == bytes.fromhex(record["plaintext"])
    assert pair.decrypt(pair.encrypt(b"data")) == b"data"


async def test_a_record_of_our_version_is_never_read_that_way(km: KeyManager, counted: list[str]) -> None:
    with pytest.raises(DecryptionError):
        await km.decrypt({**RECORD, "version": 1})
    with pytest.raises(DecryptionError):
        await km.decrypt(EncryptedData.from_dict(RECORD))
    assert counted == []


async def test_our_own_data_in_the_bare_form_is_read_and_not_counted(km: KeyManager, counted: list[str]) -> None:
    ours = (await km.encrypt(b"ours", context={"a": "b"})).to_dict()
    del ours["version"]

    assert await km.decrypt(ours) == b"ours"
    assert counted == []


@pytest.mark.parametrize(
    "change",
    [
        {"context": {"table": "users"}},
        {"context": {}},
        {"ciphertext": RECORD["ciphertext"][:-2] + "00"},
        {"ciphertext": ""},
        {"ciphertext": "00" * 27},
    ],
)
async def test_an_altered_record_is_refused(km: KeyManager, counted: list[str], change: dict[str, Any]) -> None:
    with pytest.raises(DecryptionError):
        await km.decrypt({**RECORD, **change})
    assert counted == []


async def test_another_master_key_is_refused() -> None:
    other = LocalKMSProvider(LocalKMSConfig(master_key=bytes(32)))
    manager = KeyManager({"local": other}, store="memory://")

    with pytest.raises(DecryptionError):
        await manager.decrypt(RECORD)
    await manager.close()


async def test_every_bit_of_a_record_counts() -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=MASTER_KEY))
    ciphertext = bytes.fromhex(RECORD["ciphertext"])
    for bit in range(len(ciphertext) * 8):
        altered = bytearray(ciphertext)
        altered[bit // 8] ^= 0x80 >> (bit % 8)
        with pytest.raises(DecryptionError):
            await provider.decrypt_foreign(EncryptedData.from_dict({**RECORD, "ciphertext": altered.hex()}))


async def test_a_closed_manager_reads_no_record(km: KeyManager) -> None:
    await km.close()

    with pytest.raises(SystemShutdownError):
        await km.decrypt(RECORD)


def test_the_order_of_a_large_context_is_not_guessed() -> None:
    small, large = {str(n): "" for n in range(6)}, {str(n): "" for n in range(7)}

    assert len(set(fraiseql_local_aads(small))) == 720
    assert len(list(fraiseql_local_aads(large))) == 1


def test_a_provider_has_the_capability_behind_the_guard_as_well() -> None:
    local = GuardedProvider(LocalKMSProvider(LocalKMSConfig(master_key=MASTER_KEY)), "local")
    fake = GuardedProvider(FakeKMS(), "fake")

    assert isinstance(local, ReadsForeignData)
    assert not isinstance(fake, ReadsForeignData)
