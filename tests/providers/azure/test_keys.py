"""Keys as they are: versions, states, times of validity, what they may do, and how often they are asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    ProviderConnectionError,
)
from keystead.model import KeyPurpose, KeyState, SignatureAlgorithm
from keystead.providers.azure import client as azure_client
from tests.fakes.azure_keyvault import FakeAzure
from tests.fakes.clock import FakeClock
from tests.providers.azure.conftest import Opening
from tests.services.azure import new_name

HOUR = 3600


@pytest.fixture
def kek(cloud: FakeAzure) -> str:
    name = new_name("kek")
    cloud.vault.state.create_key(name)
    return name


@pytest.fixture
def aes(cloud: FakeAzure) -> str:
    name = new_name("aes")
    cloud.hsm.state.create_key(name, "oct-HSM")
    return name


def seconds(moment: datetime) -> int:
    return int(moment.timestamp())


async def test_answers_name_the_key_as_the_vault_does_and_the_version_it_used(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    provider = opening(allow_unauthenticated_wrap=True)
    version = cloud.vault.state.key(kek).versions[-1].id
    for typed in (kek, kek.upper(), cloud.vault.key_id(kek), f"{kek}/{version}"):
        reference = (await provider.encrypt(b"value", typed)).key_reference
        assert (reference.key_id, reference.key_version) == (cloud.vault.key_id(kek), version)
        assert reference.key_alias == (None if typed == reference.key_id else typed)


async def test_a_key_id_with_a_version_encrypts_under_that_version(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    provider = opening(allow_unauthenticated_wrap=True)
    first = cloud.vault.state.key(kek).versions[0].id
    await provider.rotate_key(kek)
    assert (await provider.encrypt(b"value", f"{kek}/{first}")).key_reference.key_version == first
    assert (await provider.encrypt(b"value", kek)).key_reference.key_version != first
    assert (await provider.describe(f"{kek}/{first}")).current_version == first


async def test_a_disabled_key_does_not_wrap_here_though_its_public_half_could(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    cloud.vault.state.set_enabled(kek, False)
    with pytest.raises(KeyStateError, match="disabled"):
        await opening(allow_unauthenticated_wrap=True).encrypt(b"value", kek)


async def test_a_key_disabled_meanwhile_wraps_until_its_state_is_asked_again_and_never_unwraps(
    opening: Opening, cloud: FakeAzure, kek: str, clock: FakeClock
) -> None:
    provider = opening({"clock": clock}, allow_unauthenticated_wrap=True)
    await provider.encrypt(b"value", kek)
    cloud.vault.state.set_enabled(kek, False)
    sealed = await provider.encrypt(b"value", kek)
    clock.advance(301)
    with pytest.raises(KeyStateError):
        await provider.encrypt(b"value", kek)
    with pytest.raises(KeyStateError):
        await provider.decrypt(sealed)
    cloud.vault.state.set_enabled(kek, True)
    assert await provider.decrypt(sealed) == b"value"


async def test_a_key_that_was_enabled_again_works_at_once(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    provider = opening(allow_unauthenticated_wrap=True)
    cloud.vault.state.set_enabled(kek, False)
    with pytest.raises(KeyStateError):
        await provider.encrypt(b"value", kek)
    cloud.vault.state.set_enabled(kek, True)
    await provider.encrypt(b"value", kek)


async def test_one_disabled_version_does_not_stop_the_others(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    provider = opening(allow_unauthenticated_wrap=True)
    old = await provider.encrypt(b"old", kek)
    await provider.rotate_key(kek)
    new = await provider.encrypt(b"new", kek)
    cloud.vault.state.set_enabled(kek, False, version=old.key_reference.key_version)
    with pytest.raises(KeyStateError):
        await provider.decrypt(old)
    assert await provider.decrypt(new) == b"new"


@pytest.mark.parametrize(("member", "ahead_s", "match"), [("nbf", HOUR, "not valid before"), ("exp", -HOUR, "expired")])
async def test_outside_its_time_a_key_protects_nothing_new_and_still_decrypts(
    opening: Opening, cloud: FakeAzure, member: str, ahead_s: int, match: str
) -> None:
    kek = new_name("kek")
    version = cloud.vault.state.create_key(kek)
    sealed = await opening(allow_unauthenticated_wrap=True).encrypt(b"value", kek)
    setattr(version, member, seconds(datetime.now(UTC)) + ahead_s)
    fresh = opening(allow_unauthenticated_wrap=True)
    with pytest.raises(KeyStateError, match=match):
        await fresh.encrypt(b"value", kek)
    assert await fresh.decrypt(sealed) == b"value"
    assert (await fresh.describe(kek)).state is KeyState.DISABLED


async def test_outside_its_time_a_key_of_an_hsm_is_refused_by_the_service_as_well(
    opening: Opening, cloud: FakeAzure, aes: str
) -> None:
    provider = opening(vault_url=cloud.hsm.url)
    await provider.encrypt(b"value", aes)
    cloud.hsm.state.key(aes).versions[-1].exp = seconds(datetime.now(UTC)) - HOUR
    with pytest.raises(KeyStateError):
        await provider.encrypt(b"value", aes)


async def test_describe_tells_when_a_key_was_made(opening: Opening, cloud: FakeAzure, kek: str) -> None:
    description = await opening().describe(kek)
    assert description.created_at is not None
    assert abs(description.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert description.key_reference.created_at == description.created_at


async def test_a_deleted_key_is_pending_deletion_until_it_is_purged(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    provider = opening(allow_unauthenticated_wrap=True)
    sealed = await provider.encrypt(b"value", kek)
    cloud.vault.state.delete(kek)
    assert (await provider.describe(kek)).state is KeyState.PENDING_DELETION
    with pytest.raises(KeyNotFoundError):
        await provider.decrypt(sealed)
    with pytest.raises(KeyNotFoundError):
        await provider.encrypt(b"value", kek)
    cloud.vault.state.purge(kek)
    with pytest.raises(KeyNotFoundError, match=kek):
        await provider.describe(kek)


async def test_a_deleted_key_that_may_not_be_asked_for_is_not_found(opening: Opening, cloud: FakeAzure) -> None:
    name = new_name("aes")
    cloud.hsm.state.create_key(name, "oct-HSM")
    cloud.hsm.state.delete(name)
    cloud.hsm.deny("getDeleted")
    with pytest.raises(KeyNotFoundError):
        await opening(vault_url=cloud.hsm.url).describe(name)


@pytest.mark.parametrize(
    ("kty", "key_ops", "purpose"),
    [
        ("RSA-HSM", None, KeyPurpose.ENCRYPT_DECRYPT),
        ("RSA-HSM", ("wrapKey", "unwrapKey"), KeyPurpose.ENCRYPT_DECRYPT),
        ("RSA-HSM", ("sign", "verify"), KeyPurpose.SIGN_VERIFY),
        ("EC-HSM", None, KeyPurpose.SIGN_VERIFY),
        ("oct-HSM", None, KeyPurpose.ENCRYPT_DECRYPT),
        ("oct-HSM", ("sign", "verify"), KeyPurpose.MAC),
    ],
)
async def test_a_keys_purpose_follows_from_its_type_and_operations(
    opening: Opening, cloud: FakeAzure, kty: str, key_ops: tuple[str, ...] | None, purpose: KeyPurpose
) -> None:
    name = new_name("key")
    cloud.hsm.state.create_key(name, kty, key_ops=key_ops)
    description = await opening(vault_url=cloud.hsm.url).describe(name)
    assert description.key_reference.purpose is purpose
    assert bool(description.algorithms) is ("sign" in (key_ops or ("sign" if kty != "oct-HSM" else "")))


async def test_a_key_is_not_used_for_what_it_was_not_made_for(opening: Opening, cloud: FakeAzure) -> None:
    signing, wrapping, curve = new_name("signing"), new_name("wrapping"), new_name("curve")
    cloud.vault.state.create_key(signing, key_ops=("sign", "verify"))
    cloud.vault.state.create_key(wrapping, key_ops=("wrapKey", "unwrapKey"))
    cloud.vault.state.create_key(curve, "EC")
    provider = opening(allow_unauthenticated_wrap=True)
    calls: list[Any] = [
        lambda: provider.encrypt(b"value", signing),
        lambda: provider.sign(b"message", wrapping),
        lambda: provider.encrypt(b"value", curve),
        lambda: provider.sign(b"message", curve, algorithm=SignatureAlgorithm.ECDSA_SHA_384),
        lambda: provider.sign(b"message", curve, algorithm=SignatureAlgorithm.ED25519),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError):
            await call()


@pytest.mark.parametrize(("size", "capacity"), [(2048, 158), (3072, 286)])
async def test_how_much_an_rsa_key_takes_depends_on_its_size(
    opening: Opening, cloud: FakeAzure, size: int, capacity: int
) -> None:
    name = new_name("kek")
    cloud.vault.state.create_key(name, size=size)
    provider = opening(allow_unauthenticated_wrap=True)
    sealed = await provider.encrypt(bytes(capacity), name)
    assert await provider.decrypt(sealed) == bytes(capacity)
    before = cloud.vault.calls()
    with pytest.raises(InvalidInputError, match=f"{capacity} bytes.*local_encrypt.*generate_data_key"):
        await provider.encrypt(bytes(capacity + 1), name)
    assert cloud.vault.calls() == before


async def test_a_key_of_another_size_than_keystead_wraps_with_says_so(
    opening: Opening, cloud: FakeAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_name("kek")
    cloud.vault.state.create_key(name, "RSA")
    provider = opening(allow_unauthenticated_wrap=True)
    connection = await provider._connection()
    found = await connection.key(provider._config.key_id(name))
    connection._known[found.id.host, name, ""] = replace(found, bits=1024)
    with pytest.raises(ConfigurationError, match="1024 bits"):
        await provider.encrypt(b"value", name)


async def test_an_aes_key_of_another_size_says_what_it_needs(opening: Opening, cloud: FakeAzure) -> None:
    name = new_name("aes")
    cloud.hsm.state.create_key(name, "oct-HSM", size=128)
    with pytest.raises(EncryptionError, match="256 bits"):
        await opening(vault_url=cloud.hsm.url).encrypt(b"value", name)


async def test_decrypting_needs_no_permission_to_read_keys(opening: Opening, cloud: FakeAzure, aes: str) -> None:
    sealed = await opening(vault_url=cloud.hsm.url).encrypt(b"value", aes)
    cloud.hsm.deny("get")
    provider = opening(vault_url=cloud.hsm.url)
    assert await provider.decrypt(sealed) == b"value"
    before = cloud.hsm.calls()
    assert await provider.decrypt(sealed) == b"value"
    assert cloud.hsm.calls() == before + 1


async def test_requests_are_as_few_as_the_page_says(opening: Opening, cloud: FakeAzure, kek: str, aes: str) -> None:
    signer, mac = new_name("signer"), new_name("mac")
    cloud.vault.state.create_key(signer, "EC")
    cloud.hsm.state.create_key(mac, "oct-HSM", key_ops=("sign", "verify"))
    unsigned, signed = opening(allow_unauthenticated_wrap=True), opening(sign_key=signer)
    hsm = opening(vault_url=cloud.hsm.url, managed_hsm=True)
    sealed = {one: await one.encrypt(b"value", kek) for one in (unsigned, signed)}
    sealed[hsm] = await hsm.encrypt(b"value", aes)
    made = await hsm.mac(b"message", mac)
    for one, encrypted in sealed.items():
        await one.decrypt(encrypted)
    await hsm.verify_mac(b"message", made)

    async def requests(call: Any) -> int:
        before = cloud.vault.calls() + cloud.hsm.calls()
        await call
        return cloud.vault.calls() + cloud.hsm.calls() - before

    assert await requests(unsigned.encrypt(b"value", kek)) == 0
    assert await requests(unsigned.generate_data_key(kek)) == 0
    assert await requests(signed.encrypt(b"value", kek)) == 1
    assert await requests(hsm.encrypt(b"value", aes)) == 1
    for one, encrypted in sealed.items():
        assert await requests(one.decrypt(encrypted)) == 1
    assert await requests(signed.sign(b"message", signer)) == 1
    assert await requests(signed.public_key(signer)) == 0
    assert await requests(hsm.mac(b"message", mac)) == 1
    assert await requests(hsm.verify_mac(b"message", made)) == 1
    assert await requests(signed.describe(kek)) == 1
    assert await requests(signed.get_rotation_policy(kek)) == 2
    assert await requests(signed.rotate_key(kek)) == 1
    assert await requests(signed.service_time()) == 1


async def test_a_record_of_a_version_that_is_not_there_costs_the_others_nothing(
    opening: Opening, cloud: FakeAzure, aes: str
) -> None:
    provider = opening(vault_url=cloud.hsm.url)
    sealed = await provider.encrypt(b"value", aes)
    missing = replace(sealed, key_reference=replace(sealed.key_reference, key_version="0" * 32))
    with pytest.raises(KeyNotFoundError):
        await provider.decrypt(missing)
    before = cloud.hsm.calls()
    assert await provider.decrypt(sealed) == b"value"
    assert cloud.hsm.calls() == before + 1


async def test_callers_who_need_the_same_key_at_the_same_time_share_one_request(
    opening: Opening, cloud: FakeAzure, aes: str
) -> None:
    sealed = await opening(vault_url=cloud.hsm.url).encrypt(b"value", aes)
    provider = opening(vault_url=cloud.hsm.url)
    await provider.service_time()
    cloud.hsm.server.requests.clear()
    await asyncio.gather(*(provider.decrypt(sealed) for _ in range(20)))
    # The first of them is the SDK looking for the challenge, without a token.
    assert len([method for method, _ in cloud.hsm.server.requests if method == "GET"]) <= 2


async def test_no_more_keys_are_remembered_than_a_bound(
    opening: Opening, cloud: FakeAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_client, "KEPT", 4)
    names = [new_name("aes") for _ in range(6)]
    provider = opening(vault_url=cloud.hsm.url)
    for name in names:
        cloud.hsm.state.create_key(name, "oct-HSM")
        assert await provider.decrypt(await provider.encrypt(b"value", name)) == b"value"
    connection = await provider._connection()
    assert len(connection._known) == 4
    assert len(connection._clients.crypto_clients) == 4


async def test_a_connection_is_used_again(opening: Opening, cloud: FakeAzure, aes: str) -> None:
    provider = opening(vault_url=cloud.hsm.url)
    before = cloud.hsm.server.connections
    for _ in range(20):
        await provider.decrypt(await provider.encrypt(b"value", aes))
    assert cloud.hsm.server.connections - before == 1


async def test_the_services_clock_is_read_without_signing_in(opening: Opening, cloud: FakeAzure) -> None:
    provider = opening()
    cloud.login_server.requests.clear()
    cloud.vault.server.clock_offset_s = 7200
    ahead = await provider.service_time() - datetime.now(UTC)
    assert timedelta(hours=1, minutes=55) < ahead < timedelta(hours=2, minutes=5)
    assert cloud.login_server.requests == []


async def test_without_a_vault_there_is_no_clock_to_read(opening: Opening, cloud: FakeAzure) -> None:
    with pytest.raises(ConfigurationError, match="vault_url"):
        await opening(vault_url=None).service_time()
    cloud.vault.server.drop_next(3, path="")
    with pytest.raises(ProviderConnectionError, match="its time"):
        await opening().service_time()


@pytest.mark.parametrize(
    "change",
    [
        {"key_id": "https://evil.example.org/keys/kek"},
        {"key_id": "http://acme.vault.azure.net/keys/kek"},
        {"key_version": None},
        {"key_version": "../../secrets/x"},
        {"key_id": "kek/1"},
        {"key_id": ""},
    ],
)
async def test_a_record_that_names_no_version_of_a_key_is_a_decryption_error(
    opening: Opening, cloud: FakeAzure, kek: str, change: dict[str, Any]
) -> None:
    provider = opening(allow_unauthenticated_wrap=True)
    sealed = await provider.encrypt(b"value", kek)
    before = cloud.vault.calls()
    with pytest.raises(DecryptionError):
        await provider.decrypt(replace(sealed, key_reference=replace(sealed.key_reference, **change)))
    assert cloud.vault.calls() == before
