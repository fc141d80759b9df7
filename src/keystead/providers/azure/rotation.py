"""Azure's rotation policies: ISO 8601 durations counted from a version's creation or back from its expiry."""

from __future__ import annotations

import calendar
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from keystead.errors import ProviderConnectionError
from keystead.model import RotationPolicy

if TYPE_CHECKING:
    from azure.keyvault.keys import KeyRotationPolicy

_DURATION: Final = re.compile(
    r"P(?:(?P<Y>\d+)Y)?(?:(?P<M>\d+)M)?(?:(?P<W>\d+)W)?(?:(?P<D>\d+)D)?"
    r"(?:T(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)S)?)?\Z"
)


def policy_from(theirs: KeyRotationPolicy, created_at: datetime | None, expires_at: datetime | None) -> RotationPolicy:
    """Return a policy as the service has it, given the newest version's creation and expiry.

    The period is the one this version has: months are as long as they are. Without an action that rotates, or a
    version whose creation is known, the policy is disabled. ``last_rotation`` is the newest version's creation.

    Raises:
        ProviderConnectionError: a duration cannot be read.
    """
    due = _due(theirs, created_at, expires_at)
    if due is None or created_at is None:
        return RotationPolicy(enabled=False, rotation_period=timedelta(0), last_rotation=created_at)
    return RotationPolicy(rotation_period=due - created_at, last_rotation=created_at, next_rotation=due)


def shifted(moment: datetime, duration: str, sign: int = 1) -> datetime:
    """Return ``moment`` later, or earlier, by an ISO 8601 duration; the 31st becomes the last day of a shorter month.

    Raises:
        ProviderConnectionError: this is no duration.
    """
    match = _DURATION.match(duration)
    if match is None or not any(match.groups()):
        raise ProviderConnectionError("a duration in the key's rotation policy cannot be read")
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    months = moment.year * 12 + moment.month - 1 + sign * (12 * part["Y"] + part["M"])
    year, month = divmod(months, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    rest = timedelta(weeks=part["W"], days=part["D"], hours=part["h"], minutes=part["m"], seconds=part["s"])
    return moment.replace(year=year, month=month + 1, day=day) + sign * rest


def _due(theirs: KeyRotationPolicy, created_at: datetime | None, expires_at: datetime | None) -> datetime | None:
    for action in theirs.lifetime_actions:
        if str(getattr(action.action, "value", action.action)).lower() != "rotate" or created_at is None:
            continue
        if action.time_after_create:
            return shifted(created_at, action.time_after_create)
        if expires_at is None and theirs.expires_in:
            expires_at = shifted(created_at, theirs.expires_in)
        if action.time_before_expiry and expires_at is not None:
            return shifted(expires_at, action.time_before_expiry, -1)
    return None
