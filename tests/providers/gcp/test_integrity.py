"""Checksums both ways: nothing that was altered on its way is taken for an answer, and asking again helps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import google_crc32c
import pytest

from keystead.crypto.context import encode_context
from keystead.errors import InvalidSignatureError, ProviderConnectionError
from keystead.providers.gcp.provider import GCPKMSProvider
from tests.fakes.gcp_kms import FakeCloudKms
from tests.providers.gcp.conftest import Make, guarded

Call = Callable[[Any], Awaitable[Any]]

CONTEXT = {"tenant": "north"}
MESSAGE = b"what is signed"


class Keys:
    """A key of each kind, and calls that use them, on a provider or on the guard around it."""

    def __init__(self, service: FakeCloudKms, ring: str) -> None:
        self.encrypting = service.create_key("encrypting", ring=ring)
        self.mac = service.create_key("mac", "MAC", ring=ring)
        self.ecdsa = service.create_key("ecdsa", "ASYMMETRIC_SIGN", ring=ring)
        self.ed25519 = service.create_key("ed25519", "ASYMMETRIC_SIGN", "EC_SIGN_ED25519", ring=ring)

    async def encrypt(self, provider: Any) -> None:
        sealed = await provider.encrypt(b"value", self.encrypting, context=CONTEXT)
        assert await provider.decrypt(sealed) == b"value"

    async def make_mac(self, provider: Any) -> None:
        await provider.verify_mac(MESSAGE, await provider.mac(MESSAGE, self.mac))

    async def sign(self, provider: Any) -> None:
        await provider.sign(MESSAGE, self.ecdsa)

    async def sign_message(self, provider: Any) -> None:
        await provider.sign(MESSAGE, self.ed25519)

    async def public_key(self, provider: Any) -> None:
        await provider.public_key(self.ecdsa)


@pytest.fixture
def keys(service: FakeCloudKms, ring: str) -> Keys:
    return Keys(service, ring)


ALTERED = [
    ("encrypt", "encrypt", "ciphertext"),
    ("encrypt", "encrypt", "ciphertext_crc32c"),
    ("encrypt", "encrypt", "verified_plaintext_crc32c"),
    ("encrypt", "encrypt", "verified_additional_authenticated_data_crc32c"),
    ("encrypt", "encrypt", "name"),
    ("encrypt", "decrypt", "plaintext"),
    ("encrypt", "decrypt", "plaintext_crc32c"),
    ("make_mac", "mac_sign", "mac"),
    ("make_mac", "mac_sign", "mac_crc32c"),
    ("make_mac", "mac_sign", "verified_data_crc32c"),
    ("make_mac", "mac_sign", "name"),
    ("make_mac", "mac_verify", "success"),
    ("make_mac", "mac_verify", "verified_success_integrity"),
    ("make_mac", "mac_verify", "verified_data_crc32c"),
    ("make_mac", "mac_verify", "verified_mac_crc32c"),
    ("make_mac", "mac_verify", "name"),
    ("sign", "asymmetric_sign", "signature"),
    ("sign", "asymmetric_sign", "signature_crc32c"),
    ("sign", "asymmetric_sign", "verified_digest_crc32c"),
    ("sign", "asymmetric_sign", "name"),
    ("sign_message", "asymmetric_sign", "verified_data_crc32c"),
    ("public_key", "get_public_key", "pem"),
    ("public_key", "get_public_key", "pem_crc32c"),
    ("public_key", "get_public_key", "name"),
]


@pytest.mark.parametrize(("call", "method", "field"), ALTERED)
async def test_an_answer_that_was_altered_is_asked_for_again(
    call: str, method: str, field: str, *, provider: GCPKMSProvider, service: FakeCloudKms, keys: Keys
) -> None:
    service.faults.corrupt_next(field, 2, method=method)
    await getattr(keys, call)(guarded(provider))
    assert service.faults.calls[method] == 3


@pytest.mark.parametrize(("call", "method", "field"), ALTERED)
async def test_an_answer_that_is_altered_every_time_is_an_error(
    call: str, method: str, field: str, *, provider: GCPKMSProvider, service: FakeCloudKms, keys: Keys
) -> None:
    service.faults.corrupt_next(field, 20, method=method)
    with pytest.raises(ProviderConnectionError, match="altered on its way") as caught:
        await getattr(keys, call)(guarded(provider))
    assert caught.value.retryable
    assert service.faults.calls[method] == 3


async def test_a_verification_that_contradicts_itself_is_not_called_invalid(
    provider: GCPKMSProvider, service: FakeCloudKms, keys: Keys
) -> None:
    mac = await provider.mac(MESSAGE, keys.mac)
    service.faults.corrupt_next("success")
    with pytest.raises(ProviderConnectionError):
        await provider.verify_mac(MESSAGE, mac)
    service.faults.corrupt_next("success")
    with pytest.raises(ProviderConnectionError):
        await provider.verify_mac(b"another message", mac)
    with pytest.raises(InvalidSignatureError):
        await provider.verify_mac(b"another message", mac)


def alter(field: str) -> Callable[[Any], None]:
    return lambda request: setattr(request, field, b"something else")


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize(
    ("call", "method", "field"),
    [
        ("encrypt", "encrypt", "plaintext"),
        ("encrypt", "encrypt", "additional_authenticated_data"),
        ("encrypt", "decrypt", "ciphertext"),
        ("encrypt", "decrypt", "additional_authenticated_data"),
        ("make_mac", "mac_sign", "data"),
        ("make_mac", "mac_verify", "data"),
        ("make_mac", "mac_verify", "mac"),
        ("sign_message", "asymmetric_sign", "data"),
    ],
)
async def test_a_request_that_was_altered_is_refused_by_the_service_and_made_again(
    call: str, method: str, field: str, *, transport: str, make: Make, service: FakeCloudKms, keys: Keys
) -> None:
    service.faults.change_next_request(alter(field), method=method)
    await getattr(keys, call)(guarded(make(transport=transport)))
    assert service.faults.calls[method] == 2


def lose(*fields: str) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for field in fields:
            setattr(request, field, None)

    return change


async def test_checksums_that_did_not_arrive_make_the_answer_worthless(
    provider: GCPKMSProvider, service: FakeCloudKms, keys: Keys
) -> None:
    service.faults.change_next_request(lose("plaintext_crc32c"))
    with pytest.raises(ProviderConnectionError, match="did not arrive"):
        await provider.encrypt(b"value", keys.encrypting)


async def test_an_answer_that_lost_its_content_and_the_checksum_is_not_an_empty_plaintext(
    provider: GCPKMSProvider, service: FakeCloudKms, keys: Keys
) -> None:
    sealed = await provider.encrypt(b"value", keys.encrypting)

    def lose_all(response: Any) -> None:
        response.plaintext, response.plaintext_crc32c = b"", None

    service.faults.change_next_response(lose_all)
    with pytest.raises(ProviderConnectionError, match="altered on its way"):
        await provider.decrypt(sealed)


async def test_every_request_carries_the_checksum_of_each_of_its_fields(
    provider: GCPKMSProvider, service: FakeCloudKms, keys: Keys
) -> None:
    seen: list[Any] = []
    service.faults.change_next_request(seen.append, 2)
    sealed = await provider.encrypt(b"value", keys.encrypting, context=CONTEXT)
    await provider.decrypt(sealed)
    encrypt, decrypt = seen
    aad = encode_context(CONTEXT)
    assert encrypt.additional_authenticated_data == decrypt.additional_authenticated_data == aad
    assert encrypt.additional_authenticated_data_crc32c == google_crc32c.value(aad)
    assert encrypt.plaintext_crc32c == google_crc32c.value(b"value")
    assert decrypt.ciphertext_crc32c == google_crc32c.value(sealed.ciphertext)


async def test_an_empty_context_has_a_checksum_as_well(
    provider: GCPKMSProvider, service: FakeCloudKms, keys: Keys
) -> None:
    seen: list[Any] = []
    service.faults.change_next_request(seen.append)
    await provider.encrypt(b"", keys.encrypting)
    assert (seen[0].plaintext_crc32c, seen[0].additional_authenticated_data_crc32c) == (0, 0)


async def test_the_name_by_which_the_service_answers_is_the_one_that_is_kept(
    provider: GCPKMSProvider, service: FakeCloudKms, keys: Keys
) -> None:
    def answer_with_the_number(response: Any) -> None:
        response.name = response.name.replace("example-project", "123456789")

    service.faults.change_next_response(answer_with_the_number)
    sealed = await provider.encrypt(b"value", keys.encrypting)
    assert sealed.key_reference.key_id == keys.encrypting.replace("example-project", "123456789")
    assert sealed.key_reference.key_alias == keys.encrypting


async def test_an_answer_under_a_version_that_was_not_asked_for_is_refused(
    provider: GCPKMSProvider, service: FakeCloudKms, keys: Keys
) -> None:
    service.keys.add_version(keys.encrypting)

    def change(response: Any) -> None:
        response.name = f"{keys.encrypting}/cryptoKeyVersions/2"

    service.faults.change_next_response(change)
    with pytest.raises(ProviderConnectionError, match="another key"):
        await provider.encrypt(b"value", f"{keys.encrypting}/cryptoKeyVersions/1")
