from __future__ import annotations

import pytest

from keystead.errors import ProviderAuthError, ProviderConnectionError
from keystead.ports import RotatesKeys
from keystead.providers.guard import GuardedProvider
from keystead.testing import FakeKMS
from tests.providers.stubs import OUTAGE, Bare, Guarded


async def test_rotation_is_never_repeated(guarded: Guarded, kms: FakeKMS) -> None:
    kms.fail_next(5, OUTAGE, operation="rotate_key")
    with pytest.raises(ProviderConnectionError, match="the network is down"):
        await guarded.rotate_key("key")
    assert (kms.calls["rotate_key"], (await guarded.describe("key")).current_version) == (1, "1")


async def test_an_unclear_rotation_that_happened_is_a_success(guarded: Guarded, kms: FakeKMS) -> None:
    kms.unclear_rotate = True
    reference = await guarded.rotate_key("key")
    assert (reference.provider, reference.key_id, reference.key_version) == ("cloud", "key", "2")
    assert kms.calls["rotate_key"] == 1


async def test_an_unclear_rotation_stays_unclear_while_nobody_can_be_asked(guarded: Guarded, kms: FakeKMS) -> None:
    await guarded.describe("key")
    kms.unclear_rotate = True
    kms.fail_next(0, OUTAGE)
    original = kms.take_call

    async def unreachable_after_rotation(operation: str) -> None:
        await original(operation)
        if operation == "rotate_key":
            kms.fail_always(OUTAGE)

    kms.take_call = unreachable_after_rotation  # type: ignore[method-assign]
    with pytest.raises(ProviderConnectionError, match="before the answer arrived"):
        await guarded.rotate_key("key")


async def test_a_denied_rotation_is_not_asked_about(guarded: Guarded, kms: FakeKMS) -> None:
    kms.fail_next(1, ProviderAuthError("denied"), operation="rotate_key")
    with pytest.raises(ProviderAuthError):
        await guarded.rotate_key("key")
    assert kms.calls["describe"] == 1


async def test_a_provider_that_cannot_describe_may_rotate(kms: FakeKMS) -> None:
    class RotatesOnly(Bare):
        rotate_key = FakeKMS.rotate_key
        _service: FakeKMS
        _name = "bare"

    kms.unclear_rotate = True
    guarded = GuardedProvider(RotatesOnly(kms), "cloud")
    assert isinstance(guarded, RotatesKeys)
    with pytest.raises(ProviderConnectionError):
        await guarded.rotate_key("key")
    kms.heal()
    assert (await guarded.rotate_key("key")).key_version == "3"
