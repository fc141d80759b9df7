"""Rotation on demand, of which a key has 25 in its life, and AWS's own schedule."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from keystead.errors import (
    KeyRotationError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
    RotationNotSupportedError,
)
from keystead.providers.aws.provider import AWSKMSConfig, AWSKMSProvider
from keystead.providers.guard import GuardedProvider
from tests.fakes.aws_wire import AwsWire, Reply
from tests.fakes.clock import START, FakeClock
from tests.providers.aws.keys import ACCESS_KEY, ALIAS, ARN, MATERIAL, REGION, SECRET_KEY, metadata
from tests.providers.stubs import Guarded
from tests.services.aws import IS_MOTO, AwsService

NEW = "0" * 64
ROTATION = "RotateKeyOnDemand"


@pytest.fixture
async def provider(wire: AwsWire, clock: FakeClock) -> AsyncIterator[AWSKMSProvider]:
    """A provider whose waiting is the test's."""
    config = AWSKMSConfig(REGION, access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_url=wire.url)
    provider = AWSKMSProvider(config, clock=clock)
    yield provider
    await provider.aclose()


def guarded(provider: AWSKMSProvider) -> Guarded:
    return GuardedProvider(provider, "cloud")


def rotation(kind: str = "ON_DEMAND", at: datetime = START) -> dict[str, Any]:
    return {"KeyId": ARN, "RotationType": kind, "RotationDate": at, "KeyMaterialState": "NON_CURRENT"}


def rotated(wire: AwsWire, times: int, *, looks: int = 1) -> None:
    """Script a key that was rotated so often, and shows its new material after so many looks."""
    wire.answer("ListKeyRotations", Rotations=[rotation()] * times, Truncated=False)
    for material in [MATERIAL, *[MATERIAL] * (looks - 1), NEW]:
        wire.answer("DescribeKey", **metadata(CurrentKeyMaterialId=material))
    wire.answer(ROTATION, KeyId=ARN)


async def test_a_rotation_names_the_new_key_material(provider: AWSKMSProvider, wire: AwsWire) -> None:
    rotated(wire, 3)
    reference = await provider.rotate_key(ALIAS)
    assert (reference.key_id, reference.key_alias, reference.key_version) == (ARN, ALIAS, NEW)


async def test_an_alias_is_looked_up_since_rotation_knows_keys_by_arn_only(
    provider: AWSKMSProvider, wire: AwsWire
) -> None:
    rotated(wire, 3)
    await provider.rotate_key(ALIAS)
    asked = {request.action: request.body["KeyId"] for request in wire.requests if request.action != "DescribeKey"}
    assert asked == {"ListKeyRotations": ARN, ROTATION: ARN}


async def test_a_rotation_that_takes_its_time_is_waited_for(
    provider: AWSKMSProvider, wire: AwsWire, clock: FakeClock
) -> None:
    rotated(wire, 0, looks=4)
    assert (await provider.rotate_key(ARN)).key_version == NEW
    assert len(clock.slept) == 3


async def test_a_rotation_that_takes_longer_is_returned_without_a_version(
    provider: AWSKMSProvider, wire: AwsWire, clock: FakeClock
) -> None:
    wire.answer("ListKeyRotations", Rotations=[], Truncated=False)
    wire.always("DescribeKey", lambda body: metadata())
    wire.answer(ROTATION, KeyId=ARN)
    assert (await provider.rotate_key(ARN)).key_version is None
    assert sum(clock.slept) <= 5


async def test_a_service_that_answers_slowly_is_not_looked_at_until_the_guards_deadline(
    provider: AWSKMSProvider, wire: AwsWire, clock: FakeClock
) -> None:
    def slowly(body: Mapping[str, Any]) -> Mapping[str, Any]:
        clock.advance(1.5)
        return metadata()

    wire.answer("ListKeyRotations", Rotations=[], Truncated=False)
    wire.always("DescribeKey", slowly)
    wire.answer(ROTATION, KeyId=ARN)
    before = clock.monotonic()
    assert (await provider.rotate_key(ARN)).key_version is None
    assert clock.monotonic() - before <= 6.0


