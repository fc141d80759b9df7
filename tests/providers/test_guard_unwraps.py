from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from keystead.errors import DecryptionError, KeyStateError
from keystead.model import EncryptedData
from keystead.providers.guard import GuardedProvider
from keystead.testing import FakeKMS
from tests.providers.stubs import Guarded, Hanging, settle


async def test_unwraps_of_the_same_key_at_the_same_time_are_one_call(kms: FakeKMS) -> None:
    provider = Hanging(kms)
    guarded = GuardedProvider(provider, "cloud")
    sealed = await guarded.encrypt(b"value", "key", context={"a": "b"})
    again = EncryptedData.from_bytes(sealed.to_bytes())
    callers = [asyncio.create_task(guarded.decrypt(one)) for one in [sealed, again] * 500]
    await settle()
    provider.gate.set()
    assert set(await asyncio.gather(*callers)) == {b"value"}
    assert provider.started == 1


async def test_unwraps_under_different_contexts_are_different_calls(kms: FakeKMS) -> None:
    provider = Hanging(kms)
    provider.gate.set()
    guarded = GuardedProvider(provider, "cloud")
    sealed = await guarded.encrypt(b"value", "key", context={"a": "b"})
    right, wrong, other = await asyncio.gather(
        guarded.decrypt(sealed),
        guarded.decrypt(sealed, context={}),
        guarded.decrypt(replace(sealed, context={"a": "c"})),
        return_exceptions=True,
    )
    assert right == b"value"
    assert isinstance(wrong, DecryptionError)
    assert isinstance(other, DecryptionError)


async def test_cancelling_the_first_of_several_does_not_fail_the_others(kms: FakeKMS) -> None:
    provider = Hanging(kms)
    guarded = GuardedProvider(provider, "cloud")
    sealed = await guarded.encrypt(b"value", "key")
    leader = asyncio.create_task(guarded.decrypt(sealed))
    await settle()
    follower = asyncio.create_task(guarded.decrypt(sealed))
    await settle()
    leader.cancel()
    await settle()
    provider.gate.set()
    assert await follower == b"value"
    assert (leader.cancelled(), provider.started) == (True, 1)


async def test_a_failed_unwrap_is_not_remembered(guarded: Guarded, kms: FakeKMS) -> None:
    sealed = await guarded.encrypt(b"value", "key")
    kms.fail_always(KeyStateError("disabled"))
    with pytest.raises(KeyStateError):
        await guarded.decrypt(sealed)
    kms.heal()
    assert await guarded.decrypt(sealed) == b"value"


async def test_an_unwrap_is_not_remembered_once_it_is_answered(guarded: Guarded, kms: FakeKMS) -> None:
    sealed = await guarded.encrypt(b"value", "key")
    await guarded.decrypt(sealed)
    await guarded.decrypt(sealed)
    assert kms.calls["decrypt"] == 2
