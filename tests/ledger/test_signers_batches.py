"""Signers over a KMS: many messages at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keystead.errors import (
    InvalidSignatureError,
    PartialBatchError,
    ProviderConnectionError,
)
from keystead.ledger.signers.format import TreeItem
from keystead.model import Signature
from keystead.testing import FakeKMS
from tests.fakes.clock import FakeClock
from tests.ledger.signer_keys import (
    LONG,
    MESSAGE,
    OUTAGE,
    Alone,
    each_key,
    each_native_key,
    flipped,
    signer,
    with_keys,
)


@pytest.fixture
def kms(clock: FakeClock) -> FakeKMS:
    return with_keys(FakeKMS(keys=[], clock=clock))


@each_native_key
async def test_f20_a_kms_without_batches_signs_one_tree_over_all_of_them(kms: FakeKMS, key_id: str) -> None:
    messages = [str(number).encode() * number for number in range(300)]
    one = signer(Alone(kms), key_id)
    items = await one.sign_batch(messages)
    assert (kms.calls["mac"] + kms.calls["sign"], len(set(items))) == (1, 300)
    for message, item in zip(messages, items, strict=True):
        await one.verify(message, item)
    with pytest.raises(InvalidSignatureError):
        await one.verify(messages[0], items[1])


@each_native_key
async def test_an_item_of_a_batch_verifies_alone_in_another_process_after_a_rotation(kms: FakeKMS, key_id: str) -> None:
    item = (await signer(Alone(kms), key_id).sign_batch([MESSAGE, LONG, b""]))[1]
    await kms.rotate_key(key_id)
    await signer(Alone(kms), key_id).verify(LONG, item)
    await signer(Alone(kms), key_id).verify(LONG, item, key_id=f"{key_id}#1")


async def test_every_flipped_bit_of_an_item_is_refused(kms: FakeKMS) -> None:
    one = signer(Alone(kms), "signer")
    item = (await one.sign_batch([MESSAGE, LONG, b""]))[2]
    for bit in range(len(item) * 8):
        with pytest.raises(InvalidSignatureError):
            await one.verify(b"", flipped(item, bit), key_id="signer#1")


async def test_the_root_of_a_tree_cannot_be_had_signed_as_a_message(kms: FakeKMS) -> None:
    one = signer(Alone(kms), "signer")
    item = TreeItem.find((await one.sign_batch([MESSAGE, LONG]))[0])
    assert item is not None
    forged = TreeItem(0, 2, item.proof, await one.sign(item.statement(b"never signed")))
    with pytest.raises(InvalidSignatureError):
        await one.verify(b"never signed", forged.to_bytes())


@each_native_key
async def test_a_kms_with_batches_is_asked_once(kms: FakeKMS, key_id: str) -> None:
    one = signer(kms, key_id)
    messages = [str(number).encode() for number in range(50)]
    signatures = await one.sign_batch(messages)
    assert kms.calls["mac_batch"] + kms.calls["sign_batch"] == 1
    for message, signature in zip(messages, signatures, strict=True):
        assert TreeItem.find(signature) is None
        await one.verify(message, signature)


@each_key
async def test_a_batch_of_none_is_none_and_of_one_is_one(kms: FakeKMS, key_id: str) -> None:
    one = signer(Alone(kms), key_id)
    assert await one.sign_batch([]) == []
    (alone,) = await one.sign_batch([MESSAGE])
    assert TreeItem.find(alone) is None
    await one.verify(MESSAGE, alone)


async def test_a_batch_under_a_session_key_costs_no_call_a_message(kms: FakeKMS) -> None:
    one = signer(kms)
    messages = [str(number).encode() for number in range(100)]
    for message, signature in zip(messages, await one.sign_batch(messages), strict=True):
        await one.verify(message, signature)
    assert kms.calls["generate_data_key"] == 1


@each_native_key
async def test_a_call_for_each_message_is_made_by_a_few_at_once(kms: FakeKMS, key_id: str) -> None:
    running = most = 0

    class Slow(Alone):
        async def slowly(self, message: bytes, key_id: str, *, algorithm: Any = None) -> Signature:
            nonlocal running, most
            running, most = running + 1, max(most, running + 1)
            await asyncio.sleep(0)
            running -= 1
            return await (kms.mac if key_id == "mac" else kms.sign)(message, key_id, algorithm=algorithm)

    slow = Slow(kms)
    slow.mac = slow.sign = slow.slowly
    one = signer(slow, key_id, batch="each", concurrency=4)
    messages = [str(number).encode() for number in range(40)]
    signatures = await one.sign_batch(messages)
    assert most == 4
    for message, signature in zip(messages, signatures, strict=True):
        assert TreeItem.find(signature) is None
        await one.verify(message, signature)


async def test_a_batch_of_which_some_were_not_signed_tells_which(kms: FakeKMS) -> None:
    one = signer(Alone(kms), "mac", batch="each", concurrency=1)
    await one.sign(MESSAGE)
    kms.fail_next(1, OUTAGE, operation="mac")
    with pytest.raises(PartialBatchError, match="1 of 3") as caught:
        await one.sign_batch([b"a", b"b", b"c"])
    assert [isinstance(result, ProviderConnectionError) for result in caught.value.results] == [True, False, False]


async def test_a_batch_of_which_nothing_was_signed_raises_the_reason(kms: FakeKMS) -> None:
    one = signer(Alone(kms), "mac", batch="each")
    await one.sign(MESSAGE)
    kms.fail_always()
    with pytest.raises(ProviderConnectionError):
        await one.sign_batch([b"a", b"b", b"c"])
