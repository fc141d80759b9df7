"""FraiseQL's records and the Go KMS's values are read, by their vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager, LocalKMSConfig, LocalKMSProvider, blocking
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError
from keystead.fields import importer, reencrypt
from keystead.testing import FakeKMS
from tests.crypto.vectors import load
from tests.fields.application import EMAIL, Application
from tests.fields.test_reencrypt import values
from tests.legacy.conftest import km, new_manager, old_db, root
from tests.legacy.sources import KEY, PLAINTEXT, VECTORS, OldKey, build

__all__ = ["km", "new_manager", "old_db", "root"]

UNTIL = date(2099, 12, 31)
LEGACY = load("legacy.json")
LOCAL_KEY = bytes.fromhex(LEGACY["fraiseql"]["local"]["key"])
RECORDS: list[dict[str, Any]] = LEGACY["fraiseql"]["records"]
TEXT: str = VECTORS["field"]["text"]


@pytest.mark.parametrize("case", RECORDS, ids=[case["comment"] for case in RECORDS])
async def test_records_of_fraiseql_are_read_under_the_master_key_or_through_the_provider(case: dict[str, Any]) -> None:
    plaintext, record = bytes.fromhex(case["plaintext"]), case["dict"]
    local = importer("fraiseql", keys=[bytes(32), LOCAL_KEY], type=bytes, until=UNTIL)
    provider = LocalKMSProvider(LocalKMSConfig(master_key=LOCAL_KEY))
    remote = importer("fraiseql", providers={"local": provider}, type=bytes, until=UNTIL)
    for stored in (record, json.dumps(record), json.dumps(record, sort_keys=True).encode()):
        assert local.recognises(stored)
        assert local.read(stored) == plaintext
        assert await remote.fetch_many([stored]) == [plaintext]
    with pytest.raises(DecryptionError):
        importer("fraiseql", keys=bytes(32), until=UNTIL).read(record)


def test_records_that_fraiseql_itself_wrote_are_read() -> None:
    # The library needs a newer Python than the oldest that Keystead runs on, so that its records are kept here.
    written = json.loads((Path(__file__).parent / "recorded" / "fraiseql-1.8.9.json").read_text())
    master_key = bytes.fromhex(written["master_key"])
    for case in written["records"]:
        reading = importer("fraiseql", keys=master_key, type=str if case["is_text"] else bytes, until=UNTIL)
        value = case["plaintext"] if case["is_text"] else bytes.fromhex(case["plaintext"])
        assert reading.read(case["dict"]) == reading.read(json.dumps(case["dict"], sort_keys=True)) == value


async def test_records_of_keystead_and_of_other_providers_are_no_records_of_fraiseql() -> None:
    record = RECORDS[0]["dict"]
    reading = importer("fraiseql", keys=LOCAL_KEY, until=UNTIL)
    for other in ({**record, "version": 1}, {"ciphertext": "00"}, "{", "[]", "null", '{"a": ' * 5000):
        assert not reading.recognises(other)
        with pytest.raises(InvalidCiphertextError):
            reading.read(other)
    with pytest.raises(DecryptionError):
        reading.read({**record, "ciphertext": "zz"})
    provider = LocalKMSProvider(LocalKMSConfig(master_key=LOCAL_KEY))
    [found] = await importer("fraiseql", providers={"vault": provider}, until=UNTIL).fetch_many([record])
    assert isinstance(found, InvalidCiphertextError)


@pytest.mark.parametrize("given", [{}, {"keys": b"short"}, {"providers": {}}, {"providers": {"a": object()}}])
def test_options_of_fraiseql_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        importer("fraiseql", until=UNTIL, **given)


async def test_a_column_of_the_go_kms_is_converted_once_its_keys_are_imported(
    km: KeyManager, old_db: str, root: Callable[[], bytes], sqlite_app: Application
) -> None:
    build(old_db, "data_keys", [OldKey()])
    sqlite_app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES, old TEXT)")
    forms = [TEXT, VECTORS["field"]["json"], VECTORS["old_text"], "02.hash", TEXT.replace("v17", "v18")]
    sqlite_app.fill("INSERT INTO people (id, old) VALUES (:a, :b)", enumerate(forms, 1))
    reading = importer("kratos-kms", km=km, old_text_key=KEY, until=UNTIL)
    await km.import_legacy(old_db, root)
    [missing] = await reading.fetch_many([forms[-1]])
    assert isinstance(missing, DecryptionError)
    assert "keystead import legacy" in str(missing)
    report = await reencrypt(km, sqlite_app.url, EMAIL, plaintext_column="old", importer=reading)
    assert {failure.key: failure.reason for failure in report.failures} == {
        "[4]": "invalid_ciphertext",
        "[5]": "decryption",
    }
    assert (report.imported, report.failed) == (3, 2)
    assert [*values(sqlite_app, km).values()] == [PLAINTEXT.decode()] * 3 + [None, None]


def test_texts_under_another_key_are_not_tried_without_it() -> None:
    with blocking.KeyManager({"cloud": FakeKMS()}, default_key_id="app", store="memory://") as manager:
        reading = importer("kratos-kms", km=manager, until=UNTIL)
        assert not reading.recognises(VECTORS["old_text"])
        assert reading.recognises(TEXT)
        assert (
            importer("kratos-kms", km=manager, old_text_key=KEY, until=UNTIL).read(VECTORS["old_text"])
            == PLAINTEXT.decode()
        )


@pytest.mark.parametrize("given", [{"km": object()}, {}])
def test_options_of_the_go_kms_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        importer("kratos-kms", until=UNTIL, **given)
