"""AWS KMS: rotation on demand, which a key has 25 times in its life, and AWS's own schedule."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from keystead.errors import KMSError, RotationNotSupportedError
from keystead.model import KeyPurpose, KeyReference, RotationPolicy
from keystead.providers.aws.errors import ROTATIONS, Failure, Kind
from keystead.providers.aws.keys import check_key_id, is_alias, reference
from keystead.providers.aws.signing import AwsSigning

log = logging.getLogger("keystead.providers")

_AWS_PERIOD: Final = timedelta(days=365)
"""What AWS's schedule is where its answer names no period, as it did not before 2024."""
_FEW: Final = 5
_PATIENCE_S: Final = 4.0
"""How long after it was asked for new key material is looked for, so that the answer is there before the deadline of
the guard: what happened would look as if it had not, and be asked for again."""
_BETWEEN_LOOKS_S: Final = 0.5
_PAGE: Final = 1000
_PAGES: Final = 20


class AwsRotation(AwsSigning):
    """``RotatesKeys`` and ``ReportsRotationPolicy``. These operations know keys by id or ARN: aliases are looked up."""

    async def rotate_key(self, key_id: str) -> KeyReference:
        """Have AWS make new key material for a symmetric key, and return it once it is the one that encrypts.

        **AWS allows 25 rotations on demand in the whole life of a key**, and gives none back;
        ``on_demand_rotations_left`` tells how many there are. So none is made where the key or its kind can have no
        more, five and fewer are warned of in the log, and the request is made once, whatever becomes of it. Rotation
        on AWS's own schedule counts for nothing here. The ARN stays; what was encrypted before stays readable.

        AWS rotates in the background. Where that takes longer than some seconds, the reference returned has no version
        yet, and the next rewrap finds it.

        Raises:
            RotationNotSupportedError: a key that AWS does not rotate on demand, or has rotated 25 times.
            KeyRotationError: another rotation is under way, or is scheduled within 20 minutes.
            KeyStateError: the key is disabled, or has imported material and none waiting.
        """
        give_up_at = self._clock.monotonic() + _PATIENCE_S
        before = await self.describe(key_id)
        arn = before.key_reference.key_id
        if before.key_reference.purpose is not KeyPurpose.ENCRYPT_DECRYPT:
            raise RotationNotSupportedError(
                "AWS KMS rotates symmetric encryption keys only: make a new key, move the alias to it, and keep the "
                "old one for as long as there is something to verify"
            )
        told = await self._rotations_if_told(arn)
        left = None if told is None else _left(told)
        if left == 0:
            raise Failure(Kind.LIMIT, "not asked", "rotate_key_on_demand", "RotateKeyOnDemand").error()
        if left is not None and left <= _FEW:
            log.warning("a key of AWS KMS has few rotations on demand left", extra={"key_id": arn, "left": left})
        await self._ask("rotate_key_on_demand", KeyId=arn)
        version = None
        if before.current_version is not None:
            version = await self._new_material(arn, before.current_version, give_up_at)
        return reference(arn, key_id, version=version)

    async def on_demand_rotations_left(self, key_id: str) -> int:
        """Return how often ``rotate_key`` can still rotate the key, of 25 times in its whole life.

        Raises:
            ProviderAuthError: ``kms:ListKeyRotations`` is not allowed.
        """
        rotations = await self._rotations(await self._without_alias(key_id))
        if isinstance(rotations, Failure):
            raise rotations.error()
        return _left(rotations)

    async def get_rotation_policy(self, key_id: str) -> RotationPolicy:
        """Return AWS's own schedule for the key. Keys that AWS never rotates by schedule have a disabled policy.

        ``last_rotation`` counts rotations of either kind; it is None where there was none, and where
        ``kms:ListKeyRotations`` is not allowed.
        """
        arn = await self._without_alias(key_id)
        answer = await self._try("get_key_rotation_status", KeyId=arn)
        if isinstance(answer, Failure):
            if answer.kind is Kind.UNSUPPORTED and not answer.is_of_chain:
                return RotationPolicy(enabled=False, rotation_period=timedelta(0))
            raise answer.error()
        is_enabled = answer.get("KeyRotationEnabled") is True
        days = answer.get("RotationPeriodInDays")
        period = timedelta(0) if not is_enabled else _AWS_PERIOD if days is None else timedelta(days=days)
        dates = [each["RotationDate"] for each in await self._rotations_if_told(arn) or () if "RotationDate" in each]
        return RotationPolicy(
            enabled=is_enabled,
            rotation_period=period,
            last_rotation=_utc(max(dates)) if dates else None,
            next_rotation=_utc(answer["NextRotationDate"]) if is_enabled and "NextRotationDate" in answer else None,
        )

    async def _rotations_if_told(self, arn: str) -> list[Mapping[str, Any]] | None:
        """Return the rotations, or None where these credentials, or an emulator, do not tell them."""
        rotations = await self._rotations(arn)
        if not isinstance(rotations, Failure):
            return rotations
        if rotations.kind in {Kind.DENIED, Kind.UNSUPPORTED} and not rotations.is_of_chain:
            return None
        raise rotations.error()

    async def _new_material(self, arn: str, before: str, give_up_at: float) -> str | None:
        while True:
            try:
                current = (await self.describe(arn)).current_version
            except KMSError:
                return None  # the rotation was accepted, which no failure to look changes
            if current != before:
                return current
            if self._clock.monotonic() + _BETWEEN_LOOKS_S > give_up_at:
                return None
            await self._clock.sleep(_BETWEEN_LOOKS_S)

    async def _rotations(self, arn: str) -> list[Mapping[str, Any]] | Failure:
        rotations: list[Mapping[str, Any]] = []
        more: dict[str, str] = {}
        for _ in range(_PAGES):
            answer = await self._try("list_key_rotations", KeyId=arn, Limit=_PAGE, **more)
            if isinstance(answer, Failure):
                return answer
            rotations += answer.get("Rotations", [])
            marker = answer.get("NextMarker")
            if not answer.get("Truncated") or not marker:
                break
            more = {"Marker": marker}
        return rotations

    async def _without_alias(self, key_id: str) -> str:
        if is_alias(check_key_id(key_id)):
            return (await self.describe(key_id)).key_reference.key_id
        return key_id


def _left(rotations: list[Mapping[str, Any]]) -> int:
    done = [each for each in rotations if each.get("RotationType") == "ON_DEMAND"]
    return max(0, ROTATIONS - len(done))


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
