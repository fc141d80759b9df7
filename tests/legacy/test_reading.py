from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from keystead import KeyManager, telemetry
from keystead.crypto.envelope import is_envelope
from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidCiphertextError,
    InvalidInputError,
    KeyNotFoundError,
    SystemShutdownError,
)
from tests.legacy.sources import KEY, PLAINTEXT, VECTORS, OldKey, build, old_keys, old_text

FIELD = VECTORS["field"]
TEXT: str = FIELD["text"]
OLD_TEXT: str = VECTORS["old_text"]


@pytest.fixture
async def imported(km: KeyManager, old_db: str, root: Callable[[], bytes]) -> KeyManager:
    build(old_db, "data_keys", [OldKey()])
    await km.import_legacy(old_db, root)
    return km


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    forms: list[str] = []
    monkeypatch.setattr(telemetry, "legacy_read", forms.append)
    return forms


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (TEXT, "text"),
        (TEXT.encode(), "text"),
        (memoryview(TEXT.encode()), "text"),
        (FIELD["json"], "json"),
        (FIELD["json"].encode(), "json"),
        (json.loads(FIELD["json"]), "json"),
    ],
)
async def test_every_form_is_read_and_counted(imported: KeyManager, counted: list[str], value: Any, form: str) -> None:
    assert await imported.decrypt_legacy(value) == PLAINTEXT
    assert counted == [form]


async def test_an_old_text_is_read_with_the_key_it_was_made_with(km: KeyManager, counted: list[str]) -> None:
    assert await km.decrypt_legacy(OLD_TEXT, old_text_key=KEY) == PLAINTEXT
    assert counted == ["old_text"]


async def test_an_old_text_without_its_key_says_which_argument_is_missing(km: KeyManager) -> None:
    with pytest.raises(InvalidInputError, match="old_text_key="):
        await km.decrypt_legacy(OLD_TEXT)


async def test_an_old_hash_is_told_from_a_ciphertext(km: KeyManager) -> None:
    with pytest.raises(InvalidCiphertextError, match="SM3 hash"):
        await km.decrypt_legacy("02.AAAA.AAAA")


async def test_another_process_reads_what_was_imported(
    imported: KeyManager, new_manager: Callable[[], KeyManager]
) -> None:
    async with new_manager() as other:
        assert await other.decrypt_legacy(TEXT) == PLAINTEXT


async def test_a_key_imported_by_another_process_is_fetched(
    km: KeyManager, new_manager: Callable[[], KeyManager], old_db: str, tmp_path: Any, root: Callable[[], bytes]
) -> None:
    one, two = old_keys(2)
    build(old_db, "data_keys", [one])
    build(f"sqlite:///{tmp_path / 'more.db'}", "data_keys", [one, two])
    await km.import_legacy(old_db, root)
    assert await km.decrypt_legacy(old_text(one)) == PLAINTEXT
    async with new_manager() as other:
        await other.import_legacy(f"sqlite:///{tmp_path / 'more.db'}", root)

    assert await km.decrypt_legacy(old_text(two)) == PLAINTEXT


async def test_a_key_that_was_not_imported_is_named_with_the_cure(km: KeyManager) -> None:
    with pytest.raises(KeyNotFoundError, match=f"{FIELD['version']} was imported; `keystead import legacy --from`"):
        await km.decrypt_legacy(TEXT)


async def test_invented_versions_cost_a_bounded_number_of_reads(
    imported: KeyManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = (await imported.session()).surroundings.store
    reads, reading = 0, store.reading

    def counting() -> Any:
        nonlocal reads
        reads += 1
        return reading()

    monkeypatch.setattr(store, "reading", counting)
    for number in range(1_000):
        with pytest.raises((KeyNotFoundError, DataKeyNotLoadedError)):
            await imported.decrypt_legacy(TEXT.replace(FIELD["version"], f"v{number % 500}"))

    assert reads <= 101


async def test_an_unknown_version_is_not_looked_for_again_at_once(
    km: KeyManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = (await km.session()).surroundings.store
    with pytest.raises(KeyNotFoundError):
        await km.decrypt_legacy(TEXT)
    monkeypatch.setattr(store, "reading", None)

    with pytest.raises(KeyNotFoundError):
        await km.decrypt_legacy(TEXT)


async def test_altered_bytes_are_a_decryption_error(imported: KeyManager, counted: list[str]) -> None:
    with pytest.raises(DecryptionError):
        await imported.decrypt_legacy(TEXT[:-1] + ("0" if TEXT[-1] != "0" else "1"))
    assert counted == []


@pytest.mark.parametrize("value", [b"\xae\x01", "", "x", "{}", b"{", {}])
async def test_what_is_no_legacy_value_is_refused(km: KeyManager, value: Any) -> None:
    with pytest.raises(InvalidCiphertextError):
        await km.decrypt_legacy(value)


async def test_what_cannot_be_a_value_is_refused_by_type(km: KeyManager) -> None:
    with pytest.raises(InvalidInputError, match="not int"):
        await km.decrypt_legacy(5)  # type: ignore[arg-type]


async def test_the_first_read_of_each_name_is_logged(imported: KeyManager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "keystead.manager")
    for name in ("email", "email", "phone", None):
        await imported.decrypt_legacy(TEXT, name=name)

    assert [getattr(record, "field", "") for record in caplog.records] == ["email", "phone", None]


async def test_a_value_moves_to_an_envelope_bound_to_its_context(imported: KeyManager) -> None:
    envelope = await imported.reencrypt_legacy(TEXT, context={"field": "email"})

    assert is_envelope(envelope)
    assert imported.local_decrypt(envelope, context={"field": "email"}) == PLAINTEXT
    with pytest.raises(DecryptionError):
        imported.local_decrypt(envelope)


async def test_the_crypto_service_reads_no_value_without_an_authenticated_name(imported: KeyManager) -> None:
    with pytest.raises(InvalidInputError, match="decrypt_legacy"):
        await imported.crypto_service.decrypt_field(TEXT)  # type: ignore[arg-type]


async def test_a_closed_manager_reads_nothing(imported: KeyManager) -> None:
    await imported.decrypt_legacy(TEXT)
    await imported.close()

    with pytest.raises(SystemShutdownError):
        await imported.decrypt_legacy(TEXT)
    with pytest.raises(SystemShutdownError):
        await imported.decrypt_legacy(OLD_TEXT, old_text_key=KEY)
