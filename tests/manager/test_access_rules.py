"""Which members answer before ``initialize``, and that none but a few answers after ``close``."""

from __future__ import annotations

import asyncio
import inspect
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keystead.errors import NotInitializedError, SystemShutdownError
from keystead.fields import Field
from keystead.manager.manager import KeyManager
from keystead.model import EncryptedField
from tests.fakes.world import World

SEALED = bytes((0xAE, 1)) + (7).to_bytes(8, "big") + bytes(54)
FIELD = EncryptedField(SEALED, 1)
COLUMN = Field("people", "email")
Call = Callable[[KeyManager], Any]

NEEDS_A_DATA_KEY: dict[str, Call] = {
    "local_encrypt": lambda km: km.local_encrypt(b"x"),
    "local_decrypt": lambda km: km.local_decrypt(SEALED),
    "decrypt_local": lambda km: km.decrypt_local(SEALED),
    "needs_reencrypt": lambda km: km.needs_reencrypt(SEALED),
    "reencrypt": lambda km: km.reencrypt(SEALED),
    "encrypt_stream": lambda km: km.encrypt_stream(io.BytesIO(b"x"), io.BytesIO()),
    "decrypt_stream": lambda km: km.decrypt_stream(io.BytesIO(b"x"), io.BytesIO()),
    "hash_field": lambda km: km.hash_field("x"),
    "keyring": lambda km: km.keyring("tenant"),
    "keyring default": lambda km: km.keyring("default"),
    "field": lambda km: km.field(COLUMN).encrypt("x", record=1),
    "load_fields": lambda km: km.load_fields(COLUMN),
    "prefetch": lambda km: km.prefetch([SEALED]),
    "register_field": lambda km: km.register_field(COLUMN, "app:people"),
    "fields": lambda km: km.fields(),
    "subject": lambda km: km.subject("ada"),
    "forget": lambda km: km.forget("ada"),
    "receipt_keys": lambda km: km.receipt_keys(),
    "erasures": lambda km: km.erasures(),
    "erasure_receipt": lambda km: km.erasure_receipt("keystead.subject.none"),
    "forget_field": lambda km: km.forget_field("people.email"),
    "rotate_index_key": lambda km: km.rotate_index_key(),
    "rotate_data_key": lambda km: km.rotate_data_key(),
    "get_active_data_key": lambda km: km.get_active_data_key(),
    "get_data_key_by_version": lambda km: km.get_data_key_by_version(1),
    "perform_maintenance": lambda km: km.perform_maintenance(),
    "run_due": lambda km: km.run_due(),
    "decrypt_legacy": lambda km: km.decrypt_legacy("v1700000000000000000:AES-256-GCM:00"),
    "reencrypt_legacy": lambda km: km.reencrypt_legacy("v1700000000000000000:AES-256-GCM:00"),
    "import_legacy": lambda km: km.import_legacy("sqlite:///absent.db", lambda: bytes(32)),
    "session": lambda km: km.session(),
    "require_session": lambda km: km.require_session(),
    "crypto_service.encrypt_field": lambda km: km.crypto_service.encrypt_field("f", b"x"),
    "crypto_service.decrypt_field": lambda km: km.crypto_service.decrypt_field(FIELD),
    "crypto_service.encrypt_batch": lambda km: km.crypto_service.encrypt_batch({}),
    "crypto_service.decrypt_batch": lambda km: km.crypto_service.decrypt_batch({}),
    "crypto_service.hash_field": lambda km: km.crypto_service.hash_field(b"x"),
    "crypto_service.clear_cache": lambda km: km.crypto_service.clear_cache(),
    "data_keys.generate_data_key": lambda km: km.data_keys.generate_data_key(),
    "data_keys.get_active_data_key": lambda km: km.data_keys.get_active_data_key(),
    "data_keys.get_data_key_by_version": lambda km: km.data_keys.get_data_key_by_version(1),
    "data_keys.rotate_data_key": lambda km: km.data_keys.rotate_data_key(),
    "data_keys.encrypt_with_data_key": lambda km: km.data_keys.encrypt_with_data_key(b"x", 1),
    "data_keys.decrypt_with_data_key": lambda km: km.data_keys.decrypt_with_data_key(FIELD),
    "audit.record": lambda km: km.audit.record("order.refund"),
    "audit.sequenced": lambda km: km.audit.sequenced(),
    "audit.checkpoint": lambda km: km.audit.checkpoint(),
    "audit.last_checkpoint": lambda km: km.audit.last_checkpoint(),
    "audit.entries": lambda km: km.audit.entries(),
    "audit.verify": lambda km: km.audit.verify(),
    "audit.trust_policy": lambda km: km.audit.trust_policy(),
    "audit.export": lambda km: km.audit.export("folder"),
    "audit.acknowledge": lambda km: km.audit.acknowledge(7, reason="looked into"),
    "audit.archive": lambda km: km.audit.archive("folder", before=datetime.now(UTC)),
    "audit.status": lambda km: km.audit.status(),
    "audit.begin": lambda km: km.audit.begin(),
    "audit.end": lambda km: km.audit.end("because"),
}
NEEDS_THE_KMS_ONLY: dict[str, Call] = {
    "encrypt": lambda km: km.encrypt(b"x"),
    "encrypt_field": lambda km: km.encrypt_field("x"),
    "generate_data_key": lambda km: km.generate_data_key(),
    "get_rotation_policy": lambda km: km.get_rotation_policy(),
    "doctor": lambda km: km.doctor(),
}
ALWAYS_ANSWERS = {"get_status", "close", "is_initialized", "initialize", "after_restore"}
INTERNAL = {"surroundings", "open", "from_config", "default", "keyrings", "named_providers", "wants_audit", "wants_two"}


