"""MACs and signatures: which version makes them, which algorithms there are, and what could not be verified."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from keystead.crypto.signatures import verify_signature
from keystead.errors import (
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.model import KeyPurpose, SignatureAlgorithm
from keystead.providers.gcp.keys import ALGORITHMS
from keystead.providers.gcp.provider import GCPKMSProvider
from tests.fakes.clock import FakeClock
from tests.fakes.gcp_kms import FakeCloudKms
from tests.providers.gcp.conftest import Make, guarded

MESSAGE = b"what is signed"
LIST = "list_crypto_key_versions"
KIB = 1024


@pytest.fixture
def mac_key(service: FakeCloudKms, ring: str) -> str:
    return service.create_key("mac", "MAC", ring=ring)


@pytest.fixture
def signing_key(service: FakeCloudKms, ring: str) -> str:
    return service.create_key("signer", "ASYMMETRIC_SIGN", ring=ring)


async def test_version_ten_is_newer_than_version_nine(
    provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str, signing_key: str
) -> None:
    for key in (mac_key, signing_key):
        for _ in range(9):
            service.keys.add_version(key)
    assert (await provider.mac(MESSAGE, mac_key)).key_reference.key_version == "10"
    assert (await provider.sign(MESSAGE, signing_key)).key_reference.key_version == "10"
    assert (await provider.public_key(signing_key)).key_reference.key_version == "10"


@pytest.mark.parametrize("transport", ["grpc", "rest"])
async def test_the_newest_version_is_found_over_all_pages(
    transport: str, make: Make, service: FakeCloudKms, mac_key: str
) -> None:
    for _ in range(249):
        service.keys.add_version(mac_key)
    assert (await make(transport=transport).mac(MESSAGE, mac_key)).key_reference.key_version == "250"
    assert service.faults.calls[LIST] == 3


async def test_a_version_that_is_not_enabled_is_passed_over(
    provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str
) -> None:
    for _ in range(3):
        service.keys.add_version(mac_key)
    service.set_state(mac_key, "DISABLED", 4)
    service.set_state(mac_key, "PENDING_GENERATION", 3)
    assert (await provider.mac(MESSAGE, mac_key)).key_reference.key_version == "2"


async def test_the_choice_is_trusted_for_a_while_and_then_made_again(
    make: Make, service: FakeCloudKms, mac_key: str
) -> None:
    clock = FakeClock()
    provider = make(clock=clock)
    for _ in range(3):
        await provider.mac(MESSAGE, mac_key)
    service.keys.add_version(mac_key)
    clock.advance(299)
    assert (await provider.mac(MESSAGE, mac_key)).key_reference.key_version == "1"
    assert service.faults.calls[LIST] == 1
    clock.advance(2)
    assert (await provider.mac(MESSAGE, mac_key)).key_reference.key_version == "2"
    assert service.faults.calls[LIST] == 2


async def test_the_choice_is_made_once_however_many_ask(
    provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str
) -> None:
    await asyncio.gather(*(provider.mac(MESSAGE, mac_key) for _ in range(50)))
    assert service.faults.calls[LIST] == 1


@pytest.mark.parametrize("state", ["DISABLED", "DESTROYED"])
async def test_a_chosen_version_that_went_out_of_use_is_replaced_at_once(
    state: str, provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str, signing_key: str
) -> None:
    for key, use in ((mac_key, provider.mac), (signing_key, provider.sign)):
        service.keys.add_version(key)
        assert (await use(MESSAGE, key)).key_reference.key_version == "2"
        service.set_state(key, state, 2)
        assert (await use(MESSAGE, key)).key_reference.key_version == "1"


async def test_a_version_that_goes_out_of_use_while_it_is_chosen_is_a_matter_of_its_state(
    provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str
) -> None:
    service.faults.change_next_request(lambda request: service.set_state(mac_key, "DISABLED"), method="mac_sign")
    with pytest.raises(KeyStateError, match="DISABLED"):
        await provider.mac(MESSAGE, mac_key)


async def test_a_key_without_a_version_in_use_is_a_matter_of_its_state(
    provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str
) -> None:
    await provider.mac(MESSAGE, mac_key)
    service.set_state(mac_key, "DISABLED")
    for _ in range(2):
        with pytest.raises(KeyStateError):
            await provider.mac(MESSAGE, mac_key)


async def test_a_named_version_is_used_and_never_another(
    provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str, signing_key: str
) -> None:
    for key, use in ((mac_key, provider.mac), (signing_key, provider.sign)):
        service.keys.add_version(key)
        pinned = f"{key}/cryptoKeyVersions/1"
        made = await use(MESSAGE, pinned)
        assert (made.key_reference.key_id, made.key_reference.key_version) == (key, "1")
        assert made.key_reference.key_alias == pinned
        service.set_state(key, "DISABLED", 1)
        with pytest.raises(KeyStateError):
            await use(MESSAGE, pinned)
    assert service.faults.calls[LIST] == 0


async def test_a_named_version_has_its_public_key(
    provider: GCPKMSProvider, service: FakeCloudKms, signing_key: str
) -> None:
    service.keys.add_version(signing_key)
    first = await provider.public_key(f"{signing_key}/cryptoKeyVersions/1")
    assert first.der == (await provider.public_key(signing_key, version="1")).der
    assert first.der != (await provider.public_key(signing_key)).der
    assert first.key_reference.purpose is KeyPurpose.SIGN_VERIFY


@pytest.mark.parametrize("version", ["0", "latest", "1/../2", ""])
async def test_a_version_that_cannot_be_is_refused_before_anything_is_sent(
    version: str, provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str
) -> None:
    mac = await provider.mac(MESSAGE, mac_key)
    service.faults.calls.clear()
    with pytest.raises(InvalidInputError):
        await provider.public_key(mac_key, version=version)
    with pytest.raises(InvalidInputError):
        await provider.verify_mac(MESSAGE, replace(mac, key_reference=replace(mac.key_reference, key_version=version)))
    assert service.faults.calls.total() == 0


UNKNOWN = [
    ("MAC", "HMAC_SHA1"),
    ("MAC", "HMAC_SHA224"),
    ("ASYMMETRIC_SIGN", "EC_SIGN_SECP256K1_SHA256"),
    ("ASYMMETRIC_SIGN", "RSA_SIGN_RAW_PKCS1_2048"),
    ("ASYMMETRIC_SIGN", "PQ_SIGN_ML_DSA_65"),
    ("ASYMMETRIC_SIGN", "PQ_SIGN_ML_DSA_65_EXTERNAL_MU"),
    ("ASYMMETRIC_SIGN", "PQ_SIGN_SLH_DSA_SHA2_128S"),
]


@pytest.mark.parametrize(("purpose", "algorithm"), UNKNOWN)
async def test_an_algorithm_that_is_not_ours_is_refused_by_its_name(
    purpose: str, algorithm: str, provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    key = service.create_key("other", purpose, algorithm, ring=ring)
    with pytest.raises(InvalidInputError, match=algorithm):
        await (provider.mac if purpose == "MAC" else provider.sign)(MESSAGE, key)
    assert service.faults.calls.keys() == {LIST}
    assert (await provider.describe(key)).algorithms == ()


@pytest.mark.parametrize("algorithm", ["EC_SIGN_SECP256K1_SHA256", "RSA_SIGN_RAW_PKCS1_2048"])
async def test_a_public_key_of_an_algorithm_that_is_not_ours_is_refused(
    algorithm: str, provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    key = service.create_key("other", "ASYMMETRIC_SIGN", algorithm, ring=ring)
    with pytest.raises(InvalidInputError, match=algorithm):
        await provider.public_key(key)


async def test_a_public_key_that_cannot_be_read_is_no_answer(
    provider: GCPKMSProvider, service: FakeCloudKms, signing_key: str
) -> None:
    import google_crc32c

    def change(response: object) -> None:
        response.pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"  # type: ignore[attr-defined]  # a message of the SDK
        response.pem_crc32c = google_crc32c.value(response.pem.encode())  # type: ignore[attr-defined]  # likewise

    service.faults.change_next_response(change)
    with pytest.raises(ProviderConnectionError, match="cannot be read"):
        await provider.public_key(signing_key, version="1")


async def test_a_key_has_one_algorithm_and_another_is_refused(
    provider: GCPKMSProvider, mac_key: str, signing_key: str, key: str
) -> None:
    with pytest.raises(InvalidInputError, match="HMAC-SHA-256, not HMAC-SHA-512"):
        await provider.mac(MESSAGE, mac_key, algorithm=SignatureAlgorithm.HMAC_SHA_512)
    with pytest.raises(InvalidInputError, match="ECDSA-SHA-256, not Ed25519"):
        await provider.sign(MESSAGE, signing_key, algorithm=SignatureAlgorithm.ED25519)
    with pytest.raises(InvalidInputError, match="EC_SIGN_P256_SHA256"):
        await provider.mac(MESSAGE, signing_key)
    with pytest.raises(InvalidInputError, match="HMAC_SHA256"):
        await provider.sign(MESSAGE, mac_key)
    for use in (provider.mac, provider.sign):
        with pytest.raises(InvalidInputError, match="GOOGLE_SYMMETRIC_ENCRYPTION"):
            await use(MESSAGE, key)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name.startswith("HMAC")])
async def test_every_mac_of_ours_is_made_and_verified(
    name: str, provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    key = service.create_key("mac", "MAC", name, ring=ring)
    mac = await provider.mac(MESSAGE, key)
    assert mac.algorithm is ALGORITHMS[name]
    await provider.verify_mac(MESSAGE, mac)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if not name.startswith("HMAC")])
async def test_every_signature_of_ours_is_verified_without_the_service(
    name: str, provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    key = service.create_key("signer", "ASYMMETRIC_SIGN", name, ring=ring)
    signature = await provider.sign(MESSAGE, key)
    assert signature.algorithm is ALGORITHMS[name]
    public_key = await provider.public_key(key)
    assert public_key.algorithms == (ALGORITHMS[name],)
    verify_signature(public_key, MESSAGE, signature.value, algorithm=signature.algorithm)


async def test_messages_of_the_lengths_that_are_taken(
    provider: GCPKMSProvider, service: FakeCloudKms, ring: str, mac_key: str
) -> None:
    await provider.verify_mac(bytes(64 * KIB), await provider.mac(bytes(64 * KIB), mac_key))
    with pytest.raises(InvalidInputError, match="64 KiB"):
        await provider.mac(bytes(64 * KIB + 1), mac_key)
    hsm = service.create_key("hsm", "MAC", ring=ring, level="HSM")
    await provider.verify_mac(bytes(16 * KIB), await provider.mac(bytes(16 * KIB), hsm))
    with pytest.raises(InvalidInputError, match="16 KiB"):
        await provider.mac(bytes(16 * KIB + 1), hsm)
    ed25519 = service.create_key("ed25519", "ASYMMETRIC_SIGN", "EC_SIGN_ED25519", ring=ring)
    signature = await provider.sign(bytes(64 * KIB), ed25519)
    verify_signature(
        await provider.public_key(ed25519), bytes(64 * KIB), signature.value, algorithm=signature.algorithm
    )
    with pytest.raises(InvalidInputError, match="64 KiB"):
        await provider.sign(bytes(64 * KIB + 1), ed25519)


async def test_a_key_in_an_external_key_manager_is_given_the_message_itself(
    provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    key = service.create_key("external", "ASYMMETRIC_SIGN", ring=ring, level="EXTERNAL")
    seen: list[object] = []
    service.faults.change_next_request(seen.append, method="asymmetric_sign")
    signature = await provider.sign(MESSAGE, key)
    assert seen[0].data == MESSAGE  # type: ignore[attr-defined]  # a message of the SDK
    verify_signature(await provider.public_key(key), MESSAGE, signature.value, algorithm=signature.algorithm)
    with pytest.raises(InvalidInputError, match="64 KiB"):
        await provider.sign(bytes(64 * KIB + 1), key)


async def test_a_mac_of_the_wrong_length_is_invalid_without_asking(
    provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str
) -> None:
    mac = await provider.mac(MESSAGE, mac_key)
    service.faults.calls.clear()
    for altered in (
        replace(mac, value=mac.value[:16]),
        replace(mac, value=mac.value + b"\0"),
        replace(mac, value=b""),
        replace(mac, algorithm=SignatureAlgorithm.HMAC_SHA_512),
    ):
        with pytest.raises(InvalidSignatureError):
            await provider.verify_mac(MESSAGE, altered)
    with pytest.raises(InvalidSignatureError):
        await provider.verify_mac(bytes(64 * KIB + 1), mac)
    assert service.faults.calls.total() == 0


async def test_what_could_not_be_verified_is_not_called_invalid(
    provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str
) -> None:
    mac = await provider.mac(MESSAGE, mac_key)
    service.faults.throttle_next()
    with pytest.raises(ProviderConnectionError):
        await provider.verify_mac(MESSAGE, mac)
    service.faults.deny()
    with pytest.raises(ProviderAuthError, match="useToVerify"):
        await provider.verify_mac(MESSAGE, mac)
    service.faults.heal()
    service.set_state(mac_key, "DISABLED")
    with pytest.raises(KeyStateError):
        await provider.verify_mac(MESSAGE, mac)
    missing = replace(mac.key_reference, key_version="99")
    with pytest.raises(KeyNotFoundError):
        await provider.verify_mac(MESSAGE, replace(mac, key_reference=missing))


async def test_a_mac_names_its_version_and_is_verified_by_that_one(
    provider: GCPKMSProvider, service: FakeCloudKms, mac_key: str
) -> None:
    old = await provider.mac(MESSAGE, mac_key)
    service.keys.add_version(mac_key)
    await provider.verify_mac(MESSAGE, old)
    other = replace(old.key_reference, key_version="2")
    with pytest.raises(InvalidSignatureError):
        await provider.verify_mac(MESSAGE, replace(old, key_reference=other))


async def test_a_mac_that_names_no_version_or_is_a_signature_is_refused(provider: GCPKMSProvider, mac_key: str) -> None:
    mac = await provider.mac(MESSAGE, mac_key)
    for wrong in (
        replace(mac, key_reference=replace(mac.key_reference, key_version=None)),
        replace(mac, algorithm=SignatureAlgorithm.ED25519),
    ):
        with pytest.raises(InvalidInputError):
            await provider.verify_mac(MESSAGE, wrong)


async def test_text_is_not_signed(provider: GCPKMSProvider, mac_key: str, signing_key: str) -> None:
    for use, key in ((provider.mac, mac_key), (provider.sign, signing_key)):
        with pytest.raises(InvalidInputError, match=r"\.encode\(\)"):
            await use("text", key)  # type: ignore[arg-type]  # what is refused


async def test_what_is_remembered_of_versions_has_an_end(
    provider: GCPKMSProvider, service: FakeCloudKms, ring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.providers.gcp.keys._MOST_REMEMBERED", 2)
    for name in ("a", "b", "c"):
        await provider.mac(MESSAGE, service.create_key(name, "MAC", ring=ring))
    assert len(provider._chosen) <= 2


async def test_a_throttled_signature_is_made_by_the_guard_again(
    provider: GCPKMSProvider, service: FakeCloudKms, signing_key: str
) -> None:
    guard = guarded(provider)
    service.faults.throttle_next(2)
    await guard.sign(MESSAGE, signing_key)  # type: ignore[attr-defined]  # of the provider inside
    assert service.faults.calls["asymmetric_sign"] == 1
    assert service.faults.calls[LIST] == 3
