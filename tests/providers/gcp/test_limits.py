"""How much a key takes, by its protection level; refused here, with the way for more."""

from __future__ import annotations

import asyncio

import pytest

from keystead.errors import DecryptionError, InvalidInputError
from keystead.providers.gcp.provider import GCPKMSProvider
from tests.fakes.gcp_kms import FakeCloudKms

KIB = 1024
PAIR_OVERHEAD = 8


def context_of(size: int) -> dict[str, str]:
    """Return a context whose encoding has ``size`` bytes."""
    return {"k": "x" * (size - PAIR_OVERHEAD - 1)}


@pytest.fixture(params=["HSM", "HSM_SINGLE_TENANT"])
def hsm_key(request: pytest.FixtureRequest, service: FakeCloudKms, ring: str) -> str:
    return service.create_key("hsm", ring=ring, level=request.param)


async def test_an_hsm_takes_eight_kib_of_plaintext_and_context_together(provider: GCPKMSProvider, hsm_key: str) -> None:
    sealed = await provider.encrypt(bytes(8 * KIB), hsm_key)
    assert await provider.decrypt(sealed) == bytes(8 * KIB)
    sealed = await provider.encrypt(bytes(7 * KIB), hsm_key, context=context_of(KIB))
    assert await provider.decrypt(sealed) == bytes(7 * KIB)


async def test_more_than_an_hsm_takes_is_refused_with_the_way_for_more(
    provider: GCPKMSProvider, service: FakeCloudKms, hsm_key: str
) -> None:
    for plaintext, context in ((bytes(8 * KIB + 1), None), (bytes(7 * KIB + 1), context_of(KIB))):
        with pytest.raises(InvalidInputError, match=r"8 KiB.*local_encrypt.*generate_data_key"):
            await provider.encrypt(plaintext, hsm_key, context=context)
    assert service.faults.calls["encrypt"] == 0


@pytest.mark.parametrize("level", ["SOFTWARE", "EXTERNAL", "EXTERNAL_VPC"])
async def test_other_keys_take_sixty_four_kib_of_each(
    level: str, provider: GCPKMSProvider, service: FakeCloudKms, ring: str
) -> None:
    key = service.create_key("key", ring=ring, level=level)
    sealed = await provider.encrypt(bytes(64 * KIB), key, context=context_of(64 * KIB))
    assert await provider.decrypt(sealed) == bytes(64 * KIB)


async def test_more_than_any_key_takes_is_refused_without_asking(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    with pytest.raises(InvalidInputError, match=r"64 KiB.*local_encrypt"):
        await provider.encrypt(bytes(64 * KIB + 1), key)
    with pytest.raises(InvalidInputError, match="contexts of up to 64 KiB"):
        await provider.encrypt(b"", key, context=context_of(64 * KIB + 1))
    assert service.faults.calls.total() == 0


async def test_what_every_key_takes_is_sent_without_asking_for_the_level(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    await provider.encrypt(bytes(8 * KIB), key)
    assert service.faults.calls == {"encrypt": 1}


async def test_the_level_is_asked_for_once(provider: GCPKMSProvider, service: FakeCloudKms, key: str) -> None:
    await asyncio.gather(*(provider.encrypt(bytes(9 * KIB), key) for _ in range(20)))
    await provider.encrypt(bytes(9 * KIB), key)
    assert service.faults.calls["get_crypto_key"] == 1


async def test_an_answer_tells_the_level_as_well(provider: GCPKMSProvider, service: FakeCloudKms, key: str) -> None:
    await provider.encrypt(b"value", key)
    await provider.encrypt(bytes(9 * KIB), key)
    assert service.faults.calls["get_crypto_key"] == 0


async def test_where_the_level_may_not_be_read_the_service_decides(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str, hsm_key: str
) -> None:
    service.faults.deny("cloudkms.cryptoKeys.get")
    sealed = await provider.encrypt(bytes(9 * KIB), key)
    assert await provider.decrypt(sealed) == bytes(9 * KIB)
    with pytest.raises(InvalidInputError, match="too large for the key's protection level"):
        await provider.encrypt(bytes(9 * KIB), hsm_key)


async def test_a_key_without_a_primary_has_the_level_of_its_template(
    provider: GCPKMSProvider, service: FakeCloudKms, hsm_key: str
) -> None:
    service.keys.key(hsm_key).primary = None
    with pytest.raises(InvalidInputError, match="8 KiB"):
        await provider.encrypt(bytes(9 * KIB), hsm_key)


async def test_a_context_that_no_key_can_have_bound_does_not_decrypt(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str
) -> None:
    sealed = await provider.encrypt(b"value", key)
    with pytest.raises(DecryptionError):
        await provider.decrypt(sealed, context=context_of(64 * KIB + 1))
    assert service.faults.calls["decrypt"] == 0


async def test_what_is_remembered_of_keys_has_an_end(
    provider: GCPKMSProvider, service: FakeCloudKms, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keystead.providers.gcp.provider._MOST_LEVELS", 2)
    for name in ("a", "b", "c"):
        await provider.encrypt(b"value", service.create_key(name, ring=key.partition("/cryptoKeys/")[0]))
    assert len(provider._levels) <= 2


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_bytes_of_every_kind_are_taken(kind: type, provider: GCPKMSProvider, key: str) -> None:
    sealed = await provider.encrypt(kind(b"value"), key)
    assert await provider.decrypt(sealed) == b"value"
