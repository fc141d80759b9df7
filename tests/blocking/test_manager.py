"""``keystead.blocking``: the manager, its keyrings and its services, from code that is not async."""

from __future__ import annotations

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keystead.blocking import KeyManager
from keystead.errors import (
    AlreadyInitializedError,
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    NotInitializedError,
    StoreUnavailableError,
    SystemShutdownError,
)
from keystead.manager.installation import install
from keystead.providers.local.provider import LocalKMSProvider
from keystead.runtime.loop import background_loop


def test_what_it_encrypts_it_decrypts_after_a_rotation(km: KeyManager) -> None:
    sealed = km.local_encrypt(b"mercury", context={"row": "1"})
    assert km.rotate_data_key().version == 2
    assert km.local_decrypt(sealed, context={"row": "1"}) == b"mercury"


def test_the_hot_path_is_the_keyrings_own(km: KeyManager) -> None:
    assert km.local_encrypt is km.default.ring.local_encrypt


def test_local_decrypt_fetches_a_data_key_that_is_not_loaded(
    km: KeyManager, provider: LocalKMSProvider, store: str
) -> None:
    with KeyManager({"local": provider}, store=store, background=False) as other:
        other.rotate_data_key(promote="now")
        sealed = other.local_encrypt(b"venus")
        key_id = other.default.data_key_id(sealed)
    assert key_id not in km.default.ring.snapshot.keys
    assert km.local_decrypt(sealed) == b"venus"


def test_an_id_that_the_store_does_not_know_is_named(km: KeyManager) -> None:
    sealed = bytearray(km.local_encrypt(b"mars"))
    sealed[2:10] = (7).to_bytes(8, "big")
    with pytest.raises(DataKeyNotLoadedError) as caught:
        km.decrypt_local(bytes(sealed))
    assert caught.value.data_key_id == 7


def test_a_keyring_is_a_handle_with_the_same_members(km: KeyManager) -> None:
    acme = km.keyring("acme")
    sealed = acme.local_encrypt(b"jupiter")
    acme.rotate()
    assert acme.needs_reencrypt(sealed)
    again = acme.reencrypt(sealed)
    assert acme.decrypt_local(again) == b"jupiter"
    assert [info.version for info in acme.versions()] == [1, 2]
    assert acme.promote() is None
    assert acme.get_rotation_policy().last_rotation is not None
    assert "acme" in repr(acme)


def test_a_keyring_that_must_exist_is_missed(km: KeyManager) -> None:
    with pytest.raises(KeyNotFoundError):
        km.keyring("never made", create=False)


def test_per_request_calls_reach_the_kms(km: KeyManager) -> None:
    sealed = km.encrypt(b"saturn", context={"purpose": "test"})
    assert km.decrypt(sealed, context={"purpose": "test"}) == b"saturn"
    field = km.encrypt_field({"rings": 7})
    assert km.decrypt_field(field, field_type="json") == {"rings": 7}
    pair = km.generate_data_key()
    assert km.open_data_key(pair.encrypted_key).decrypt(pair.encrypt(b"x")) == b"x"


def test_the_crypto_service_answers_without_await(km: KeyManager) -> None:
    service = km.crypto_service
    sealed = service.encrypt_batch({"ssn": b"1", "iban": b"2"})
    service.clear_cache()
    assert dict(service.decrypt_batch(sealed)) == {"ssn": b"1", "iban": b"2"}
    assert service.decrypt_field(service.encrypt_field("ssn", b"3"), "ssn") == b"3"
    assert service.hash_field("a@example.org") == km.hash_field("a@example.org")


def test_data_keys_answer_without_await(km: KeyManager) -> None:
    keys = km.data_keys
    assert keys.generate_data_key().version == 2
    assert keys.rotate_data_key().version == keys.get_active_data_key().version == 3
    assert keys.get_data_key_by_version(1).version == 1
    assert keys.decrypt_with_data_key(keys.encrypt_with_data_key(b"x", 3)) == b"x"
    with pytest.raises(KeyStateError):
        keys.encrypt_with_data_key(b"x", 1)


