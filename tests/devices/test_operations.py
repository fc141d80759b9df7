from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.devices.operations import (
    LONGEST_US,
    Fault,
    Reason,
    bucket_of,
    microseconds,
    percentile_us,
)

ERROR = 2 ** (1 / 8) - 1
DOCUMENTED = {
    "Encryption key not found",
    "Encryption key has expired",
    "key_retrieval_failed",
    "Failed to decrypt data",
    "Failed to encrypt data",
    "Encrypted data size exceeds limit",
}


def exact(durations: list[int], percent: int) -> int:
    """Return the percentile to the nearest rank."""
    return sorted(durations)[math.ceil(len(durations) * percent / 100) - 1]


@given(st.integers(1, LONGEST_US))
def test_a_duration_is_told_within_nine_percent(duration_us: int) -> None:
    told = percentile_us({bucket_of(duration_us): 1}, 50)
    assert abs(told / duration_us - 1) <= ERROR + 1e-9
    assert ERROR < 0.091


@given(st.integers(1, LONGEST_US - 1))
def test_a_longer_duration_is_never_in_a_lower_range(duration_us: int) -> None:
    assert bucket_of(duration_us) <= bucket_of(duration_us + 1) <= bucket_of(duration_us) + 4
    assert 0 <= bucket_of(duration_us) < 128


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_within_the_stated_error(seed: int) -> None:
    chance = random.Random(seed)
    durations = [max(1, round(chance.lognormvariate(seed * 3, 1.5))) for _ in range(chance.randrange(1, 3000))]
    buckets: dict[int, int] = {}
    for duration in durations:
        buckets[bucket_of(duration)] = buckets.get(bucket_of(duration), 0) + 1
    for percent in (50, 95, 99, 100):
        assert abs(percentile_us(buckets, percent) / exact(durations, percent) - 1) <= ERROR + 1e-9


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [
        (0.0, 0),
        (-1.0, 0),
        (float("nan"), 0),
        (1e-7, 0),
        (0.0015, 1500),
        (1e300, LONGEST_US),
        (float("inf"), LONGEST_US),
        (LONGEST_US / 1e6, LONGEST_US),
    ],
)
def test_a_duration_is_kept_in_microseconds_whatever_was_measured(seconds: float, kept: int) -> None:
    assert microseconds(seconds) == kept
    assert bucket_of(kept) < 128


def test_documented_reasons_are_as_documented_and_all_fit_their_column() -> None:
    assert {reason.value for reason in Reason} >= DOCUMENTED
    assert max(len(reason.value) for reason in Reason) <= 64
    assert all(reason.value.isascii() for reason in Reason)


def test_every_reason_is_somebodys_fault() -> None:
    assert {reason.fault for reason in Reason} == set(Fault)
    assert (Reason.KEY_EXPIRED.fault, Reason.REPLAYED.fault) == (Fault.KEY, Fault.CALLER)
    assert {reason for reason in Reason if reason.is_of_strangers} == {Reason.KEY_NOT_FOUND, Reason.FORBIDDEN}
