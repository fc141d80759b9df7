"""What every provider does alike. A capability a provider does not have is not asked of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from keystead import ports
from keystead.errors import DecryptionError, InvalidInputError, KeyNotFoundError, KeyRotationError
from keystead.model import EncryptedData, KeyState
from keystead.ports import (
    Closes,
    DescribesKeys,
    EncryptsBatches,
    GeneratesDataKeys,
    ReportsRotationPolicy,
    RewrapsCiphertexts,
    RotatesKeys,
)
from tests.providers.harnesses import subjects
from tests.providers.subjects.subject import Harness, Subject

CONTEXT = {"tenant": "north", "table": "people"}
CAPABILITIES = [
    ports.ChecksPermissions,
    ports.KeepsWraps,
    ports.Closes,
    ports.ComputesMacBatches,
    ports.ComputesMacs,
    ports.DescribesKeys,
    ports.EncryptsBatches,
    ports.GeneratesDataKeys,
    ports.ListsKeyVersions,
    ports.OpensTransitTexts,
    ports.ReadsForeignData,
    ports.ReportsRotationPolicy,
    ports.RetiresKeyVersions,
    ports.RewrapsCiphertexts,
    ports.RotatesKeys,
    ports.SignsBatches,
    ports.SignsMessages,
    ports.TellsExtractability,
    ports.TellsTime,
]


@subjects()
async def test_a_provider_has_the_capabilities_it_is_tested_for(subject: Subject, harness: Harness) -> None:
    assert {kind for kind in CAPABILITIES if isinstance(subject.provider, kind)} == harness.capabilities


@subjects()
async def test_what_is_encrypted_decrypts_at_every_edge_of_its_size(subject: Subject, harness: Harness) -> None:
    for size in harness.sizes:
        plaintext = bytes(size)
        sealed = await subject.provider.encrypt(plaintext, subject.key_id, context=CONTEXT)
        assert await subject.provider.decrypt(sealed) == plaintext


@subjects()
async def test_more_than_the_service_takes_is_refused(subject: Subject, harness: Harness) -> None:
    if harness.too_long is not None:
        with pytest.raises(InvalidInputError):
            await subject.provider.encrypt(bytes(harness.too_long), subject.key_id)


@subjects()
async def test_the_answer_survives_its_own_serial_form(subject: Subject) -> None:
    sealed = await subject.provider.encrypt(b"value", subject.key_id, context=CONTEXT)
    assert await subject.provider.decrypt(EncryptedData.from_bytes(sealed.to_bytes())) == b"value"


@subjects()
async def test_the_answer_names_key_version_and_context(subject: Subject, harness: Harness) -> None:
    sealed = await subject.provider.encrypt(b"value", subject.key_id, context=CONTEXT)
    assert dict(sealed.context) == CONTEXT
    assert bool(sealed.key_reference.key_version) is harness.names_versions
    assert (sealed.key_reference.key_id == subject.key_id) is harness.answers_key_id


@subjects()
async def test_times_are_aware(subject: Subject) -> None:
    sealed = await subject.provider.encrypt(b"value", subject.key_id)
    assert sealed.encrypted_at.tzinfo is not None


@subjects()
async def test_encrypting_twice_gives_different_ciphertexts(subject: Subject) -> None:
    first = await subject.provider.encrypt(b"value", subject.key_id)
    second = await subject.provider.encrypt(b"value", subject.key_id)
    assert first.ciphertext != second.ciphertext


@subjects()
async def test_the_plaintext_does_not_show_in_the_ciphertext(subject: Subject) -> None:
    sealed = await subject.provider.encrypt(b"a plaintext that is easy to find", subject.key_id)
    assert b"easy to find" not in sealed.to_bytes()


@subjects()
@pytest.mark.parametrize("context", [{}, {"tenant": "south", "table": "people"}, {"tenant": "north"}])
async def test_another_context_does_not_decrypt(subject: Subject, context: dict[str, str]) -> None:
    sealed = await subject.provider.encrypt(b"value", subject.key_id, context=CONTEXT)
    with pytest.raises(DecryptionError):
        await subject.provider.decrypt(sealed, context=context)


@subjects()
async def test_a_stored_context_that_was_altered_does_not_decrypt(subject: Subject) -> None:
    sealed = await subject.provider.encrypt(b"value", subject.key_id, context=CONTEXT)
    with pytest.raises(DecryptionError):
        await subject.provider.decrypt(replace(sealed, context={**CONTEXT, "more": "x"}))


@subjects()
async def test_the_order_of_a_context_does_not_matter(subject: Subject) -> None:
    sealed = await subject.provider.encrypt(b"value", subject.key_id, context=CONTEXT)
    assert await subject.provider.decrypt(sealed, context=dict(reversed(CONTEXT.items()))) == b"value"


@subjects()
async def test_none_and_the_empty_context_are_the_same_at_encryption(subject: Subject) -> None:
    sealed = await subject.provider.encrypt(b"value", subject.key_id)
    assert await subject.provider.decrypt(sealed, context={}) == b"value"


@subjects()
async def test_another_key_id_does_not_decrypt(subject: Subject, harness: Harness) -> None:
    sealed = await subject.provider.encrypt(b"value", subject.key_id)
    other = await subject.provider.encrypt(b"another", subject.other_key_id)
    reference = replace(sealed.key_reference, key_id=other.key_reference.key_id)
    with pytest.raises(harness.wrong_key):
        await subject.provider.decrypt(replace(sealed, key_reference=reference))


@subjects()
@pytest.mark.parametrize("key_id", ["", "../ no key?", "lone \ud800 surrogate"])
async def test_a_record_that_names_what_can_be_no_key_does_not_decrypt(subject: Subject, key_id: str) -> None:
    sealed = await subject.provider.encrypt(b"value", subject.key_id)
    reference = replace(sealed.key_reference, key_id=key_id)
    with pytest.raises((DecryptionError, KeyNotFoundError)):
        await subject.provider.decrypt(replace(sealed, key_reference=reference))


@subjects()
async def test_a_flipped_bit_anywhere_does_not_decrypt(subject: Subject, harness: Harness) -> None:
    sealed = await subject.provider.encrypt(b"v", subject.key_id)
    for position in range(len(sealed.ciphertext)):
        altered = bytearray(sealed.ciphertext)
        altered[position] ^= 1
        with pytest.raises(harness.wrong_key):
            await subject.provider.decrypt(replace(sealed, ciphertext=bytes(altered)))


@subjects()
async def test_a_truncated_ciphertext_does_not_decrypt(subject: Subject) -> None:
    sealed = await subject.provider.encrypt(b"v", subject.key_id)
    for length in range(len(sealed.ciphertext)):
        with pytest.raises(DecryptionError):
            await subject.provider.decrypt(replace(sealed, ciphertext=sealed.ciphertext[:length]))


@subjects()
@pytest.mark.parametrize("kind", [bytearray, memoryview])
async def test_every_kind_of_bytes_is_encrypted(subject: Subject, kind: type[bytearray | memoryview]) -> None:
    sealed = await subject.provider.encrypt(cast(bytes, kind(b"value")), subject.key_id)
    assert await subject.provider.decrypt(sealed) == b"value"


@subjects()
async def test_text_is_refused_with_the_cure(subject: Subject) -> None:
    with pytest.raises(InvalidInputError, match=r"\.encode\(\)"):
        await subject.provider.encrypt(cast(bytes, "text"), subject.key_id)


@subjects()
@pytest.mark.parametrize("key_id", ["", "lone \ud800 surrogate"])
async def test_a_key_id_that_cannot_be_is_refused(subject: Subject, key_id: str) -> None:
    with pytest.raises(InvalidInputError):
        await subject.provider.encrypt(b"value", key_id)


@subjects()
async def test_a_context_that_is_not_text_is_refused(subject: Subject) -> None:
    with pytest.raises(InvalidInputError):
        await subject.provider.encrypt(b"value", subject.key_id, context=cast(dict[str, str], {"n": 1}))


@subjects()
async def test_concurrent_calls_do_not_disturb_each_other(subject: Subject) -> None:
    values = [str(number).encode() for number in range(50)]
    sealed = await asyncio.gather(*(subject.provider.encrypt(value, subject.key_id) for value in values))
    assert await asyncio.gather(*(subject.provider.decrypt(one) for one in sealed)) == values


@subjects(GeneratesDataKeys)
@pytest.mark.parametrize(("key_spec", "size"), [("AES_128", 16), ("AES_256", 32)])
async def test_a_generated_data_key_is_the_one_that_was_wrapped(subject: Subject, key_spec: str, size: int) -> None:
    provider = cast(GeneratesDataKeys, subject.provider)
    pair = await provider.generate_data_key(subject.key_id, context=CONTEXT, key_spec=key_spec)
    assert len(pair.plaintext_key) == size
    assert await subject.provider.decrypt(pair.encrypted_key, context=CONTEXT) == bytes(pair.plaintext_key)


@subjects(GeneratesDataKeys)
async def test_an_unknown_key_spec_is_refused(subject: Subject) -> None:
    provider = cast(GeneratesDataKeys, subject.provider)
    with pytest.raises(InvalidInputError, match="AES_256"):
        await provider.generate_data_key(subject.key_id, key_spec="RSA_2048")


@subjects(EncryptsBatches)
async def test_a_batch_keeps_its_order(subject: Subject) -> None:
    provider = cast(EncryptsBatches, subject.provider)
    sealed = await provider.encrypt_batch([b"a", b"", b"c"], subject.key_id, context=CONTEXT)
    assert [await subject.provider.decrypt(one, context=CONTEXT) for one in sealed] == [b"a", b"", b"c"]


@subjects(DescribesKeys)
async def test_describe_tells_the_version_that_encrypts(subject: Subject, harness: Harness) -> None:
    provider = cast(DescribesKeys, subject.provider)
    sealed = await subject.provider.encrypt(b"value", subject.key_id)
    description = await provider.describe(subject.key_id)
    assert description.state is KeyState.ENABLED
    if harness.names_versions:
        assert description.current_version == sealed.key_reference.key_version


@subjects(RotatesKeys, rotates=True)
async def test_rotation_keeps_old_ciphertexts_readable_and_encrypts_under_the_new_version(
    subject: Subject, harness: Harness
) -> None:
    provider = cast(RotatesKeys, subject.provider)
    old = await subject.provider.encrypt(b"value", subject.key_id)
    rotated = await provider.rotate_key(subject.key_id)
    new = await subject.provider.encrypt(b"value", subject.key_id)
    assert await subject.provider.decrypt(old) == b"value"
    assert await subject.provider.decrypt(new) == b"value"
    if harness.names_versions:
        assert new.key_reference.key_version == rotated.key_version != old.key_reference.key_version


@subjects(RotatesKeys, rotates=False)
async def test_a_provider_that_cannot_rotate_says_how_to_get_one_that_can(subject: Subject) -> None:
    with pytest.raises(KeyRotationError, match="keystead init"):
        await cast(RotatesKeys, subject.provider).rotate_key(subject.key_id)


@subjects(RewrapsCiphertexts)
async def test_rewrap_keeps_plaintext_and_context(subject: Subject) -> None:
    provider = cast(RewrapsCiphertexts, subject.provider)
    old = await subject.provider.encrypt(b"value", subject.key_id, context=CONTEXT)
    new = await provider.rewrap(old, context=CONTEXT)
    assert await subject.provider.decrypt(new, context=CONTEXT) == b"value"
    assert dict(new.context) == CONTEXT


@subjects(RewrapsCiphertexts, RotatesKeys, rotates=True)
async def test_rewrap_moves_to_the_newest_version(subject: Subject) -> None:
    provider = cast(RewrapsCiphertexts, subject.provider)
    old = await subject.provider.encrypt(b"value", subject.key_id)
    rotated = await cast(RotatesKeys, subject.provider).rotate_key(subject.key_id)
    assert (await provider.rewrap(old)).key_reference.key_version == rotated.key_version


@subjects(RewrapsCiphertexts)
async def test_rewrap_refuses_another_context(subject: Subject) -> None:
    provider = cast(RewrapsCiphertexts, subject.provider)
    sealed = await subject.provider.encrypt(b"value", subject.key_id, context=CONTEXT)
    with pytest.raises(DecryptionError):
        await provider.rewrap(sealed, context={"tenant": "south"})


@subjects(ReportsRotationPolicy)
async def test_the_rotation_policy_can_be_asked_for(subject: Subject) -> None:
    provider = cast(ReportsRotationPolicy, subject.provider)
    await subject.provider.encrypt(b"value", subject.key_id)
    policy = await provider.get_rotation_policy(subject.key_id)
    assert policy.enabled is ((policy.rotation_period or timedelta(0)) > timedelta(0))


@subjects(Closes)
async def test_closing_twice_is_closing_once(subject: Subject) -> None:
    provider = cast(Closes, subject.provider)
    await provider.aclose()
    await provider.aclose()
