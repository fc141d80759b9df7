"""``GcpKmsProvider`` on the fake Cloud KMS, through the vendor's client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keystead.crypto.signatures import verify_signature
from keystead.errors import ConfigurationError, InvalidInputError, KeyNotExportableError, KeyNotFoundError
from keystead.integrations.tamper import GcpKmsProvider
from keystead.integrations.tamper_faces import KeyFace
from keystead.ledger.signers.format import TreeItem
from keystead.model import SignatureAlgorithm
from tests.fakes.clock import FakeClock
from tests.integrations.tamper.places import Place, gcp_place

MESSAGE = b"what happened"
Make = Callable[..., KeyFace]


@pytest.fixture
def here(cloud_kms: Any) -> Any:
    """Make places on the fake."""
    yield lambda way: gcp_place(cloud_kms, way)
    cloud_kms.faults.heal()


def made(cloud_kms: Any, method: str) -> int:
    return int(cloud_kms.faults.calls[method])


async def test_gcp_kms_provider(here: Callable[[str], Place], provider_of: Make) -> None:
    for way in ("data", "mac", "sign"):
        place = here(way)
        provider = provider_of(place)
        signature = await provider.sign(place.key_id, MESSAGE)
        assert await provider.verify(place.key_id, MESSAGE, signature)
        assert not await provider.verify(place.key_id, b"another", signature)
        if way == "data":
            assert len(await provider.get_key(place.key_id)) == 32
        else:
            with pytest.raises(KeyNotExportableError):
                await provider.get_key(place.key_id)


async def test_f18_a_key_is_named_without_its_version_and_recorded_with_it(
    here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("sign")
    provider: Any = provider_of(place)
    signed = await provider.sign_named(place.key_id, MESSAGE)
    assert signed.key_id == f"{place.key_id}/cryptoKeyVersions/1"
    key = await provider._signer.public_key(key_id=signed.key_id)
    verify_signature(key, MESSAGE, signed.signature, algorithm=SignatureAlgorithm.ED25519)


async def test_f18_a_key_of_one_version_is_named_by_that(here: Callable[[str], Place], provider_of: Make) -> None:
    place = here("mac")
    pinned = f"{place.key_id}/cryptoKeyVersions/1"
    place.arguments = [pinned]
    provider = provider_of(place)
    place.rotate()
    signed = await provider.sign_named(pinned, MESSAGE)
    assert signed.key_id == pinned
    assert not await provider.rotate_check()
    assert await provider.verify(pinned, MESSAGE, signed.signature)


async def test_f18_the_newest_of_ten_versions_is_the_tenth(here: Callable[[str], Place], provider_of: Make) -> None:
    place = here("mac")
    for _ in range(9):
        place.rotate()
    provider = provider_of(place)
    assert (await provider.sign_named(place.key_id, MESSAGE)).key_id.endswith("/cryptoKeyVersions/10")


async def test_a_rotation_is_noticed_at_the_end_of_the_time(
    cloud_kms: Any, here: Callable[[str], Place], provider_of: Make, clock: FakeClock
) -> None:
    place = here("sign")
    provider = provider_of(place)
    await provider.sign(place.key_id, MESSAGE)
    place.rotate()
    clock.advance(300)
    assert (await provider.sign_named(place.key_id, MESSAGE)).key_id.endswith("/cryptoKeyVersions/2")


async def test_a_version_that_is_disabled_gives_way_to_the_one_before(
    cloud_kms: Any, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("sign")
    place.rotate()
    provider = provider_of(place)
    assert (await provider.sign_named(place.key_id, MESSAGE)).key_id.endswith("/2")
    cloud_kms.set_state(place.key_id, "DISABLED", 2)
    assert (await provider.sign_named(place.key_id, MESSAGE)).key_id.endswith("/1")


async def test_a_data_key_is_drawn_once_and_used_for_everything(
    cloud_kms: Any, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("data")
    provider = provider_of(place)
    before = made(cloud_kms, "encrypt")
    for number in range(50):
        await provider.sign(place.key_id, str(number).encode())
    assert made(cloud_kms, "encrypt") == before + 1


async def test_f20_one_signature_covers_a_batch(
    cloud_kms: Any, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("sign")
    provider = provider_of(place)
    before = made(cloud_kms, "asymmetric_sign")
    items = [str(number).encode() for number in range(64)]
    signatures = await provider.sign_batch(place.key_id, items)
    assert made(cloud_kms, "asymmetric_sign") == before + 1
    for item, signature in zip(items, signatures, strict=True):
        assert TreeItem.find(signature)
        assert await provider.verify(place.key_id, item, signature)


async def test_a_key_that_is_not_there_is_not_found(here: Callable[[str], Place], provider_of: Make) -> None:
    place = here("mac")
    missing = f"{place.key_id}-missing"
    place.arguments = [missing]
    with pytest.raises(KeyNotFoundError):
        await provider_of(place).sign(missing, MESSAGE)


@pytest.mark.parametrize("key_id", ["", "audit", "projects/p/locations/l/keyRings/r", "projects/p/x"])
def test_a_key_id_of_another_form_is_refused_at_construction(key_id: str) -> None:
    with pytest.raises(InvalidInputError):
        GcpKmsProvider(key_id)


async def test_kms_signing_with_a_key_that_encrypts_names_the_flag(
    here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("data")
    with pytest.raises(ConfigurationError, match="use_kms_signing"):
        await provider_of(place, use_kms_signing=True).sign(place.key_id, MESSAGE)
