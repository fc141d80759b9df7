"""What the context binds, and that it does: on the real server, and on one that is made to seem older."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from keystead.crypto.context import encode_context
from keystead.errors import ConfigurationError, DecryptionError, InvalidInputError, KeyNotFoundError, ProviderAuthError
from keystead.model import EncryptedData, KeyReference
from keystead.providers.vault.provider import VaultKMSProvider
from tests.providers.vault.making import Making, text
from tests.providers.vault.older import OlderServer

CONTEXT = {"tenant": "north", "row": "42"}
TYPES = ("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("derived", [False, True])
async def test_every_type_that_binds_contexts_encrypts_and_is_the_algorithms_name(
    making: Making, provider: VaultKMSProvider, kind: str, derived: bool
) -> None:
    key = making.bao.new_key(type=kind, derived=derived)
    for context in (CONTEXT, {}):
        sealed = await provider.encrypt(b"value", key, context=context)
        assert sealed.algorithm == kind
        assert sealed.ciphertext.startswith(b"vault:v1:")
        assert await provider.decrypt(sealed, context=context) == b"value"
        for other in ({}, CONTEXT, {"tenant": "south"}):
            if other != context:
                with pytest.raises(DecryptionError):
                    await provider.decrypt(sealed, context=other)


async def test_the_context_is_bound_as_its_canonical_bytes(making: Making, provider: VaultKMSProvider) -> None:
    bao = making.bao
    plain, derived = bao.new_key(), bao.new_key(derived=True)
    for key, context, field, raw in (
        (plain, CONTEXT, "associated_data", encode_context(CONTEXT)),
        (derived, CONTEXT, "context", encode_context(CONTEXT)),
        (derived, {}, "context", b"\0"),
    ):
        sealed = await provider.encrypt(b"value", key, context=context)
        opened = bao.do("POST", f"transit/decrypt/{key}", {"ciphertext": sealed.ciphertext.decode(), field: text(raw)})
        assert opened["plaintext"] == text(b"value")


async def test_before_anything_is_given_out_a_wrong_context_was_seen_to_fail_once_a_key(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key()
    for _ in range(3):
        await provider.encrypt(b"value", key, context=CONTEXT)
    verbs = [path.split("/")[1] for path in making.paths(key)]
    assert verbs == ["keys", "encrypt", "decrypt", "encrypt", "encrypt"]


async def test_a_reader_sees_it_too(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.new_key()
    sealed = await provider.encrypt(b"value", key, context=CONTEXT)
    reader = making.provider()
    making.proxy.requests.clear()
    assert await reader.decrypt(sealed) == b"value"
    assert len(making.paths("decrypt")) == 2


@pytest.fixture
def older(making: Making) -> Iterator[OlderServer]:
    """A server that does not know associated data at all, as Vault before 1.13."""
    with OlderServer(making.bao.url, without="associated_data") as server:
        yield server


@pytest.mark.parametrize("context", [CONTEXT, {}])
async def test_a_server_that_binds_no_context_is_refused_with_the_cure(
    making: Making, older: OlderServer, context: dict[str, str]
) -> None:
    key = making.bao.new_key()
    provider = making.provider(vault_addr=older.url)
    for call in (
        provider.encrypt(b"value", key, context=context),
        provider.encrypt_batch([b"value"], key, context=context),
        provider.generate_data_key(key, context=context),
    ):
        with pytest.raises(ConfigurationError, match="derived=true"):
            await call
    sealed = await making.provider().encrypt(b"value", key)
    with pytest.raises(ConfigurationError, match="does not bind contexts"):
        await provider.decrypt(sealed)


async def test_a_derived_key_binds_it_there_all_the_same(making: Making, older: OlderServer) -> None:
    key = making.bao.new_key(derived=True)
    provider = making.provider(vault_addr=older.url)
    sealed = await provider.encrypt(b"value", key, context=CONTEXT)
    assert await provider.decrypt(sealed) == b"value"
    with pytest.raises(DecryptionError):
        await provider.decrypt(sealed, context={})
    pair = await provider.generate_data_key(key, context=CONTEXT)
    assert await provider.decrypt(pair.encrypted_key) == bytes(pair.plaintext_key)


def verbs(server: OlderServer) -> list[str]:
    return [path.split("/")[3] for _, path in server.requests if path.startswith("/v1/transit/")]


@pytest.mark.parametrize("key_spec", ["AES_128", "AES_256"])
@pytest.mark.parametrize("derived", [False, True])
async def test_a_data_key_opens_under_its_context_only(
    making: Making, provider: VaultKMSProvider, key_spec: str, derived: bool
) -> None:
    key = making.bao.new_key(derived=derived)
    for context in (CONTEXT, {}):
        pair = await provider.generate_data_key(key, context=context, key_spec=key_spec)
        assert len(pair.plaintext_key) == {"AES_128": 16, "AES_256": 32}[key_spec]
        assert await provider.decrypt(pair.encrypted_key) == bytes(pair.plaintext_key)
        with pytest.raises(DecryptionError):
            await provider.decrypt(pair.encrypted_key, context={"tenant": "south"})
    # A derived key binds in every release; what ``datakey`` does with associated data depends on it.
    assert bool(making.paths("/datakey/")) is derived


async def test_no_data_key_is_lost_where_a_server_of_an_older_release_takes_over(making: Making) -> None:
    key = making.bao.new_key()
    with OlderServer(making.bao.url, without="nothing", part="/datakey/") as server:
        provider = making.provider(vault_addr=server.url)
        await provider.generate_data_key(key, context=CONTEXT)
        server.become_older("associated_data")
        pair = await provider.generate_data_key(key, context=CONTEXT)
        assert await provider.decrypt(pair.encrypted_key) == bytes(pair.plaintext_key)


async def test_who_may_only_encrypt_sees_that_the_server_reads_what_it_binds(making: Making) -> None:
    bao = making.bao
    for derived in (False, True):
        key = bao.new_key(derived=derived)
        rules = [f'path "transit/{verb}/{key}" {{ capabilities = ["update"] }}' for verb in ("encrypt", "datakey/+")]
        rules.append(f'path "transit/keys/{key}" {{ capabilities = ["read"] }}')
        writer = making.provider(token=bao.new_token(bao.policy("\n".join(rules))))
        sealed = await writer.encrypt(b"value", key, context=CONTEXT)
        pair = await writer.generate_data_key(key, context=CONTEXT)
        reader = making.provider()
        assert await reader.decrypt(sealed) == b"value"
        assert await reader.decrypt(pair.encrypted_key) == bytes(pair.plaintext_key)
        with pytest.raises(ProviderAuthError):
            await writer.decrypt(sealed)
    with OlderServer(bao.url, without="associated_data") as older:
        key = bao.new_key()
        rules = [f'path "transit/encrypt/{key}" {{ capabilities = ["update"] }}']
        rules.append(f'path "transit/keys/{key}" {{ capabilities = ["read"] }}')
        writer = making.provider(vault_addr=older.url, token=bao.new_token(bao.policy("\n".join(rules))))
        with pytest.raises(ConfigurationError, match="does not bind contexts"):
            await writer.encrypt(b"value", key, context=CONTEXT)


@pytest.mark.parametrize("kind", ["rsa-2048", "ed25519", "ecdsa-p256", "hmac"])
async def test_a_key_whose_type_binds_no_context_does_not_encrypt(
    making: Making, provider: VaultKMSProvider, kind: str
) -> None:
    key = making.bao.shared_key(type=kind, **({"key_size": 32} if kind == "hmac" else {}))
    for call in (provider.encrypt(b"v", key), provider.encrypt_batch([b"v"], key), provider.generate_data_key(key)):
        with pytest.raises(InvalidInputError, match="aes256-gcm96"):
            await call
    assert making.paths("encrypt") == making.paths("datakey") == []
    sealed = await provider.encrypt(b"value", making.bao.shared_key())
    with pytest.raises(InvalidInputError, match="binds no context"):
        await provider.decrypt(replace(sealed, key_reference=replace(sealed.key_reference, key_id=key)))


async def test_a_convergent_key_does_not_encrypt(making: Making, provider: VaultKMSProvider) -> None:
    key = making.bao.new_key(derived=True, convergent_encryption=True)
    with pytest.raises(InvalidInputError, match="equal plaintexts give equal ciphertexts"):
        await provider.encrypt(b"value", key, context=CONTEXT)


async def test_an_unknown_key_is_never_made_even_by_a_token_that_could(making: Making) -> None:
    bao = making.bao
    provider = making.provider(token=bao.new_token())
    for call in (
        provider.encrypt(b"value", "misspelt"),
        provider.encrypt_batch([b"value"], "misspelt"),
        provider.generate_data_key("misspelt"),
        provider.describe("misspelt"),
        provider.rotate_key("misspelt"),
        provider.mac(b"value", "misspelt"),
        provider.sign(b"value", "misspelt"),
    ):
        with pytest.raises(KeyNotFoundError):
            await call
    assert bao.ask("GET", "transit/keys/misspelt").status == 404


async def test_a_key_made_anew_with_other_properties_is_noticed(making: Making, provider: VaultKMSProvider) -> None:
    bao = making.bao
    key = bao.new_key()
    await provider.encrypt(b"value", key, context=CONTEXT)
    bao.destroy_key(key)
    bao.do("POST", f"transit/keys/{key}", {"derived": True, "type": "chacha20-poly1305"})
    making.proxy.requests.clear()
    sealed = await provider.encrypt(b"value", key, context=CONTEXT)
    assert sealed.algorithm == "chacha20-poly1305"
    # What was proven of the old key says nothing of the new one.
    assert len(making.paths("decrypt")) == 1
    assert await provider.decrypt(sealed) == b"value"


async def test_a_key_that_was_destroyed_is_not_made_anew_by_encrypting(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key()
    await provider.encrypt(b"value", key)
    making.bao.destroy_key(key)
    # The user's policy has no `create`, which is what makes it sure between two looks at the key.
    with pytest.raises((KeyNotFoundError, ProviderAuthError)):
        await provider.encrypt(b"value", key)
    assert making.bao.ask("GET", f"transit/keys/{key}").status == 404


def foreign(key: str, ciphertext: str, context: dict[str, str]) -> EncryptedData:
    """Return what FraiseQL keeps of a ciphertext."""
    return EncryptedData.from_dict(
        {
            "ciphertext": ciphertext.encode().hex(),
            "key_id": f"vault:{key}",
            "algorithm": "aes256-gcm96",
            "encrypted_at": datetime.now(UTC).isoformat(),
            "context": context,
        }
    )


def written_by_fraiseql(making: Making, key: str, context: dict[str, str]) -> EncryptedData:
    body = {"plaintext": text(b"value")}
    if context:
        body["context"] = text(json.dumps(context, sort_keys=True).encode())
    answer = making.bao.do("POST", f"transit/encrypt/{key}", body)
    return foreign(key, answer["ciphertext"], context)


async def test_what_fraiseql_wrote_under_a_derived_key_opens_with_its_context_only(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key(derived=True)
    sealed = written_by_fraiseql(making, key, CONTEXT)
    assert await provider.decrypt_foreign(sealed) == b"value"
    with pytest.raises(DecryptionError):
        await provider.decrypt_foreign(replace(sealed, context={"tenant": "south"}))
    with pytest.raises(DecryptionError):
        await provider.decrypt(sealed)


async def test_what_fraiseql_wrote_under_a_plain_key_opens_only_when_that_is_asked_for(making: Making) -> None:
    key = making.bao.new_key()
    sealed = written_by_fraiseql(making, key, CONTEXT)
    with pytest.raises(DecryptionError, match="read_unbound_contexts"):
        await making.provider().decrypt_foreign(sealed)
    migrating = making.provider(read_unbound_contexts=True)
    assert await migrating.decrypt_foreign(sealed) == b"value"
    # This is why it has to be asked for: nothing bound the context.
    assert await migrating.decrypt_foreign(replace(sealed, context={"tenant": "south"})) == b"value"


async def test_what_fraiseql_wrote_without_a_context_is_our_own_form(
    making: Making, provider: VaultKMSProvider
) -> None:
    key = making.bao.new_key()
    sealed = written_by_fraiseql(making, key, {})
    assert await provider.decrypt(sealed) == b"value"
    assert await provider.decrypt_foreign(sealed) == b"value"


async def test_the_provider_takes_only_the_foreign_ones_one_spelling(
    making: Making, provider: VaultKMSProvider
) -> None:
    sealed = foreign(making.bao.new_key(), "vault:v0:AAAA", {})
    with pytest.raises(DecryptionError):
        await provider.decrypt_foreign(replace(sealed, key_reference=KeyReference("vault", "orders")))
