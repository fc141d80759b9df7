"""The operations of the Go KMS, under its names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keystead import (
    InvalidIterationsError,
    InvalidKeyLengthError,
    InvalidSaltError,
    InvalidSeedError,
    KeyManager,
    KMSError,
    LocalKMSConfig,
    LocalKMSProvider,
    RootKeyGenerator,
)
from keystead.model import KMSStatus

SEED = "a seed for tests, never for data"
SALT = "a salt for tests"


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[KeyManager]:
    """A manager under a KEK made from a seed and a salt, as the document's is."""
    root = RootKeyGenerator(seed=SEED, salt=SALT, iterations=10_000, key_length=32)
    provider = LocalKMSProvider(LocalKMSConfig(root_key=root.generate_root_key))
    async with KeyManager({"local": provider}, store=f"sqlite:///{tmp_path}/keys.db") as made:
        yield made


async def test_the_managers_ten_operations(manager: KeyManager) -> None:
    await manager.initialize()
    first = await manager.get_active_data_key()
    assert (await manager.get_data_key_by_version(first.version)).id == first.id
    assert (await manager.rotate_data_key()).version == first.version + 1
    sealed = await manager.crypto_service.encrypt_field("ssn", b"078-05-1120")
    assert await manager.crypto_service.decrypt_field(sealed) == b"078-05-1120"
    assert manager.hash_field("ada@example.org") == manager.hash_field("ada@example.org")
    assert (await manager.get_status()).initialized
    assert (await manager.perform_maintenance()).failures == {}
    await manager.close()
    assert (await manager.get_status()).shutdown


async def test_the_crypto_services_six_operations(manager: KeyManager) -> None:
    crypto = manager.crypto_service
    sealed = await crypto.encrypt_field("email", b"ada@example.org")
    assert await crypto.decrypt_field(sealed) == b"ada@example.org"
    assert len(crypto.hash_field(b"ada@example.org")) == 64
    batch = await crypto.encrypt_batch({"email": b"1", "phone": b"2"})
    assert dict(await crypto.decrypt_batch(batch)) == {"email": b"1", "phone": b"2"}
    await crypto.clear_cache()
    assert await crypto.decrypt_field(sealed) == b"ada@example.org"


async def test_the_data_key_managers_six_operations(manager: KeyManager) -> None:
    keys = manager.data_keys
    made = await keys.generate_data_key("AES-GCM-256")
    assert (await keys.get_active_data_key()).version == made.version
    rotated = await keys.rotate_data_key()
    assert (await keys.get_data_key_by_version(made.version)).is_active is False
    sealed = await keys.encrypt_with_data_key(b"x", rotated.version)
    assert sealed.version == rotated.version
    assert await keys.decrypt_with_data_key(sealed) == b"x"


def test_the_root_key_generators_four_operations() -> None:
    root = RootKeyGenerator(seed=SEED, salt=SALT, iterations=10_000, key_length=32)
    root.validate_config()
    assert len(root.generate_root_key()) == 32
    assert root.get_key_strength()
    assert root.estimate_generation_time() >= 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"seed": ""}, InvalidSeedError),
        ({"salt": ""}, InvalidSaltError),
        ({"iterations": 9_999}, InvalidIterationsError),
        ({"key_length": 15}, InvalidKeyLengthError),
    ],
)
def test_the_root_keys_errors_have_the_documents_names(arguments: dict[str, object], error: type[KMSError]) -> None:
    sound: dict[str, object] = {"seed": SEED, "salt": SALT, "iterations": 10_000, "key_length": 32}
    with pytest.raises(error):
        RootKeyGenerator(**{**sound, **arguments}).validate_config()  # type: ignore[arg-type]


async def test_the_status_has_the_documents_names(manager: KeyManager) -> None:
    status = await manager.get_status()
    told = json.loads(json.dumps(dataclasses.asdict(status), default=str))
    assert list(told) == [
        "initialized",
        "shutdown",
        "algorithm",
        "rotate_interval",
        "active_key_version",
        "active_key_expiry",
        "key_statistics",
    ]
    assert told["key_statistics"] == {"total_keys": 1, "active_keys": 1, "expired_keys": 0}
    assert isinstance(status, KMSStatus)


async def test_a_data_keys_metadata_has_the_documents_names_and_no_key(manager: KeyManager) -> None:
    info = await manager.get_active_data_key()
    names = {field.name for field in dataclasses.fields(info)} | {"is_active"}
    assert names >= {"id", "version", "algorithm", "created_at", "expires_at", "is_active"}
    assert not names & {"key", "key_data", "encrypted_key", "wrapped_key"}
