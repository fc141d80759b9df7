"""Rotation in two calls, of which either may fail: nothing half done stays so. And what the service's schedule says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from keystead.errors import (
    InvalidInputError,
    KeyRotationError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
    RotationNotSupportedError,
)
from keystead.model import KeyPurpose, KeyState, SignatureAlgorithm
from keystead.ports import RotatesKeys
from keystead.providers.gcp.provider import GCPKMSProvider
from tests.fakes.clock import FakeClock
from tests.fakes.gcp_kms import FakeCloudKms
from tests.providers.gcp.conftest import Make, guarded

CREATE = "create_crypto_key_version"
SET_PRIMARY = "update_crypto_key_primary_version"


def versions(service: FakeCloudKms, key: str) -> int:
    return len(service.keys.key(key).versions)


async def version_used(provider: GCPKMSProvider, key: str) -> str | None:
    return (await provider.encrypt(b"value", key)).key_reference.key_version


async def test_rotation_makes_a_version_and_lets_it_encrypt(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    old = await provider.encrypt(b"value", key)
    rotated = await provider.rotate_key(key)
    assert (rotated.key_id, rotated.key_version) == (key, "2")
    assert await version_used(provider, key) == "2"
    assert await provider.decrypt(old) == b"value"
    assert (await provider.describe(key)).current_version == "2"


async def test_a_rotation_that_stopped_after_the_first_call_is_finished_by_the_next(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.faults.fail_next(status="PERMISSION_DENIED", method=SET_PRIMARY)
    with pytest.raises(ProviderAuthError):
        await provider.rotate_key(key)
    assert await version_used(provider, key) == "1"
    assert (await provider.rotate_key(key)).key_version == "2"
    assert await version_used(provider, key) == "2"
    assert versions(service, key) == 2


async def test_a_first_call_whose_answer_was_lost_is_gone_on_from(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.faults.fail_next(method=CREATE, is_carried_out=True)
    with pytest.raises(ProviderConnectionError):
        await cast(RotatesKeys, guarded(provider)).rotate_key(key)
    assert (await cast(RotatesKeys, guarded(provider)).rotate_key(key)).key_version == "2"
    assert versions(service, key) == 2


async def test_a_second_call_whose_answer_was_lost_is_a_rotation(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.faults.fail_next(method=SET_PRIMARY, is_carried_out=True)
    rotated = await cast(RotatesKeys, guarded(provider)).rotate_key(key)
    assert rotated.key_version == "2"
    assert await version_used(provider, key) == "2"
    assert versions(service, key) == 2


async def test_rotating_again_makes_another_version_once_the_last_one_encrypts(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    for number in range(2, 13):
        assert (await provider.rotate_key(key)).key_version == str(number)
    assert await version_used(provider, key) == "12"
    assert (await provider.describe(key)).current_version == "12"


@pytest.mark.parametrize("state", ["DISABLED", "DESTROY_SCHEDULED", "DESTROYED", "GENERATION_FAILED"])
async def test_a_newer_version_that_cannot_be_used_is_left_alone(
    state: str, provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.keys.add_version(key)
    service.set_state(key, state, 2)
    assert (await provider.rotate_key(key)).key_version == "3"


async def test_two_rotations_at_once_end_with_the_newest_version_encrypting(
    make: Make, service: FakeCloudKms, key: str
) -> None:
    rotated = await asyncio.gather(*(make().rotate_key(key) for _ in range(4)))
    assert await version_used(make(), key) in {each.key_version for each in rotated}
    await make().rotate_key(key)
    newest = max(service.keys.key(key).versions)
    assert await version_used(make(), key) == str(newest)


async def test_a_version_that_is_being_made_is_waited_for(make: Make, service: FakeCloudKms, key: str) -> None:
    class Clock(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if len(self.slept) == 3:
                service.keys.release_generation()

    clock = Clock()
    service.keys.is_generation_held = True
    assert (await make(clock=clock).rotate_key(key)).key_version == "2"
    assert clock.slept == [0.1, 0.2, 0.4]


async def test_a_version_that_takes_too_long_is_taken_up_by_the_next_rotation(
    make: Make, service: FakeCloudKms, key: str
) -> None:
    provider = make(clock=FakeClock())
    service.keys.is_generation_held = True
    with pytest.raises(ProviderConnectionError, match="still being made") as caught:
        await provider.rotate_key(key)
    assert caught.value.retryable
    assert await version_used(provider, key) == "1"
    service.keys.release_generation()
    assert (await provider.rotate_key(key)).key_version == "2"
    assert versions(service, key) == 2


async def test_a_version_that_could_not_be_made_is_a_failed_rotation(
    make: Make, service: FakeCloudKms, key: str
) -> None:
    class Clock(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            service.set_state(key, "GENERATION_FAILED", 2)

    service.keys.is_generation_held = True
    with pytest.raises(KeyRotationError, match="GENERATION_FAILED"):
        await make(clock=Clock()).rotate_key(key)


async def test_a_version_disabled_in_between_does_not_encrypt(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    service.faults.change_next_request(lambda request: service.set_state(key, "DISABLED", 2), method=SET_PRIMARY)
    with pytest.raises(KeyRotationError, match="cannot encrypt"):
        await provider.rotate_key(key)
    assert await version_used(provider, key) == "1"


async def test_an_answer_that_names_another_primary_is_no_rotation(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    def change(response: Any) -> None:
        response.primary.name = f"{key}/cryptoKeyVersions/1"

    service.faults.change_next_response(change, method=SET_PRIMARY)
    with pytest.raises(ProviderConnectionError, match="another version encrypts"):
        await provider.rotate_key(key)


@pytest.mark.parametrize("method", ["get_crypto_key", "create_crypto_key_version"])
async def test_an_answer_about_another_key_is_none(
    method: str, provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    def change(response: Any) -> None:
        response.name = response.name.replace("/cryptoKeys/key", "/cryptoKeys/other")

    service.faults.change_next_response(change, method=method)
    with pytest.raises(ProviderConnectionError, match="another key"):
        await provider.rotate_key(key)
    assert service.faults.calls[SET_PRIMARY] == 0


async def test_a_version_is_not_rotated(provider: GCPKMSProvider, service: FakeCloudKms, key: str) -> None:
    with pytest.raises(InvalidInputError, match="leave /cryptoKeyVersions/N out"):
        await provider.rotate_key(f"{key}/cryptoKeyVersions/1")
    assert service.faults.calls.total() == 0


@pytest.mark.parametrize("settings", [{"import_only": True}, {"level": "EXTERNAL"}, {"level": "EXTERNAL_VPC"}])
async def test_a_key_whose_versions_come_from_elsewhere_is_rotated_to_the_next_of_them(
    settings: dict[str, Any], provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    name = service.create_key("elsewhere", ring=ring, **settings)
    key = service.keys.key(name)
    if not key.versions:
        key.add_version()
    with pytest.raises(RotationNotSupportedError, match="rotate again to let it encrypt") as caught:
        await provider.rotate_key(name)
    assert not caught.value.retryable
    key.add_version()
    assert (await provider.rotate_key(name)).key_version == "2"
    assert await version_used(provider, name) == "2"


async def test_a_key_without_a_primary_gets_one(provider: GCPKMSProvider, service: FakeCloudKms, key: str) -> None:
    service.keys.key(key).primary = None
    description = await provider.describe(key)
    assert (description.current_version, description.state) == (None, KeyState.DISABLED)
    assert (await provider.rotate_key(key)).key_version == "1"
    assert await version_used(provider, key) == "1"


@pytest.mark.parametrize(
    ("purpose", "algorithm"),
    [("MAC", SignatureAlgorithm.HMAC_SHA_256), ("ASYMMETRIC_SIGN", SignatureAlgorithm.ED25519)],
)
async def test_a_key_that_signs_or_makes_macs_is_rotated_in_one_call(
    purpose: str, algorithm: SignatureAlgorithm, make: Make, service: FakeCloudKms, ring: str
) -> None:
    provider = make(clock=FakeClock())
    name = "EC_SIGN_ED25519" if purpose == "ASYMMETRIC_SIGN" else None
    key = service.create_key("signer", purpose, name, ring=ring)
    use = provider.mac if algorithm.is_mac else provider.sign
    assert (await use(b"message", key)).key_reference.key_version == "1"
    assert (await provider.rotate_key(key)).key_version == "2"
    assert (await use(b"message", key)).key_reference.key_version == "2"
    service.keys.is_generation_held = True
    for _ in range(2):
        with pytest.raises(ProviderConnectionError):
            await provider.rotate_key(key)
    assert versions(service, key) == 3
    service.keys.release_generation()
    assert (await provider.describe(key)).current_version == "3"
    assert service.faults.calls[SET_PRIMARY] == 0


async def test_a_schedule_of_ninety_days_is_ninety_days(
    provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    key = service.create_key("scheduled", ring=ring, rotation_period=timedelta(days=90))
    policy = await provider.get_rotation_policy(key)
    assert policy.enabled
    assert policy.rotation_period == timedelta(days=90)
    assert policy.rotation_period_days == 90
    assert policy.next_rotation is not None
    assert abs(policy.next_rotation - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=5)
    assert type(policy.next_rotation) is datetime
    assert policy.last_rotation is None


async def test_a_key_without_a_schedule_says_so(provider: GCPKMSProvider, service: FakeCloudKms, key: str) -> None:
    await provider.rotate_key(key)
    policy = await provider.get_rotation_policy(key)
    assert not policy.enabled
    assert policy.period == timedelta(0)
    assert policy.next_rotation is None
    assert policy.last_rotation == service.keys.version(f"{key}/cryptoKeyVersions/2").created


async def test_describe_tells_state_purpose_times_and_algorithm(
    provider: GCPKMSProvider, service: FakeCloudKms, ring: str, key: str
) -> None:
    description = await provider.describe(key)
    assert description.key_reference.purpose is KeyPurpose.ENCRYPT_DECRYPT
    assert description.created_at == service.keys.key(key).created
    assert description.algorithms == ()
    mac = service.create_key("mac", "MAC", "HMAC_SHA512", ring=ring)
    description = await provider.describe(mac)
    assert description.key_reference.purpose is KeyPurpose.MAC
    assert description.algorithms == (SignatureAlgorithm.HMAC_SHA_512,)
    assert description.current_version == "1"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("ENABLED", KeyState.ENABLED),
        ("DISABLED", KeyState.DISABLED),
        ("DESTROY_SCHEDULED", KeyState.PENDING_DELETION),
        ("DESTROYED", KeyState.DESTROYED),
        ("PENDING_GENERATION", KeyState.DISABLED),
    ],
)
@pytest.mark.parametrize("purpose", ["ENCRYPT_DECRYPT", "MAC"])
async def test_the_state_is_that_of_the_version_in_use(
    purpose: str, state: str, expected: KeyState, *, provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    key = service.create_key("key", purpose, ring=ring)
    service.set_state(key, state)
    assert (await provider.describe(key)).state is expected


async def test_a_named_version_is_described_itself(provider: GCPKMSProvider, service: FakeCloudKms, key: str) -> None:
    await provider.rotate_key(key)
    service.set_state(key, "DISABLED", 1)
    description = await provider.describe(f"{key}/cryptoKeyVersions/1")
    assert (description.current_version, description.state) == ("1", KeyState.DISABLED)


async def test_a_named_version_encrypts_and_its_key_decrypts(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    await provider.rotate_key(key)
    pinned = f"{key}/cryptoKeyVersions/1"
    sealed = await provider.encrypt(b"value", pinned)
    assert sealed.key_reference.key_id == key
    assert sealed.key_reference.key_alias == pinned
    assert sealed.key_reference.key_version == "1"
    assert await provider.decrypt(sealed) == b"value"


async def test_a_key_of_a_purpose_that_is_no_use_is_refused(
    provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    key = service.create_key("decrypter", "ASYMMETRIC_DECRYPT", ring=ring)
    for call in (provider.describe(key), provider.rotate_key(key)):
        with pytest.raises(InvalidInputError, match="ASYMMETRIC_DECRYPT"):
            await call


async def test_a_disabled_primary_stops_encryption_and_its_ciphertexts_and_a_rotation_starts_encryption_again(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    old = await provider.encrypt(b"value", key)
    service.set_state(key, "DISABLED")
    with pytest.raises(KeyStateError):
        await provider.encrypt(b"value", key)
    await provider.rotate_key(key)
    new = await provider.encrypt(b"value", key)
    assert await provider.decrypt(new) == b"value"
    with pytest.raises(KeyStateError):
        await provider.decrypt(old)


async def test_permissions_are_told_by_our_names_of_the_operations(make: Make, service: FakeCloudKms, key: str) -> None:
    for transport in ("grpc", "rest"):
        provider = make(transport=transport)
        assert all((await provider.check_permissions(key)).values())
        service.faults.deny("cloudkms.cryptoKeyVersions.useToEncrypt", "cloudkms.cryptoKeys.update")
        allowed = await provider.check_permissions(key)
        denied = {operation for operation, is_allowed in allowed.items() if not is_allowed}
        assert denied == {"encrypt", "generate_data_key", "rotate_key"}
        service.faults.heal()


async def test_a_key_that_does_not_exist_allows_nothing(provider: GCPKMSProvider, ring: str) -> None:
    assert not any((await provider.check_permissions(f"{ring}/cryptoKeys/no-such-key")).values())
