"""Keys that are disabled, pending deletion or pending import, on ministack, which refuses them as AWS does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from keystead.errors import KeyStateError
from keystead.model import KeyState
from keystead.providers.aws.provider import AWSKMSProvider
from keystead.providers.guard import GuardedProvider
from tests.providers.subjects.aws import HMAC
from tests.services.aws import AwsService

Call = Callable[[AWSKMSProvider, str], Awaitable[object]]

SYMMETRIC: dict[str, Call] = {
    "encrypt": lambda provider, key_id: provider.encrypt(b"value", key_id),
    "generate_data_key": lambda provider, key_id: provider.generate_data_key(key_id),
}


@pytest.fixture
async def provider(ministack: AwsService) -> AsyncIterator[AWSKMSProvider]:
    provider = AWSKMSProvider(ministack.config())
    yield provider
    await provider.aclose()


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.PENDING_DELETION])
async def test_a_symmetric_key_in_another_state_encrypts_and_decrypts_nothing(
    provider: AWSKMSProvider, ministack: AwsService, state: KeyState
) -> None:
    key_id = ministack.create()
    data = await provider.encrypt(b"value", key_id)
    put(ministack, key_id, state)
    for call in SYMMETRIC.values():
        with pytest.raises(KeyStateError, match="`describe` tells"):
            await call(provider, key_id)
    with pytest.raises(KeyStateError):
        await provider.decrypt(data)
    assert (await provider.describe(key_id)).state is state


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.PENDING_DELETION])
async def test_a_signing_key_in_another_state_signs_nothing(
    provider: AWSKMSProvider, ministack: AwsService, state: KeyState
) -> None:
    key_id = ministack.create(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
    await provider.sign(b"m", key_id)
    put(ministack, key_id, state)
    with pytest.raises(KeyStateError) as caught:
        await provider.sign(b"m", key_id)
    assert not caught.value.retryable


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.PENDING_DELETION])
async def test_a_mac_of_a_key_in_another_state_is_not_called_invalid(
    provider: AWSKMSProvider, ministack: AwsService, state: KeyState
) -> None:
    key_id = ministack.create(**HMAC)
    mac = await provider.mac(b"m", key_id)
    put(ministack, key_id, state)
    with pytest.raises(KeyStateError):
        await provider.verify_mac(b"m", mac)
    with pytest.raises(KeyStateError):
        await provider.mac(b"m", key_id)


async def test_a_key_that_waits_for_its_material_is_disabled(provider: AWSKMSProvider, ministack: AwsService) -> None:
    key_id = ministack.create(Origin="EXTERNAL")
    assert (await provider.describe(key_id)).state is KeyState.DISABLED
    with pytest.raises(KeyStateError, match="import its material"):
        await provider.encrypt(b"value", key_id)


async def test_a_key_that_is_enabled_again_works_again(provider: AWSKMSProvider, ministack: AwsService) -> None:
    key_id = ministack.create()
    put(ministack, key_id, KeyState.DISABLED)
    with pytest.raises(KeyStateError):
        await provider.encrypt(b"value", key_id)
    ministack.admin.enable_key(KeyId=key_id)
    assert (await provider.encrypt(b"value", key_id)).key_reference.key_id == key_id


async def test_a_key_in_another_state_is_asked_once(provider: AWSKMSProvider, ministack: AwsService) -> None:
    key_id = ministack.create()
    put(ministack, key_id, KeyState.DISABLED)
    assert ministack.proxy is not None
    before = len(ministack.proxy.requests)
    with pytest.raises(KeyStateError):
        await GuardedProvider(provider, "cloud").encrypt(b"value", key_id)
    assert len(ministack.proxy.requests) == before + 1


async def test_a_key_whose_material_is_known_tells_its_version(provider: AWSKMSProvider, ministack: AwsService) -> None:
    pair = await provider.generate_data_key(ministack.key("first"))
    description = await provider.describe(ministack.key("first"))
    assert description.current_version is not None
    assert len(pair.plaintext_key) == 32


def put(service: AwsService, key_id: str, state: KeyState) -> None:
    if state is KeyState.DISABLED:
        service.admin.disable_key(KeyId=key_id)
    else:
        service.admin.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