async def answer(call: Call, km: KeyManager) -> Any:
    result = call(km)
    return await result if inspect.isawaitable(result) else result


def test_every_member_is_in_one_of_these_lists() -> None:
    members = {name for name in dir(KeyManager) if not name.startswith("_")}
    members |= {"local_encrypt", "local_decrypt", "default"}
    called = {name.split()[0].split(".")[0] for name in NEEDS_A_DATA_KEY | NEEDS_THE_KMS_ONLY}
    kms_only = {"decrypt", "decrypt_field", "open_data_key"}
    assert members == called | kms_only | ALWAYS_ANSWERS | INTERNAL


@pytest.fixture(scope="module", params=["was started", "never started"])
def closed(request: pytest.FixtureRequest) -> KeyManager:
    """A manager that is closed."""
    km = World().manager()

    async def close() -> None:
        if request.param == "was started":
            await km.initialize()
        await km.close()

    asyncio.run(close())
    return km


@pytest.mark.parametrize("name", NEEDS_A_DATA_KEY)
async def test_what_needs_a_data_key_waits_for_initialize(world: World, name: str) -> None:
    km = world.manager()
    with pytest.raises(NotInitializedError, match="initialize"):
        await answer(NEEDS_A_DATA_KEY[name], km)
    await km.close()


@pytest.mark.parametrize("name", [*NEEDS_A_DATA_KEY, *NEEDS_THE_KMS_ONLY])
async def test_after_close_a_member_says_that_it_is_closed(closed: KeyManager, name: str) -> None:
    with pytest.raises(SystemShutdownError, match="closed"):
        await answer((NEEDS_A_DATA_KEY | NEEDS_THE_KMS_ONLY)[name], closed)


async def test_per_request_kms_use_needs_no_initialisation(world: World) -> None:
    km = world.manager()
    sealed = await km.encrypt(b"x")
    assert await km.decrypt(sealed) == b"x"
    field = await km.encrypt_field({"a": 1})
    assert await km.decrypt_field(field) == {"a": 1}
    pair = await km.generate_data_key()
    assert (await km.open_data_key(pair.encrypted_key)).plaintext_key == pair.plaintext_key
    assert km.get_rotation_policy().last_rotation is None
    assert km.get_rotation_policy().rotation_period == timedelta(days=90)
    km.after_restore()
    await km.close()
    for call in (km.decrypt(sealed), km.decrypt_field(field), km.open_data_key(pair.encrypted_key)):
        with pytest.raises(SystemShutdownError):
            await call
    km.after_restore()


async def test_what_was_held_before_close_is_closed_with_it(world: World) -> None:
    async with world.open() as km:
        tenant, service, keys = await km.keyring("tenant"), km.crypto_service, km.data_keys
        encrypt, decrypt = km.local_encrypt, tenant.local_decrypt
        sealed, field = tenant.local_encrypt(b"x"), await service.encrypt_field("f", b"x")
        decrypt(sealed)
    for held in (
        lambda: encrypt(b"x"),
        lambda: decrypt(sealed),
        lambda: tenant.local_encrypt(b"x"),
        lambda: tenant.decrypt_local(sealed),
        lambda: tenant.needs_reencrypt(sealed),
        lambda: tenant.reencrypt(sealed),
        tenant.rotate,
        tenant.promote,
        tenant.versions,
        lambda: service.encrypt_field("f", b"x"),
        lambda: service.decrypt_field(field),
        lambda: service.hash_field("x"),
        keys.get_active_data_key,
        lambda: keys.decrypt_with_data_key(field),
    ):
        with pytest.raises(SystemShutdownError):
            await answer(lambda km, held=held: held(), km)  # type: ignore[misc]


async def test_a_handle_made_before_initialize_serves_after_it(world: World) -> None:
    km = world.manager()
    encrypt, decrypt, service = km.local_encrypt, km.local_decrypt, km.crypto_service
    await km.initialize()
    assert decrypt(encrypt(b"x")) == b"x"
    assert await service.decrypt_field(await service.encrypt_field("f", b"x")) == b"x"
    assert (await km.keyring("default")) is km.default
    await km.close()