async def test_a_failure_to_look_is_not_one_to_rotate(provider: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("ListKeyRotations", Rotations=[], Truncated=False)
    wire.answer("DescribeKey", **metadata())
    wire.refuse("DescribeKey", "ThrottlingException")
    wire.answer(ROTATION, KeyId=ARN)
    assert (await provider.rotate_key(ARN)).key_id == ARN


async def test_the_25th_rotation_is_made_and_the_26th_is_not(provider: AWSKMSProvider, wire: AwsWire) -> None:
    rotated(wire, 24)
    await provider.rotate_key(ARN)
    wire.answer("DescribeKey", **metadata())
    wire.answer("ListKeyRotations", Rotations=[rotation()] * 25, Truncated=False)
    with pytest.raises(RotationNotSupportedError, match=r"25 times\): make a new key, move the alias") as caught:
        await provider.rotate_key(ARN)
    assert not caught.value.retryable
    assert wire.actions.count(ROTATION) == 1


@pytest.mark.parametrize(("code", "status"), [("AccessDeniedException", 400), ("InternalFailure", 501)])
async def test_the_limit_is_aws_to_say_where_it_may_not_be_asked_before(
    provider: AWSKMSProvider, wire: AwsWire, code: str, status: int
) -> None:
    wire.answer("DescribeKey", **metadata())
    wire.refuse("ListKeyRotations", code, status=status)
    wire.refuse(ROTATION, "LimitExceededException")
    with pytest.raises(RotationNotSupportedError, match="as often as AWS allows"):
        await provider.rotate_key(ARN)


@pytest.mark.parametrize(("times", "is_warned"), [(19, False), (20, True), (24, True)])
async def test_the_last_rotations_are_warned_of_before_they_are_made(
    provider: AWSKMSProvider, wire: AwsWire, caplog: pytest.LogCaptureFixture, times: int, is_warned: bool
) -> None:
    rotated(wire, times)
    with caplog.at_level(logging.WARNING, "keystead.providers"):
        await provider.rotate_key(ARN)
    warned = [record for record in caplog.records if record.name == "keystead.providers"]
    assert bool(warned) is is_warned
    if warned:
        assert vars(warned[0])["left"] == 25 - times


async def test_only_rotations_on_demand_are_counted_over_all_pages(provider: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("ListKeyRotations", Rotations=[rotation(), rotation("AUTOMATIC")], Truncated=True, NextMarker="more")
    wire.answer("ListKeyRotations", Rotations=[rotation(), {"KeyMaterialState": "CURRENT"}], Truncated=False)
    assert await provider.on_demand_rotations_left(ARN) == 23
    assert [request.body.get("Marker") for request in wire.requests] == [None, "more"]


async def test_pages_without_an_end_are_not_followed_for_ever(provider: AWSKMSProvider, wire: AwsWire) -> None:
    wire.always("ListKeyRotations", lambda body: {"Rotations": [], "Truncated": True, "NextMarker": "again"})
    assert await provider.on_demand_rotations_left(ARN) == 25
    assert len(wire.requests) == 20


async def test_rotations_that_could_not_be_counted_keep_the_key_from_being_rotated(
    provider: AWSKMSProvider, wire: AwsWire
) -> None:
    wire.answer("DescribeKey", **metadata())
    wire.refuse("ListKeyRotations", "ThrottlingException")
    with pytest.raises(ProviderConnectionError):
        await provider.rotate_key(ARN)
    assert ROTATION not in wire.actions


async def test_counting_needs_its_permission(provider: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("DescribeKey", **metadata())
    wire.refuse("ListKeyRotations", "AccessDeniedException")
    with pytest.raises(ProviderAuthError, match="kms:ListKeyRotations"):
        await provider.on_demand_rotations_left(ALIAS)


@pytest.mark.parametrize("usage", ["SIGN_VERIFY", "GENERATE_VERIFY_MAC"])
async def test_a_key_that_signs_is_not_rotated(provider: AWSKMSProvider, wire: AwsWire, usage: str) -> None:
    wire.answer("DescribeKey", **metadata(KeyUsage=usage, KeySpec="HMAC_256"))
    with pytest.raises(RotationNotSupportedError, match="make a new key, move the alias"):
        await provider.rotate_key(ARN)
    assert wire.actions == ["DescribeKey"]


@pytest.mark.parametrize(
    ("code", "expected", "match"),
    [
        ("UnsupportedOperationException", RotationNotSupportedError, "primary key of a multi-Region set"),
        ("ConflictException", KeyRotationError, "within 20 minutes"),
        ("KMSInvalidStateException", KeyStateError, "import its material"),
        ("AccessDeniedException", ProviderAuthError, "kms:RotateKeyOnDemand"),
        ("ThrottlingException", ProviderConnectionError, "throttles"),
    ],
)
async def test_a_rotation_that_is_refused_is_asked_for_once(
    provider: AWSKMSProvider, wire: AwsWire, code: str, expected: type[Exception], match: str
) -> None:
    wire.always("DescribeKey", lambda body: metadata())
    wire.always("ListKeyRotations", lambda body: {"Rotations": [], "Truncated": False})
    wire.refuse(ROTATION, code)
    with pytest.raises(expected, match=match):
        await guarded(provider).rotate_key(ARN)
    assert wire.actions.count(ROTATION) == 1


async def test_a_rotation_whose_answer_was_lost_is_found_by_its_new_material(
    provider: AWSKMSProvider, wire: AwsWire
) -> None:
    for _ in range(2):
        wire.answer("DescribeKey", **metadata())
    wire.always("DescribeKey", lambda body: metadata(CurrentKeyMaterialId=NEW))
    wire.answer("ListKeyRotations", Rotations=[], Truncated=False)
    wire.reply(ROTATION, Reply(500, b"", {}))
    reference = await guarded(provider).rotate_key(ALIAS)
    assert (reference.provider, reference.key_version) == ("cloud", NEW)
    assert wire.actions.count(ROTATION) == 1


async def test_on_the_service_a_rotation_keeps_what_was_encrypted_before_readable(moto: AwsService) -> None:
    provider = AWSKMSProvider(moto.config())
    key_id = moto.point("rotating", moto.create())
    old = await provider.encrypt(b"old", key_id)
    assert (await provider.rotate_key(key_id)).key_id == old.key_reference.key_id
    assert await provider.decrypt(old) == b"old"
    if IS_MOTO:
        assert await provider.on_demand_rotations_left(key_id) == 24
        assert (await provider.get_rotation_policy(key_id)).last_rotation is not None
    await provider.aclose()


async def test_the_schedule_of_aws_is_read_as_it_answers(provider: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("DescribeKey", **metadata())
    wire.answer(
        "GetKeyRotationStatus",
        KeyId=ARN,
        KeyRotationEnabled=True,
        RotationPeriodInDays=90,
        NextRotationDate=START + timedelta(days=30),
        OnDemandRotationStartDate=START,
    )
    rotations = [rotation("AUTOMATIC", START - timedelta(days=60)), rotation(at=START - timedelta(days=7))]
    wire.answer("ListKeyRotations", Rotations=rotations, Truncated=False)
    policy = await provider.get_rotation_policy(ALIAS)
    assert (policy.enabled, policy.rotation_period_days) == (True, 90)
    assert policy.last_rotation == START - timedelta(days=7)
    assert policy.next_rotation == START + timedelta(days=30)
    assert {request.body["KeyId"] for request in wire.requests[1:]} == {ARN}


async def test_a_schedule_that_is_off_has_no_period_and_no_next_date(provider: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("GetKeyRotationStatus", KeyId=ARN, KeyRotationEnabled=False, RotationPeriodInDays=365)
    wire.answer("ListKeyRotations", Rotations=[], Truncated=False)
    policy = await provider.get_rotation_policy(ARN)
    assert (policy.enabled, policy.rotation_period) == (False, timedelta(0))
    assert policy.last_rotation is policy.next_rotation is None


async def test_a_schedule_without_a_period_is_aws_own_of_a_year(provider: AWSKMSProvider, wire: AwsWire) -> None:
    wire.answer("GetKeyRotationStatus", KeyRotationEnabled=True)
    wire.answer("ListKeyRotations", Rotations=[], Truncated=False)
    assert (await provider.get_rotation_policy(ARN)).rotation_period_days == 365


async def test_the_schedule_is_told_without_the_permission_for_its_last_date(
    provider: AWSKMSProvider, wire: AwsWire
) -> None:
    wire.answer("GetKeyRotationStatus", KeyRotationEnabled=True, RotationPeriodInDays=180)
    wire.refuse("ListKeyRotations", "AccessDeniedException")
    policy = await provider.get_rotation_policy(ARN)
    assert (policy.rotation_period_days, policy.last_rotation) == (180, None)


async def test_a_key_that_has_no_schedule_has_a_disabled_policy(provider: AWSKMSProvider, wire: AwsWire) -> None:
    wire.refuse("GetKeyRotationStatus", "UnsupportedOperationException")
    policy = await provider.get_rotation_policy(ARN)
    assert (policy.enabled, policy.rotation_period) == (False, timedelta(0))


async def test_a_schedule_that_may_not_be_asked_for_is_denied(provider: AWSKMSProvider, wire: AwsWire) -> None:
    wire.refuse("GetKeyRotationStatus", "AccessDeniedException")
    with pytest.raises(ProviderAuthError, match="kms:GetKeyRotationStatus"):
        await provider.get_rotation_policy(ARN)