def test_streams_pass_through(km: KeyManager) -> None:
    sealed, opened = io.BytesIO(), io.BytesIO()
    km.encrypt_stream(io.BytesIO(b"neptune" * 9), sealed)
    km.decrypt_stream(io.BytesIO(sealed.getvalue()), opened)
    assert opened.getvalue() == b"neptune" * 9


def test_status_maintenance_and_jobs_answer(km: KeyManager) -> None:
    assert km.get_status().active_key_version == 1
    assert km.get_active_data_key().version == km.get_data_key_by_version(1).version
    assert km.perform_maintenance().failures == {}
    assert isinstance(km.run_due(), list)
    assert km.get_rotation_policy().enabled


def test_a_restored_machine_draws_other_salts(km: KeyManager) -> None:
    before = km.local_encrypt(b"x")[10:26]
    km.after_restore()
    assert km.local_encrypt(b"x")[10:26] != before


def test_a_ciphertext_under_an_old_version_is_renewed(km: KeyManager) -> None:
    sealed = km.local_encrypt(b"uranus")
    km.rotate_data_key()
    assert km.needs_reencrypt(sealed)
    assert not km.needs_reencrypt(km.reencrypt(sealed))


def test_before_initialisation_and_after_close_calls_are_refused(provider: LocalKMSProvider, store: str) -> None:
    km = KeyManager({"local": provider}, store=store)
    with pytest.raises(NotInitializedError):
        km.local_encrypt(b"x")
    km.initialize()
    km.initialize()
    with pytest.raises(AlreadyInitializedError):
        km.initialize({"kms": {}})
    km.close()
    km.close()
    assert not km.is_initialized
    with pytest.raises(SystemShutdownError):
        km.local_encrypt(b"x")
    with pytest.raises(SystemShutdownError):
        km.rotate_data_key()


def test_a_call_from_the_background_loop_itself_is_refused(km: KeyManager) -> None:
    async def on_the_loop() -> None:
        km.get_status()

    with pytest.raises(InvalidInputError, match="await the async one"):
        background_loop.run(on_the_loop())


def test_eight_threads_share_a_manager_while_it_rotates(km: KeyManager) -> None:
    done = threading.Event()

    def work(number: int) -> int:
        rounds = 0
        while not done.is_set() or rounds < 20:
            text = f"{number}/{rounds}".encode()
            assert km.local_decrypt(km.local_encrypt(text)) == text
            assert km.crypto_service.decrypt_field(km.crypto_service.encrypt_field("f", text)) == text
            rounds += 1
        return rounds

    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work, number) for number in range(8)]
        try:
            for _ in range(5):
                km.rotate_data_key()
        finally:
            done.set()
        assert all(worker.result(60) >= 20 for worker in workers)
    assert km.get_status().active_key_version == 6


def test_threads_that_initialise_at_once_open_one_session(provider: LocalKMSProvider, store: str) -> None:
    km = KeyManager({"local": provider}, store=store)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: km.initialize(), range(8)))
    assert km.get_status().key_statistics.total_keys == 1
    km.close()


async def test_an_async_program_may_use_it_from_its_threads(provider: LocalKMSProvider, store: str) -> None:
    km = KeyManager({"local": provider}, store=store)
    await asyncio.to_thread(km.initialize)
    sealed = await asyncio.gather(*(asyncio.to_thread(km.local_encrypt, b"x") for _ in range(16)))
    await asyncio.to_thread(km.rotate_data_key)
    assert {km.local_decrypt(one) for one in sealed} == {b"x"}
    await asyncio.to_thread(km.close)


def test_a_settings_file_makes_a_manager(tmp_path: Path) -> None:
    settings = install(tmp_path).settings
    with KeyManager.from_config(settings) as km:
        assert km.local_decrypt(km.local_encrypt(b"makemake")) == b"makemake"
        assert repr(km).startswith("<blocking <KeyManager initialized")


def test_readers_of_older_systems_pass_their_errors_through(km: KeyManager, tmp_path: Path) -> None:
    with pytest.raises(DecryptionError):
        km.decrypt_legacy("not a value of the reference")
    with pytest.raises(DecryptionError):
        km.reencrypt_legacy("not a value of the reference")
    with pytest.raises(StoreUnavailableError):
        km.import_legacy(f"sqlite:///{tmp_path}/nothing.db", lambda: b"a root key for the tests")
