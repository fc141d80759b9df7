"""Rotation: one writer a key, and no version that the server may not have kept."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keystead.errors import (
    KeyNotFoundError,
    KeyRotationError,
    KeyStateError,
    ProviderConnectionError,
    RotationNotSupportedError,
)
from keystead.model import EncryptedData, KeyReference, Signature
from keystead.ports import RotatesKeys
from keystead.providers.guard import GuardedProvider
from keystead.providers.vault.provider import ROTATIONS, VaultKMSProvider
from tests.fakes.clock import FakeClock
from tests.providers.vault.making import Making

JSON = {"Content-Type": "application/json"}
FAILED = json.dumps({"errors": ["1 error occurred:\n\t* transaction commit failed\n\n"]}).encode()


async def rotate(provider: VaultKMSProvider, key: str) -> KeyReference:
    guarded = GuardedProvider(provider, "vault")
    assert isinstance(guarded, RotatesKeys)
    return await guarded.rotate_key(key)


def fail_to_store(making: Making, count: int = ROTATIONS) -> None:
    """Let rotations fail as those do whose version is in the server's cache, and not in its storage."""
    making.proxy.fail_next(count, status=500, body=FAILED, headers=JSON, path="rotate")


async def test_a_rotation_is_answered_with_the_new_version(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.new_key()
    rotated = await provider.rotate_key(key)
    assert (rotated.key_id, rotated.key_version) == (key, "2")
    assert rotated.created_at is not None


async def test_a_server_that_answers_a_rotation_without_a_body_is_asked_for_the_version(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key()
    # Vault before 1.14 answers so. Nothing was rotated here, which shows as well.
    making.proxy.fail_next(1, status=204, path="rotate")
    with pytest.raises(KeyRotationError, match="no new version"):
        await provider.rotate_key(key)
    assert len(making.paths("keys/")) == 3


async def test_many_rotations_of_a_key_in_one_process_come_one_after_the_other(making: Making) -> None:
    key, provider = making.bao.new_key(), making.provider()
    made = await asyncio.gather(*(provider.rotate_key(key) for _ in range(6)))
    assert sorted(int(one.key_version or 0) for one in made) == [2, 3, 4, 5, 6, 7]
    verbs = [path.rsplit("/", 1)[1] for path in making.paths(key)]
    assert verbs == [key, "rotate"] * 6


async def test_a_version_that_the_server_could_not_store_is_followed_by_one_that_it_can(
    making: Making, clock: FakeClock
) -> None:
    # Until then it shows the version, and encrypts under it, to everybody who asks.
    key, provider = making.bao.new_key(), making.provider(clock=clock)
    fail_to_store(making, ROTATIONS - 1)
    assert (await rotate(provider, key)).key_version == "2"
    assert len(making.paths("rotate")) == ROTATIONS
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "2"


@pytest.mark.parametrize(("status", "body"), [(502, b""), (504, b""), (503, b'{"errors":["Vault is sealed"]}')])
async def test_a_rotation_of_which_nobody_knows_whether_it_goes_on_is_not_repeated(
    making: Making, status: int, body: bytes, provider: VaultKMSProvider
) -> None:
    # A second one beside it could lose versions.
    key = making.bao.new_key()
    making.proxy.fail_next(1, status=status, body=body, headers=JSON, path="rotate")
    with pytest.raises(ProviderConnectionError):
        await rotate(provider, key)
    assert len(making.paths("rotate")) == 1


async def test_after_a_rotation_that_the_server_failed_the_version_before_it_encrypts(
    making: Making, provider: VaultKMSProvider, clock: FakeClock
) -> None:
    key = making.bao.new_key()
    await provider.encrypt(b"value", key)
    # The version shows, as one does that is in the server's cache and could not be stored.
    making.bao.do("POST", f"transit/keys/{key}/rotate")
    doubtful = making.provider(clock=clock)
    await doubtful.rotate_key(key)
    fail_to_store(making)
    with pytest.raises(ProviderConnectionError, match="rotate again"):
        await rotate(doubtful, key)
    making.bao.do("POST", f"transit/keys/{key}/rotate")
    for sealed in (
        await doubtful.encrypt(b"value", key),
        (await doubtful.encrypt_batch([b"value"], key))[0],
        (await doubtful.generate_data_key(key)).encrypted_key,
        await doubtful.rewrap(await provider.encrypt(b"value", key)),
    ):
        assert sealed.key_reference.key_version == "3"
    assert (await doubtful.mac(b"value", key)).key_reference.key_version == "3"
    # What is told is what is done, so that a rewrap comes to an end.
    assert (await doubtful.describe(key)).current_version == "3"
    # A rotation that succeeds stores every version before it.
    assert (await rotate(doubtful, key)).key_version == "5"
    assert (await doubtful.encrypt(b"value", key)).key_reference.key_version == "5"
    assert (await doubtful.describe(key)).current_version == "5"


async def test_several_rotations_that_failed_leave_the_last_confirmed_version_in_use(
    making: Making, clock: FakeClock
) -> None:
    key, provider = making.bao.new_key(), making.provider(clock=clock)
    for shown in ("2", "3", "4"):
        fail_to_store(making)
        with pytest.raises(ProviderConnectionError):
            await rotate(provider, key)
        making.bao.do("POST", f"transit/keys/{key}/rotate")
        assert str(making.bao.key(key)["latest_version"]) == shown
        assert (await provider.describe(key)).current_version == "1"
        assert (await provider.encrypt(b"value", key)).key_reference.key_version == "1"


async def test_a_later_rotation_by_somebody_else_ends_the_doubt(making: Making, clock: FakeClock) -> None:
    key, provider = making.bao.new_key(), making.provider(clock=clock)
    fail_to_store(making)
    with pytest.raises(ProviderConnectionError):
        await provider.rotate_key(key)
    making.bao.do("POST", f"transit/keys/{key}/rotate")
    assert (await provider.describe(key)).current_version == "1"
    making.bao.do("POST", f"transit/keys/{key}/rotate")
    assert (await provider.describe(key)).current_version == "3"
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "3"


async def test_a_rotation_whose_answer_was_lost_is_no_version_to_rely_on(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key()
    # The server may still be storing it when nobody waits any more, may fail, and shows it all the same.
    making.proxy.drop_next(after_the_call=True, path="rotate")
    with pytest.raises(ProviderConnectionError):
        await rotate(provider, key)
    assert making.bao.key(key)["latest_version"] == 2
    assert (await provider.describe(key)).current_version == "1"
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "1"
    assert (await rotate(provider, key)).key_version == "3"
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "3"
    making.proxy.drop_next(path="rotate")
    with pytest.raises(ProviderConnectionError):
        await rotate(provider, key)
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "3"
    assert making.bao.key(key)["latest_version"] == 3


async def test_after_a_rotation_the_new_version_is_asked_for_by_number_for_a_while(
    making: Making, clock: FakeClock
) -> None:
    key, provider = making.bao.new_key(), making.provider(clock=clock)
    await provider.rotate_key(key)
    behind = {"errors": ["requested version for encryption is higher than the latest key version"]}
    making.proxy.fail_next(1, status=400, body=json.dumps(behind).encode(), headers=JSON, path="encrypt")
    with pytest.raises(ProviderConnectionError, match="does not know the key's newest version yet") as caught:
        await provider.encrypt(b"value", key)
    assert caught.value.retryable
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "2"
    # Somebody else's rotation counts when that while is over.
    making.bao.do("POST", f"transit/keys/{key}/rotate")
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "2"
    clock.advance(61)
    assert (await provider.encrypt(b"value", key)).key_reference.key_version == "3"


MAKES: Mapping[str, Callable[[VaultKMSProvider, str], Awaitable[EncryptedData | Signature]]] = {
    "encrypt": lambda provider, key: provider.encrypt(b"value", key),
    "encrypt_batch": lambda provider, key: first(provider.encrypt_batch([b"value"], key)),
    "mac": lambda provider, key: provider.mac(b"value", key),
    "mac_batch": lambda provider, key: first(provider.mac_batch([b"value", b"another"], key)),
    "sign": lambda provider, key: provider.sign(b"value", key),
    "sign_batch": lambda provider, key: first(provider.sign_batch([b"value", b"another"], key)),
}


async def first(made: Awaitable[Sequence[Any]]) -> Any:
    return (await made)[0]


@pytest.mark.parametrize("operation", MAKES)
async def test_a_version_below_the_minimum_is_not_insisted_on(making: Making, operation: str) -> None:
    bao = making.bao
    key, provider = bao.new_key(type="ed25519" if "sign" in operation else "aes256-gcm96"), making.provider()
    await provider.rotate_key(key)
    bao.do("POST", f"transit/keys/{key}/rotate")
    bao.do("POST", f"transit/keys/{key}/config", {"min_encryption_version": 3})
    assert (await MAKES[operation](provider, key)).key_reference.key_version == "3"


async def test_a_doubtful_version_is_not_used_even_where_the_minimum_asks_for_it(
    making: Making, clock: FakeClock
) -> None:
    bao = making.bao
    key, provider = bao.new_key(), making.provider(clock=clock)
    fail_to_store(making)
    with pytest.raises(ProviderConnectionError):
        await provider.rotate_key(key)
    bao.do("POST", f"transit/keys/{key}/rotate")
    bao.do("POST", f"transit/keys/{key}/config", {"min_encryption_version": 2})
    with pytest.raises(KeyStateError, match="min_encryption_version"):
        await provider.encrypt(b"value", key)


async def test_rewrap_is_made_by_the_server_where_it_can_and_here_where_it_cannot(
    making: Making, provider: VaultKMSProvider
) -> None:
    context = {"tenant": "north"}
    for derived, bound, by_server in (
        (True, context, True),
        (True, {}, True),
        (False, {}, True),
        (False, context, False),
    ):
        key = making.bao.new_key(derived=derived)
        old = await provider.encrypt(b"value", key, context=bound)
        await provider.rotate_key(key)
        making.proxy.requests.clear()
        new = await provider.rewrap(old)
        assert new.key_reference.key_version == "2"
        assert await provider.decrypt(new, context=bound) == b"value"
        assert bool(making.paths("rewrap")) is by_server


async def test_a_key_imported_not_to_be_rotated_says_so(making: Making, provider: VaultKMSProvider) -> None:
    key = import_key(making, allow_rotation=False)
    with pytest.raises(RotationNotSupportedError, match="imported"):
        await provider.rotate_key(key)
    sealed = await provider.encrypt(b"value", key)
    assert await provider.decrypt(sealed) == b"value"


async def test_an_unknown_key_is_not_rotated(provider: VaultKMSProvider) -> None:
    with pytest.raises(KeyNotFoundError):
        await provider.rotate_key("unknown")


async def test_the_rotation_policy_is_the_keys_own(making: Making, provider: VaultKMSProvider) -> None:
    bao = making.bao
    off, on = bao.new_key(), bao.new_key(auto_rotate_period="720h")
    policy = await provider.get_rotation_policy(off)
    assert (policy.enabled, policy.rotation_period, policy.last_rotation, policy.next_rotation) == (
        False,
        timedelta(0),
        None,
        None,
    )
    policy = await provider.get_rotation_policy(on)
    assert (policy.enabled, policy.rotation_period, policy.last_rotation) == (True, timedelta(days=30), None)
    assert policy.next_rotation is not None
    assert timedelta(days=29) < policy.next_rotation - datetime.now(UTC) < timedelta(days=31)
    await provider.rotate_key(on)
    policy = await provider.get_rotation_policy(on)
    assert policy.last_rotation is not None
    assert policy.rotation_period_days == 30
    assert policy.next_rotation == policy.last_rotation + timedelta(days=30)


async def test_a_lock_that_another_thread_holds_at_a_fork_is_not_the_childs(making: Making) -> None:
    key = making.provider()._keys.get("orders")
    held = threading.Thread(target=key.admin.acquire)
    held.start()
    held.join()
    key.renew_locks()
    assert key.admin.acquire(blocking=False)


def import_key(making: Making, *, allow_rotation: bool) -> str:
    """Import an AES-256 key as the server wants it: wrapped by a key that is wrapped by the server's RSA key."""
    import base64
    import os

    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    wrapping = load_pem_public_key(making.bao.do("GET", "transit/wrapping_key")["public_key"].encode())
    assert isinstance(wrapping, rsa.RSAPublicKey)
    ephemeral = os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
    blob = wrapping.encrypt(ephemeral, oaep) + aes_key_wrap_with_padding(ephemeral, os.urandom(32))
    name = f"imported-{os.urandom(4).hex()}"
    body = {"ciphertext": base64.b64encode(blob).decode(), "hash_function": "SHA256", "type": "aes256-gcm96"}
    making.bao.do("POST", f"transit/keys/{name}/import", {**body, "allow_rotation": allow_rotation})
    return name
