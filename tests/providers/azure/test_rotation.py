"""Versions made by us and by others, and what the service says of its own schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keystead.errors import InvalidInputError, ProviderConnectionError
from keystead.providers.azure.rotation import shifted
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


async def test_a_rotation_by_somebody_else_is_seen_when_the_key_is_asked_for_again(
    opening: Opening, cloud: FakeAzure, kek: str, clock: FakeClock
) -> None:
    provider = opening({"clock": clock}, allow_unauthenticated_wrap=True, key_max_age_s=300.0)
    old = await provider.encrypt(b"value", kek)
    rotated = await opening().rotate_key(kek)
    assert (await provider.encrypt(b"value", kek)).key_reference.key_version == old.key_reference.key_version
    clock.advance(301)
    new = await provider.encrypt(b"value", kek)
    assert new.key_reference.key_version == rotated.key_version != old.key_reference.key_version
    assert [await provider.decrypt(one) for one in (old, new)] == [b"value", b"value"]


NINETY = {"lifetimeActions": [{"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "Rotate"}}], "attributes": {}}
BEFORE = {
    "lifetimeActions": [
        {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}},
        {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "rotate"}},
    ],
    "attributes": {"expiryTime": "P120D"},
}


@pytest.mark.parametrize("policy", [NINETY, BEFORE])
async def test_a_rotation_policy_of_ninety_days_is_ninety_days(
    opening: Opening, cloud: FakeAzure, kek: str, policy: dict[str, Any]
) -> None:
    cloud.vault.state.set_policy(kek, policy)
    told = await opening().get_rotation_policy(kek)
    assert (told.enabled, told.rotation_period_days) == (True, 90)
    assert told.last_rotation is not None
    assert told.next_rotation == told.last_rotation + timedelta(days=90)


async def test_an_expiry_that_the_version_has_counts_more_than_the_policys(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    version = cloud.vault.state.key(kek).versions[-1]
    version.exp = version.created + 60 * 24 * HOUR
    cloud.vault.state.set_policy(kek, BEFORE)
    assert (await opening().get_rotation_policy(kek)).rotation_period_days == 30


async def test_a_key_that_nobody_gave_a_policy_has_none_that_rotates(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    told = await opening().get_rotation_policy(kek)
    assert (told.enabled, told.rotation_period, told.next_rotation) == (False, timedelta(0), None)


async def test_a_policy_that_cannot_be_read_is_no_policy_of_zero_days(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    action = {"trigger": {"timeAfterCreate": "next year"}, "action": {"type": "Rotate"}}
    cloud.vault.state.set_policy(kek, {"lifetimeActions": [action], "attributes": {}})
    with pytest.raises(ProviderConnectionError, match="duration"):
        await opening().get_rotation_policy(kek)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("P90D", datetime(2024, 4, 30, 12, tzinfo=UTC)),
        ("P1M", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("P13M", datetime(2025, 2, 28, 12, tzinfo=UTC)),
        ("P1Y", datetime(2025, 1, 31, 12, tzinfo=UTC)),
        ("P2W", datetime(2024, 2, 14, 12, tzinfo=UTC)),
        ("P1Y2M3DT4H5M6S", datetime(2025, 4, 3, 16, 5, 6, tzinfo=UTC)),
        ("PT48H", datetime(2024, 2, 2, 12, tzinfo=UTC)),
    ],
)
def test_durations_count_by_the_calendar(duration: str, expected: datetime) -> None:
    assert shifted(datetime(2024, 1, 31, 12, tzinfo=UTC), duration) == expected


def test_a_duration_back_from_an_expiry_counts_by_the_calendar_too() -> None:
    assert shifted(datetime(2024, 3, 31, tzinfo=UTC), "P1M", -1) == datetime(2024, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize("duration", ["", "P", "PT", "P-1D", "1D", "P1.5D", "P1D "])
def test_what_is_no_duration_is_an_error(duration: str) -> None:
    with pytest.raises(ProviderConnectionError):
        shifted(datetime(2024, 1, 31, tzinfo=UTC), duration)


async def test_more_versions_than_fit_a_page_are_listed_the_newest_first(opening: Opening, cloud: FakeAzure) -> None:
    name = new_name("curve")
    made = [cloud.vault.state.create_key(name, "EC") for _ in range(60)]
    for number, version in enumerate(made):
        version.created += number
    provider = opening()
    before = cloud.vault.calls()
    assert await provider.key_versions(name) == [version.id for version in reversed(made)]
    assert cloud.vault.calls() - before == 4  # the challenge, and three pages


async def test_a_rotation_names_the_new_version_and_refuses_an_old_one(
    opening: Opening, cloud: FakeAzure, kek: str
) -> None:
    provider = opening()
    rotated = await provider.rotate_key(kek)
    versions = cloud.vault.state.key(kek).versions
    assert (len(versions), rotated.key_version) == (2, versions[-1].id)
    assert rotated.created_at is not None
    with pytest.raises(InvalidInputError, match="without one"):
        await provider.rotate_key(f"{kek}/{rotated.key_version}")
