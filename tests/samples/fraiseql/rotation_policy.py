"""The fields of a rotation policy."""

from __future__ import annotations

from keystead import RotationPolicy


async def sample() -> None:
    policy = RotationPolicy(enabled=True, rotation_period_days=30, last_rotation=None, next_rotation=None)

    assert (policy.enabled, policy.rotation_period_days) == (True, 30)
    assert (policy.last_rotation, policy.next_rotation) == (None, None)
