"""``/v1/devices``, ``/v1/users`` and ``/v1/problematic-keys``: devices, their key pairs, and users forgotten."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from keystead.access.callers import Scope
from keystead.devices.names import MAX_NAME
from keystead.devices.summary import MAX_HOURS, TOP_KEYS, fault_of
from keystead.devices.summary import ProblematicKey as Counted
from keystead.ports import ClientKeyRecord, PairKind
from keystead.server.admin import Admin
from keystead.server.rest.answers import ABSENT, answers
from keystead.server.rest.door import Needs
from keystead.server.rest.shapes import LIMIT, Cursor, Limit, Page, Subject, Told, page_of, place_of

_TAGS: Final[list[str | Enum]] = ["devices"]
_USERS: Final[list[str | Enum]] = ["users"]
Administers = Annotated[Admin, Depends(Needs(Scope.DEVICES_ADMIN))]
Measures = Annotated[Admin, Depends(Needs(Scope.METRICS_READ, is_of_store=True))]
DeviceId = Annotated[
    str,
    Path(
        alias="deviceId",
        min_length=1,
        max_length=MAX_NAME,
        pattern=r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$",
        description="The id that the device gives itself.",
        examples=["device-123"],
    ),
]
UserId = Annotated[
    Subject, Path(alias="userId", description="The user, as its tokens name it.", examples=["billing-backend"])
]


class Device(Told):
    """A device."""

    device_id: str = Field(examples=["device-123"])
    owner: str | None = Field(description="Whose it is; null once it was released, until somebody uses it.")
    created_at: datetime
    revoked_at: datetime | None = Field(description="Since when it gets no key.")


class ClientKey(Told):
    """A key pair of a device, without the private half."""

    id: str = Field(examples=["key_1767225600000_0123456789abcdef01234567"])
    owner: str = Field(description="Whose device it was then.")
    kind: PairKind
    public_key: str = Field(description="PEM, SubjectPublicKeyInfo.")
    created_at: datetime
    expires_at: datetime | None
    deprecated: bool = Field(description="It is handed out no more.")
    is_erased: bool = Field(description="Its private half is gone, and nothing is decrypted by it.")
    app_version: str | None
    usage_count: int = Field(description="How often something was decrypted by it.")
    last_used: datetime | None

    @classmethod
    def of(cls, key: ClientKeyRecord) -> ClientKey:
        """Return what is told of a key pair."""
        return cls(
            id=key.id,
            owner=key.owner,
            kind=key.kind,
            public_key=key.public_key,
            created_at=datetime.fromisoformat(key.created_at),
            expires_at=key.expires_at,
            deprecated=key.deprecated,
            is_erased=key.wrapped_private_key is None,
            app_version=key.app_version,
            usage_count=key.usage_count,
            last_used=key.last_used,
        )


class Forgotten(Told):
    """How much of a user was removed."""

    devices: int
    client_keys: int
    secrets: int


class FailureReason(Told):
    """Why decrypts by a key pair failed, and whose fault that is."""

    reason: str
    fault: str = Field(examples=["client"])
    count: int


class ProblematicKey(Told):
    """A key pair of which too many decrypts failed."""

    key_id: str = Field(examples=["key_1767225600000_0123456789abcdef01234567"])
    total: int = Field(description="Decrypts.")
    failures: int
    failure_rate: float | None = Field(description="Of a hundred.")
    reasons: list[FailureReason] = Field(description="The commonest first.")

    @classmethod
    def of(cls, key: Counted) -> ProblematicKey:
        """Return what is told of a problematic key."""
        return cls(
            key_id=key.key_id,
            total=key.total,
            failures=key.failures,
            failure_rate=key.failure_rate,
            reasons=[
                FailureReason(reason=each.reason, fault=fault_of(each.reason), count=each.count) for each in key.reasons
            ],
        )


class ProblematicKeys(Told):
    """Key pairs of which too many decrypts failed, those with the most failures first."""

    keys: list[ProblematicKey] = Field(max_length=TOP_KEYS)
    is_cut: bool = Field(description="Whether there are more.")


def register(router: APIRouter) -> None:
    """Add the routes."""
    router.get("/devices", tags=_TAGS, operation_id="listDevices")(list_devices)
    one = "/devices/{deviceId:name}"
    router.get(f"{one}/keys", tags=_TAGS, operation_id="listClientKeys", responses=answers(ABSENT))(list_keys)
    router.post(f"{one}/revoke", tags=_TAGS, operation_id="revokeDevice", responses=answers(ABSENT))(revoke)
    router.post(f"{one}/release", tags=_TAGS, operation_id="releaseDevice", responses=answers(ABSENT))(release)
    router.post("/users/{userId:name}/forget", tags=_USERS, operation_id="forgetUser")(forget)
    router.get("/problematic-keys", tags=_TAGS, operation_id="listProblematicKeys")(list_problematic)


async def list_devices(
    by: Administers,
    owner: Annotated[Subject | None, Query(description="Only this user's.")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Page[Device]:
    """List the devices of the tenant by id, those that were revoked or released among them."""
    (after,) = place_of(cursor, str) or ("",)
    found = await by.service.devices.owners.all(by.by.principal, owner=owner, after=after, limit=limit + 1)
    shown, behind = page_of(found, limit, lambda each: (each.device_id,))
    return Page(items=[Device.model_validate(each) for each in shown], next_cursor=behind)


async def list_keys(
    by: Administers, device_id: DeviceId, limit: Limit = LIMIT, cursor: Cursor = None
) -> Page[ClientKey]:
    """List the key pairs of a device, the newest first, those among them whose private half is erased."""
    (after,) = place_of(cursor, str) or (None,)
    owners, who = by.service.devices.owners, by.by.principal
    found = await owners.client_keys(who, device_id, is_admin=True, after=after, limit=limit + 1)
    shown, behind = page_of(found, limit, lambda each: (each.id,))
    return Page(items=[ClientKey.of(each) for each in shown], next_cursor=behind)


async def revoke(by: Administers, device_id: DeviceId) -> Device:
    """Erase the private keys of a device, which gets no others until it is released."""
    owners, who = by.service.devices.owners, by.by.principal
    await owners.revoke(who, device_id, is_admin=True)
    return Device.model_validate(await owners.get(who, device_id))


async def release(by: Administers, device_id: DeviceId) -> Device:
    """Let a device belong to the next user who uses it, revoked or not; what its last owner was given is erased."""
    owners, who = by.service.devices.owners, by.by.principal
    await owners.release(who, device_id)
    return Device.model_validate(await owners.get(who, device_id))


async def forget(by: Administers, user_id: UserId) -> Forgotten:
    """Remove a user of the tenant: devices, key pairs and secrets. The audit trail keeps what it has.

    Of a user of whom there is nothing, nothing is removed.
    """
    return Forgotten.model_validate(await by.service.devices.owners.forget(by.by.principal, user_id))


async def list_problematic(
    by: Measures,
    hours: Annotated[int, Query(ge=1, le=MAX_HOURS, description="Of so many last hours.")] = 24,
) -> ProblematicKeys:
    """List key pairs of which too many decrypts failed, and why. What failed for others than the owner is left out."""
    found = await by.service.devices.summaries.find_problematic_keys(hours, limit=TOP_KEYS + 1)
    return ProblematicKeys(keys=[ProblematicKey.of(each) for each in found[:TOP_KEYS]], is_cut=len(found) > TOP_KEYS)
