"""``AzureKeyVaultProvider`` on the fake Azure, through the vendor's client."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from keystead.crypto.signatures import verify_signature
from keystead.errors import (
    ConfigurationError,
    HardcodedCredentialWarning,
    InvalidInputError,
    KeyNotExportableError,
    KeyNotFoundError,
)
from keystead.integrations.tamper import AzureKeyVaultProvider
from keystead.integrations.tamper_faces import KeyFace
from keystead.model import SignatureAlgorithm
from keystead.providers.azure.provider import AzureKMSConfig
from tests.fakes.azure_keyvault import CLIENT, SECRET, TENANT, FakeAzure, clear_challenges
from tests.integrations.tamper.places import Place, azure_place
from tests.services.azure import new_name

MESSAGE = b"what happened"
KEY_ID = "https://acme.vault.azure.net/keys/audit"
Make = Callable[..., KeyFace]


@pytest.fixture
def here(azure: FakeAzure) -> Any:
    """Make places on the fake."""
    clear_challenges()
    yield lambda way: azure_place(azure, way)
    azure.heal()


async def test_azure_keyvault_provider(here: Callable[[str], Place], provider_of: Make) -> None:
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


async def test_f19_an_elliptic_key_of_a_vault_signs_and_its_public_key_verifies(
    here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("sign")
    provider: Any = provider_of(place)
    signed = await provider.sign_named(place.key_id, MESSAGE)
    key = await provider._signer.public_key(key_id=signed.key_id)
    verify_signature(key, MESSAGE, signed.signature, algorithm=SignatureAlgorithm.ECDSA_SHA_256)


async def test_f19_an_rsa_key_signs_itself_where_that_is_asked_for(
    here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("data")
    provider = provider_of(place, use_kms_signing=True)
    signature = await provider.sign(place.key_id, MESSAGE)
    assert len(signature) == 256
    assert await provider.verify(place.key_id, MESSAGE, signature)
    with pytest.raises(KeyNotExportableError):
        await provider.get_key(place.key_id)


@pytest.mark.parametrize("use_kms_signing", [False, True])
async def test_a_key_that_was_retired_to_verifying_alone_verifies_what_it_signed(
    azure: FakeAzure, here: Callable[[str], Place], provider_of: Make, use_kms_signing: bool
) -> None:
    place = here("sign")
    name = place.key_id.rpartition("/")[2]
    signed = await provider_of(place).sign_named(place.key_id, MESSAGE)
    azure.vault.state.key(name).versions[-1].key_ops = ("verify",)
    provider = provider_of(place, use_kms_signing=use_kms_signing)
    for key_id in (place.key_id, signed.key_id):
        assert await provider.verify(key_id, MESSAGE, signed.signature)
        assert not await provider.verify(key_id, b"another", signed.signature)
    with pytest.raises(InvalidInputError, match="not made for sign"):
        await provider.sign(place.key_id, MESSAGE)


async def test_f19_a_key_is_named_without_its_version_and_recorded_with_it(
    here: Callable[[str], Place], provider_of: Make
) -> None:
    for way in ("data", "mac", "sign"):
        place = here(way)
        signed = await provider_of(place).sign_named(place.key_id, MESSAGE)
        base, _, version = signed.key_id.rpartition("/")
        assert base == place.key_id
        assert len(version) == 32


async def test_a_key_of_one_version_goes_on_signing_by_that(
    azure: FakeAzure, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("sign")
    pinned = (await provider_of(place).sign_named(place.key_id, MESSAGE)).key_id
    place.arguments = [pinned]
    provider = provider_of(place)
    place.rotate()
    assert (await provider.sign_named(pinned, MESSAGE)).key_id == pinned
    assert not await provider.rotate_check()


async def test_a_session_key_that_anybody_could_have_wrapped_is_not_believed(
    azure: FakeAzure, here: Callable[[str], Place], provider_of: Make
) -> None:
    place = here("data")
    forger = dict(place.options["config"], sign_key=None, allow_unauthenticated_wrap=True)
    with pytest.raises(ConfigurationError, match="everybody who has the public key"):
        AzureKeyVaultProvider(place.key_id, config=AzureKMSConfig(**forger))
    other = new_name("other-signer")
    azure.vault.state.create_key(other, "EC", curve="P-256")
    place.options["config"] = dict(place.options["config"], sign_key=other)
    signature = await provider_of(place).sign(place.key_id, MESSAGE)
    place.options["config"] = dict(place.options["config"], sign_key=None)
    assert not await provider_of(place).verify(place.key_id, MESSAGE, signature)


async def test_a_key_that_is_not_there_is_not_found(here: Callable[[str], Place], provider_of: Make) -> None:
    place = here("sign")
    missing = f"{place.key_id}-missing"
    place.arguments = [missing]
    with pytest.raises(KeyNotFoundError):
        await provider_of(place).sign(missing, MESSAGE)


@pytest.mark.parametrize(
    "key_id", [KEY_ID, f"{KEY_ID}/0123456789abcdef0123456789abcdef", "https://acme.managedhsm.azure.net/keys/audit"]
)
def test_complete_key_ids_with_and_without_a_version_are_taken(key_id: str) -> None:
    AzureKeyVaultProvider(key_id)


@pytest.mark.parametrize(
    "key_id", ["https://vault.example.org/keys/audit", "http://acme.vault.azure.net/keys/audit", "audit"]
)
def test_other_hosts_are_refused_unless_they_are_listed(key_id: str) -> None:
    with pytest.raises(ConfigurationError):
        AzureKeyVaultProvider(key_id)
    if key_id.startswith("https"):
        AzureKeyVaultProvider(key_id, allowed_hosts=["vault.example.org"])


def test_f22_a_client_secret_in_the_configuration_is_warned_of_once() -> None:
    with pytest.warns(HardcodedCredentialWarning, match="client_secret") as caught:
        AzureKeyVaultProvider(KEY_ID, TENANT, CLIENT, client_secret=SECRET)
    assert len(caught) == 1
    assert SECRET not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AzureKeyVaultProvider(KEY_ID, TENANT, CLIENT)


def test_a_tenant_without_a_client_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="client_id"):
        AzureKeyVaultProvider(KEY_ID, tenant_id=TENANT)


def test_settings_beside_a_configuration_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        AzureKeyVaultProvider(KEY_ID, TENANT, CLIENT, config=AzureKMSConfig(vault_url="https://acme.vault.azure.net"))
