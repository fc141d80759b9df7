"""Who made a wrap: forged, moved and stripped ones, and the keys that sign."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    ProviderAuthError,
)
from keystead.model import EncryptedData, SignatureAlgorithm
from keystead.providers.azure.provider import AzureKMSProvider
from keystead.providers.azure.wrap import RsaWrap, Signer, context_hash, parse
from tests.fakes.azure_keyvault import FakeAzure
from tests.providers.azure.conftest import Opening
from tests.services.azure import new_name

CONTEXT = {"row": "1"}


@dataclass
class Signed:
    """A vault with a KEK, a key that signs, and a provider of both."""

    provider: AzureKMSProvider
    kek: str
    signer: str


@pytest.fixture
def signed(opening: Opening, cloud: FakeAzure) -> Signed:
    kek, signer = new_name("kek"), new_name("signer")
    cloud.vault.state.create_key(kek)
    cloud.vault.state.create_key(signer, "EC")
    return Signed(opening(sign_key=signer), kek, signer)


def wrap_of(encrypted: EncryptedData) -> RsaWrap:
    parsed = parse(encrypted.ciphertext)
    assert isinstance(parsed, RsaWrap)
    return parsed


async def forged(provider: AzureKMSProvider, kek: str, context: dict[str, str], value: bytes) -> bytes:
    """Return what anybody can make who has the public half of a key: a wrap of ``value`` that unwraps."""
    public = load_der_public_key((await provider.public_key(kek)).der)
    assert isinstance(public, rsa.RSAPublicKey)
    return public.encrypt(context_hash(context) + value, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))


async def test_a_wrap_forged_with_the_public_key_is_refused(signed: Signed, cloud: FakeAzure) -> None:
    genuine = await signed.provider.encrypt(b"genuine", signed.kek, context=CONTEXT)
    wrapped = await forged(signed.provider, signed.kek, CONTEXT, b"forged!")
    attempts = [
        RsaWrap(wrapped),
        replace(wrap_of(genuine), wrapped=wrapped),
        replace(wrap_of(genuine), wrapped=wrapped, signature=bytes(64)),
    ]
    for attempt in attempts:
        before = cloud.vault.calls()
        with pytest.raises(DecryptionError):
            await signed.provider.decrypt(replace(genuine, ciphertext=attempt.to_bytes()))
        assert cloud.vault.calls() == before, "the service was asked to unwrap what nobody vouches for"


async def test_the_forgery_is_what_a_provider_without_signatures_would_take(opening: Opening, signed: Signed) -> None:
    genuine = await signed.provider.encrypt(b"genuine", signed.kek, context=CONTEXT)
    wrapped = await forged(signed.provider, signed.kek, CONTEXT, b"forged!")
    trusting = opening(allow_unauthenticated_wrap=True)
    attempt = replace(genuine, ciphertext=RsaWrap(wrapped).to_bytes())
    assert await trusting.decrypt(attempt) == b"forged!"


async def test_a_wrap_signed_by_a_key_of_ones_own_is_refused(
    signed: Signed, cloud: FakeAzure, opening: Opening
) -> None:
    mine = new_name("mine")
    cloud.vault.state.create_key(mine, "EC")
    attempt = await opening(sign_key=mine).encrypt(b"forged!", signed.kek, context=CONTEXT)
    with pytest.raises(DecryptionError, match="sign_key does not name"):
        await signed.provider.decrypt(attempt)


async def test_a_wrap_moved_to_another_context_is_refused_before_any_call(signed: Signed, cloud: FakeAzure) -> None:
    sealed = await signed.provider.encrypt(b"value", signed.kek, context=CONTEXT)
    before = cloud.vault.calls()
    with pytest.raises(DecryptionError):
        await signed.provider.decrypt(sealed, context={"row": "2"})
    assert cloud.vault.calls() == before


async def test_an_unsigned_wrap_moved_to_another_context_is_refused_too(
    opening: Opening, signed: Signed, cloud: FakeAzure
) -> None:
    provider = opening(allow_unauthenticated_wrap=True)
    sealed = await provider.encrypt(b"value", signed.kek, context=CONTEXT)
    before = cloud.vault.calls()
    with pytest.raises(DecryptionError):
        await provider.decrypt(sealed, context={"row": "2"})
    assert cloud.vault.calls() == before + 1


async def test_a_wrap_moved_to_another_key_is_refused(signed: Signed, cloud: FakeAzure) -> None:
    other = new_name("kek")
    cloud.vault.state.create_key(other)
    sealed = await signed.provider.encrypt(b"value", signed.kek)
    another = await signed.provider.encrypt(b"value", other)
    with pytest.raises(DecryptionError):
        await signed.provider.decrypt(replace(sealed, key_reference=another.key_reference))


async def test_an_rsa_key_without_a_signing_key_is_refused_with_the_two_ways_out(
    opening: Opening, signed: Signed
) -> None:
    with pytest.raises(ConfigurationError, match=r"sign_key.*allow_unauthenticated_wrap=True"):
        await opening().encrypt(b"value", signed.kek)


async def test_a_signed_wrap_is_not_opened_without_checking_it(opening: Opening, signed: Signed) -> None:
    sealed = await signed.provider.encrypt(b"value", signed.kek)
    for given in ({}, {"allow_unauthenticated_wrap": True}):
        with pytest.raises(ConfigurationError, match=signed.signer):
            await opening(**given).decrypt(sealed)


async def test_while_moving_to_signatures_both_kinds_are_read_and_signed_ones_written(
    opening: Opening, signed: Signed
) -> None:
    old = await opening(allow_unauthenticated_wrap=True).encrypt(b"old", signed.kek)
    with pytest.raises(DecryptionError, match="allow_unauthenticated_wrap"):
        await signed.provider.decrypt(old)
    moving = opening(sign_key=signed.signer, allow_unauthenticated_wrap=True)
    new = await moving.encrypt(b"new", signed.kek)
    assert (await moving.decrypt(old), await signed.provider.decrypt(new)) == (b"old", b"new")


async def test_what_an_older_version_of_the_signing_key_signed_is_still_taken(opening: Opening, signed: Signed) -> None:
    old = await signed.provider.encrypt(b"old", signed.kek)
    await signed.provider.rotate_key(signed.signer)
    new = await signed.provider.encrypt(b"new", signed.kek)
    assert wrap_of(old).signer != wrap_of(new).signer
    fresh = opening(sign_key=signed.signer)
    assert [await fresh.decrypt(one) for one in (old, new)] == [b"old", b"new"]


async def test_what_a_replaced_signing_key_signed_is_taken_while_it_is_named(
    opening: Opening, signed: Signed, cloud: FakeAzure
) -> None:
    old = await signed.provider.encrypt(b"old", signed.kek)
    newer = new_name("signer")
    cloud.vault.state.create_key(newer, "RSA", key_ops=("sign", "verify"))
    both = opening(sign_key=[newer, signed.signer])
    new = await both.encrypt(b"new", signed.kek)
    signer = wrap_of(new).signer
    assert signer is not None
    assert newer in signer.key_id
    assert [await both.decrypt(one) for one in (old, new)] == [b"old", b"new"]
    with pytest.raises(DecryptionError):
        await opening(sign_key=newer).decrypt(old)


async def test_what_a_disabled_signing_key_signed_is_not_trusted(
    opening: Opening, signed: Signed, cloud: FakeAzure
) -> None:
    sealed = await signed.provider.encrypt(b"value", signed.kek)
    cloud.vault.state.set_enabled(signed.signer, False)
    fresh = opening(sign_key=signed.signer)
    with pytest.raises(KeyStateError, match="signing key"):
        await fresh.decrypt(sealed)
    with pytest.raises(KeyStateError):
        await fresh.encrypt(b"value", signed.kek)
    cloud.vault.state.set_enabled(signed.signer, True)
    assert await fresh.decrypt(sealed) == b"value"


async def test_a_version_of_the_signing_key_that_is_not_there_is_the_one_decryption_error(signed: Signed) -> None:
    sealed = await signed.provider.encrypt(b"value", signed.kek)
    wrap = wrap_of(sealed)
    assert wrap.signer is not None
    other = replace(wrap.signer, key_id=wrap.signer.key_id[:-32] + "0" * 32)
    with pytest.raises(DecryptionError):
        await signed.provider.decrypt(replace(sealed, ciphertext=replace(wrap, signer=other).to_bytes()))


@pytest.mark.parametrize(
    "key_id",
    [
        "https://evil.example.org/keys/signer/0123456789abcdef0123456789abcdef",
        "https://evil.vault.azure.net/keys/signer/0123456789abcdef0123456789abcdef",
        "signer",
        "x",
    ],
)
async def test_a_wrap_makes_nobody_ask_a_host_that_it_names(signed: Signed, cloud: FakeAzure, key_id: str) -> None:
    sealed = await signed.provider.encrypt(b"value", signed.kek)
    signer = Signer(key_id, SignatureAlgorithm.ECDSA_SHA_256)
    before = cloud.vault.calls()
    with pytest.raises(DecryptionError):
        await signed.provider.decrypt(replace(sealed, ciphertext=replace(wrap_of(sealed), signer=signer).to_bytes()))
    assert cloud.vault.calls() == before


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("P-256", SignatureAlgorithm.ECDSA_SHA_256),
        ("P-384", SignatureAlgorithm.ECDSA_SHA_384),
        ("P-521", SignatureAlgorithm.ECDSA_SHA_512),
        ("RSA", SignatureAlgorithm.RSA_PSS_SHA_256),
    ],
)
async def test_ec_and_rsa_keys_sign_wraps(
    opening: Opening, signed: Signed, cloud: FakeAzure, kind: str, algorithm: SignatureAlgorithm
) -> None:
    signer = new_name("signer")
    if kind == "RSA":
        cloud.vault.state.create_key(signer)
    else:
        cloud.vault.state.create_key(signer, "EC", curve=kind)
    provider = opening(sign_key=signer)
    for _ in range(8):  # half of all ECDSA signatures come with the larger s
        sealed = await provider.encrypt(b"value", signed.kek)
        used = wrap_of(sealed).signer
        assert used is not None
        assert used.algorithm is algorithm
        assert await provider.decrypt(sealed) == b"value"


async def test_a_key_that_cannot_sign_wraps_is_refused(opening: Opening, signed: Signed, cloud: FakeAzure) -> None:
    odd, wrapping, aes = new_name("odd"), new_name("wrapping"), new_name("aes")
    cloud.vault.state.create_key(odd, "EC", curve="P-256K")
    cloud.vault.state.create_key(wrapping, "RSA", key_ops=("wrapKey", "unwrapKey"))
    cloud.hsm.state.create_key(aes, "oct-HSM")
    with pytest.raises(ConfigurationError, match="sign_key"):
        await opening(sign_key=odd).encrypt(b"value", signed.kek)
    with pytest.raises(ConfigurationError, match="sign_key"):
        await opening(sign_key=cloud.hsm.key_id(aes)).encrypt(b"value", signed.kek)
    with pytest.raises(InvalidInputError, match="key_ops"):
        await opening(sign_key=wrapping).encrypt(b"value", signed.kek)
    with pytest.raises(KeyNotFoundError, match="no-such-signer"):
        await opening(sign_key="no-such-signer").encrypt(b"value", signed.kek)


async def test_the_signing_key_may_be_in_another_vault(opening: Opening, signed: Signed, cloud: FakeAzure) -> None:
    signer = new_name("signer")
    cloud.hsm.state.create_key(signer, "EC-HSM")
    provider = opening(sign_key=cloud.hsm.key_id(signer))
    sealed = await provider.encrypt(b"value", signed.kek)
    assert await provider.decrypt(sealed) == b"value"


async def test_who_may_not_sign_cannot_wrap(signed: Signed, cloud: FakeAzure) -> None:
    cloud.vault.deny("sign")
    with pytest.raises(ProviderAuthError):
        await signed.provider.encrypt(b"value", signed.kek)


async def test_who_may_not_sign_can_still_unwrap(opening: Opening, signed: Signed, cloud: FakeAzure) -> None:
    sealed = await signed.provider.encrypt(b"value", signed.kek)
    cloud.vault.deny("sign")
    assert await opening(sign_key=signed.signer).decrypt(sealed) == b"value"


async def test_an_aes_key_needs_no_signature(opening: Opening, cloud: FakeAzure) -> None:
    kek = new_name("kek")
    cloud.hsm.state.create_key(kek, "oct-HSM")
    provider = opening(vault_url=cloud.hsm.url)
    sealed = await provider.encrypt(b"value", kek, context=CONTEXT)
    assert sealed.algorithm == "A256GCM"
    with pytest.raises(DecryptionError):
        await provider.decrypt(sealed, context={"row": "2"})


async def test_no_bit_of_an_aes_ciphertext_can_be_flipped(opening: Opening, cloud: FakeAzure) -> None:
    kek = new_name("kek")
    cloud.hsm.state.create_key(kek, "oct-HSM")
    provider = opening(vault_url=cloud.hsm.url)
    sealed = await provider.encrypt(b"v", kek)
    for position in range(len(sealed.ciphertext)):
        altered = bytearray(sealed.ciphertext)
        altered[position] ^= 0x80
        with pytest.raises(DecryptionError):
            await provider.decrypt(replace(sealed, ciphertext=bytes(altered)))


async def test_what_one_client_of_an_aes_key_seals_every_other_opens(opening: Opening, cloud: FakeAzure) -> None:
    """The SDK wraps under a random key of its own where it has no bytes of a symmetric key, and only it can unwrap."""
    kek = new_name("kek")
    cloud.hsm.state.create_key(kek, "oct-HSM")
    first, second = opening(vault_url=cloud.hsm.url), opening(vault_url=cloud.hsm.url)
    sealed = await first.encrypt(b"value", kek)
    assert await second.decrypt(sealed) == b"value"
    found = await (await first._connection()).key(first._config.key_id(kek))
    assert list(found.sdk_key.key_operations) == []


@pytest.mark.parametrize("algorithm", ["A256GCM", "RSA-OAEP", "aes256-gcm96", ""])
async def test_another_algorithm_than_the_ciphertexts_own_is_refused(signed: Signed, algorithm: str) -> None:
    sealed = await signed.provider.encrypt(b"value", signed.kek)
    assert sealed.algorithm == "RSA-OAEP-256"
    with pytest.raises(DecryptionError):
        await signed.provider.decrypt(replace(sealed, algorithm=algorithm))
