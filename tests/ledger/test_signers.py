"""Signers over a KMS: which way a key signs, what is believed, what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from keystead.crypto.signatures import verify_signature
from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidSignatureError,
    KeyGenerationFailError,
    KeyNotExportableError,
    KeyNotFoundError,
    KeyStateError,
    ProviderAuthError,
)
from keystead.ledger.signers.format import SessionSignature
from keystead.ledger.signers.signer import KmsSigner, SignerSettings
from keystead.model import DataKeyPair, Signature, SignatureAlgorithm
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from keystead.testing import FakeKMS
from tests.crypto.vectors import cases
from tests.fakes.clock import FakeClock
from tests.ledger.signer_keys import (
    LONG,
    MESSAGE,
    PURPOSES,
    Alone,
    Undescribed,
    each_key,
    each_native_key,
    flipped,
    signer,
    with_keys,
)


@pytest.fixture
def kms(clock: FakeClock) -> FakeKMS:
    return with_keys(FakeKMS(keys=[], clock=clock))


@each_key
@pytest.mark.parametrize("message", [b"", MESSAGE, LONG])
async def test_what_is_signed_verifies(kms: FakeKMS, key_id: str, message: bytes) -> None:
    one = signer(kms, key_id)
    signature = await one.sign(message)
    await one.verify(message, signature)
    await signer(kms, key_id).verify(message, signature)


@each_key
async def test_another_message_or_an_altered_signature_is_invalid(kms: FakeKMS, key_id: str) -> None:
    one = signer(kms, key_id)
    signature = await one.sign(MESSAGE)
    for message, other in ((MESSAGE + b"!", signature), (MESSAGE, signature[:-1]), (MESSAGE, b""), (LONG, signature)):
        with pytest.raises(InvalidSignatureError):
            await one.verify(message, other)


async def test_every_flipped_bit_of_a_session_signature_is_refused(kms: FakeKMS) -> None:
    one = signer(kms)
    signature = await one.sign(MESSAGE)
    for bit in range(len(signature) * 8):
        with pytest.raises((InvalidSignatureError, KeyNotFoundError)):
            await one.verify(MESSAGE, flipped(signature, bit))


@each_key
async def test_a_signature_under_another_key_of_the_kms_is_not_believed(kms: FakeKMS, key_id: str) -> None:
    signature = await signer(kms, f"other-{key_id}").sign(MESSAGE)
    with pytest.raises((InvalidSignatureError, KeyNotFoundError)):
        await signer(kms, key_id).verify(MESSAGE, signature)


async def test_a_session_key_that_a_stranger_wrapped_is_not_even_opened(kms: FakeKMS) -> None:
    signature = await signer(kms, "other-aes").sign(MESSAGE)
    before = kms.calls["decrypt"]
    with pytest.raises(KeyNotFoundError, match="trusted_key_ids"):
        await signer(kms).verify(MESSAGE, signature)
    assert kms.calls["decrypt"] == before


async def test_f1_the_type_of_the_key_decides_how_it_signs(kms: FakeKMS) -> None:
    assert len(await signer(kms, "mac").sign(MESSAGE)) == 32
    assert len(await signer(kms, "signer").sign(MESSAGE)) == 64
    assert SessionSignature.parse(await signer(kms).sign(MESSAGE))


async def test_a_native_signature_is_the_services_own_of_the_message_itself(kms: FakeKMS) -> None:
    one = signer(kms, "signer")
    key = await one.public_key()
    verify_signature(key, MESSAGE, await one.sign(MESSAGE), algorithm=SignatureAlgorithm.ED25519)


async def test_f3_a_message_longer_than_a_kms_takes_is_signed_as_its_digest(kms: FakeKMS) -> None:
    seen: list[bytes] = []

    class Small(Alone):
        async def counted(self, message: bytes, key_id: str, *, algorithm: Any = None) -> Signature:
            assert len(message) <= 4096
            seen.append(message)
            return await kms.mac(message, key_id, algorithm=algorithm)

    small = Small(kms)
    small.mac = small.counted
    one = signer(small, "mac")
    await one.verify(LONG, await one.sign(LONG))
    assert len(seen[0]) < 100


@pytest.mark.parametrize("key_id", ["aes", "other-aes"])
async def test_kms_signing_with_a_key_that_cannot_sign_names_the_flag(kms: FakeKMS, key_id: str) -> None:
    with pytest.raises(ConfigurationError, match=r"use_kms_signing=True needs a key that signs.*encrypts"):
        await signer(kms, key_id, use_kms_signing=True).sign(MESSAGE)


async def test_a_kms_that_makes_macs_with_any_key_does_so_when_told(kms: FakeKMS) -> None:
    one = KmsSigner(kms, "aes", SignerSettings(use_kms_signing=True), makes_macs_with_any_key=True)
    signature = await one.sign(MESSAGE)
    assert len(signature) == 32
    await one.verify(MESSAGE, signature)


@each_native_key
async def test_f9_a_key_that_never_leaves_its_kms_is_not_given(kms: FakeKMS, key_id: str) -> None:
    with pytest.raises(KeyNotExportableError):
        await signer(kms, key_id).get_key()
    with pytest.raises(NotImplementedError):
        await signer(kms, key_id).get_key()


async def test_with_kms_signing_the_key_is_refused_without_asking(kms: FakeKMS) -> None:
    with pytest.raises(KeyNotExportableError):
        await signer(kms, "mac", use_kms_signing=True).get_key()
    assert kms.calls.total() == 0


async def test_the_session_key_is_given_as_bytes_that_hide_themselves(kms: FakeKMS) -> None:
    key = await signer(kms).get_key()
    assert (len(key), repr(key)) == (32, "SecretBytes(hidden)")


async def test_f23_purposes_have_keys_of_their_own(kms: FakeKMS) -> None:
    one = signer(kms, stream="app")
    keys = {await one.derive_key("record"), await one.derive_key("record", epoch=1), await one.derive_key("manifest")}
    assert len(keys | {await one.get_key()}) == 4


async def test_f5_a_session_key_is_bound_to_its_stream_and_context(kms: FakeKMS) -> None:
    signature = await signer(kms, stream="app", context={"site": "north"}).sign(MESSAGE)
    await signer(kms, stream="app", context={"site": "north"}).verify(MESSAGE, signature)
    for settings in ({"stream": "other"}, {"stream": "app"}, {"stream": "app", "context": {"site": "south"}}):
        with pytest.raises(InvalidSignatureError):
            await signer(kms, **settings).verify(MESSAGE, signature)


async def test_the_kms_is_told_what_a_session_key_is_for(kms: FakeKMS) -> None:
    contexts: list[Mapping[str, str] | None] = []

    class Watched(Undescribed):
        async def draw(self, key_id: str, *, context: Mapping[str, str] | None = None, **_: Any) -> DataKeyPair:
            contexts.append(context)
            return await kms.generate_data_key(key_id, context=context)

    watched = Watched(kms)
    watched.generate_data_key = watched.draw
    await signer(watched, stream="app", context={"site": "north"}).sign(MESSAGE)
    assert contexts == [{"keystead.purpose": "session", "keystead.stream": "app", "site": "north"}]


def test_reserved_keys_of_a_context_are_not_the_callers() -> None:
    with pytest.raises(InvalidInputError, match="reserved"):
        SignerSettings(context={"keystead.purpose": "wrap"})


@each_key
async def test_f6_an_unknown_key_is_refused_for_everything(kms: FakeKMS, key_id: str) -> None:
    one = signer(kms, key_id)
    signature = await one.sign(MESSAGE)
    for name in ("other-aes", "../evil", "nothing", f"{key_id}-2", ""):
        for call in (
            one.sign(MESSAGE, key_id=name),
            one.verify(MESSAGE, signature, key_id=name),
            one.current_key_id(key_id=name),
        ):
            with pytest.raises(KeyNotFoundError, match="trusted_key_ids"):
                await call


@each_key
async def test_f6_several_keys_sign_and_verify_each_by_its_name(kms: FakeKMS, key_id: str) -> None:
    other = f"other-{key_id}"
    one = signer(kms, key_id, trusted_key_ids=(other,))
    mine, theirs = await one.sign_named(MESSAGE), await one.sign_named(MESSAGE, key_id=other)
    assert (mine.key_id, theirs.key_id) == (f"{key_id}#1", f"{other}#1")
    await one.verify(MESSAGE, theirs.signature, key_id=other)
    await one.verify(MESSAGE, theirs.signature, key_id=theirs.key_id)
    with pytest.raises(InvalidSignatureError):
        await one.verify(MESSAGE, mine.signature, key_id=other)
    await one.verify(MESSAGE, theirs.signature)  # the signer's own id stands for all of them


@pytest.mark.parametrize(("own", "former"), list(itertools.permutations(PURPOSES, 2)))
async def test_what_a_trusted_key_of_another_kind_has_signed_is_not_called_invalid(
    kms: FakeKMS, own: str, former: str
) -> None:
    signature = await signer(kms, former).sign(MESSAGE)
    one = signer(kms, own, trusted_key_ids=(former,))
    await one.verify(MESSAGE, signature)
    await one.verify(MESSAGE, signature, key_id=former)
    with pytest.raises(InvalidSignatureError):
        await one.verify(b"another", signature)
    kms.disable(former)
    with pytest.raises(KeyStateError):
        await signer(kms, own, trusted_key_ids=(former,)).verify(MESSAGE, signature)


async def test_a_session_key_of_another_size_is_refused(kms: FakeKMS) -> None:
    class Short(Undescribed):
        async def draw(self, key_id: str, *, context: Any = None, **_: Any) -> DataKeyPair:
            return await kms.generate_data_key(key_id, context=context, key_spec="AES_128")

    short = Short(kms)
    short.generate_data_key = short.draw
    with pytest.raises(KeyGenerationFailError):
        await signer(short).sign(MESSAGE)


async def test_a_kms_that_draws_no_keys_wraps_one_that_is_drawn_here(kms: FakeKMS) -> None:
    one = signer(Alone(kms))
    await signer(kms).verify(MESSAGE, await one.sign(MESSAGE))
    assert kms.calls["generate_data_key"] == 0


async def test_a_public_key_is_fetched_once_and_verifies_without_the_kms(kms: FakeKMS) -> None:
    one = signer(kms, "signer")
    signed = await one.sign_named(MESSAGE)
    await one.verify(MESSAGE, signed.signature, key_id=signed.key_id)
    kms.fail_always()
    for _ in range(100):
        await one.verify(MESSAGE, signed.signature, key_id=signed.key_id)


@pytest.mark.parametrize("key_id", ["aes", "mac"])
async def test_a_key_without_a_public_half_says_so(kms: FakeKMS, key_id: str) -> None:
    with pytest.raises(ConfigurationError, match="no public half"):
        await signer(kms, key_id).public_key()


@pytest.mark.parametrize(
    ("key_id", "algorithm", "match"),
    [
        ("aes", SignatureAlgorithm.ED25519, "session keys make"),
        ("mac", SignatureAlgorithm.ED25519, "does not sign by"),
        ("signer", SignatureAlgorithm.HMAC_SHA_256, "does not sign by"),
    ],
)
async def test_another_algorithm_than_the_keys_is_a_configuration_error(
    kms: FakeKMS, key_id: str, algorithm: SignatureAlgorithm, match: str
) -> None:
    with pytest.raises(ConfigurationError, match=match):
        await signer(kms, key_id, algorithm=algorithm).sign(MESSAGE)


@pytest.mark.parametrize("case", cases("signatures-v1.json", "sessions"), ids=lambda case: case["stream"])
async def test_a_vector_signature_verifies_by_the_kms_that_wrapped_its_session_key(case: dict[str, Any]) -> None:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=bytes.fromhex(case["kek"])))
    one = KmsSigner(provider, case["key_id"], SignerSettings(stream=case["stream"], context={"site": "north"}))
    await one.verify(bytes.fromhex(case["message"]), bytes.fromhex(case["signature"]))
    with pytest.raises(InvalidSignatureError):
        await one.verify(b"another message", bytes.fromhex(case["signature"]))


async def test_a_kms_whose_keys_may_not_be_described_makes_macs_and_names_what_answered(kms: FakeKMS) -> None:
    kms.fail_next(100, ProviderAuthError("may not describe"), operation="describe")
    one = KmsSigner(kms, "aes", SignerSettings(use_kms_signing=True), makes_macs_with_any_key=True)
    assert await one.current_key_id() == "aes"
    signed = await one.sign_named(MESSAGE)
    assert signed.key_id == "aes#1" == await one.current_key_id()
    await one.verify(MESSAGE, signed.signature)
    await one.verify(MESSAGE, signed.signature, key_id=signed.key_id)
