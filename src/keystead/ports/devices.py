"""What the store keeps of devices: whose they are, their key pairs, and pairs that are ready for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class PairKind(StrEnum):
    """What a device's key pair is. Spec: docs/spec/client-keys-v1.md, section 2."""

    RSA_2048 = "RSA_2048"
    RSA_3072 = "RSA_3072"
    X25519 = "X25519"


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device of a tenant, an empty text where there is none, and whose it is.

    ``owner`` is None once it was released: it then belongs to the next who uses it. A revoked device gets no key.
    """

    tenant: str
    device_id: str
    owner: str | None
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ClientKeyRecord:
    """A key pair of a device.

    ``public_key`` is PEM; ``wrapped_private_key`` an envelope under the WRAP key ``wrapped_by``, both None once it was
    erased.
    ``created_at`` is the text that was sealed. ``owner`` is whose device it was then. A deprecated key is not handed
    out any more.
    """

    id: str
    tenant: str
    device_id: str
    owner: str
    kind: PairKind
    public_key: str
    wrapped_private_key: bytes | None
    wrapped_by: int | None
    created_at: str
    expires_at: datetime | None
    app_version: str | None = None
    deprecated: bool = False
    usage_count: int = 0
    last_used: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReadyPairRecord:
    """A key pair that no device has yet; its members are those of a client key."""

    id: str
    kind: PairKind
    public_key: str
    wrapped_private_key: bytes
    wrapped_by: int
    created_at: str


@dataclass(frozen=True, slots=True)
class Newest:
    """The ``number`` newest pair, from 1, of those made after a time, in the text that they have."""

    number: int
    since: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a device stands that asks for a pair of a kind.

    Attributes:
        device: None where it is not known.
        given: the pair of the kind that it is given: not deprecated, and not expired.
        has_pairs: whether any pair of it is not deprecated, of whatever kind, and expired or not.
        made_at: when the so-many newest pair was made: of the device, of an owner, and of all; None where there are
            not so many.
    """

    device: DeviceRecord | None
    given: ClientKeyRecord | None
    has_pairs: bool
    made_at: tuple[str | None, str | None, str | None]


class DeviceRows(Protocol):
    """Devices."""

    async def find_device(self, tenant: str, device_id: str, *, lock: bool = False) -> DeviceRecord | None:
        """Return a device; with ``lock`` nobody else changes it before the transaction ends."""

    async def hold_device(self, device: DeviceRecord) -> DeviceRecord:
        """Hold the user that a device is of, insert it unless it is there, and return it as it is.

        Nobody else changes it, or takes a key for it, before the transaction ends.
        """

    async def change_device(
        self, tenant: str, device_id: str, *, owner: str | None, revoked_at: datetime | None
    ) -> bool:
        """Say whose a device is, and when it was revoked; False when absent."""

    async def devices(
        self, tenant: str, *, owner: str | None = None, after: str = "", limit: int | None = None
    ) -> list[DeviceRecord]:
        """Return the devices of a tenant, or of a user of it, by id; those ``after`` an id."""

    async def hold_user(self, tenant: str, user: str) -> None:
        """Wait until nobody else holds a user; nobody else does before the transaction ends."""

    async def drop_owner_devices(self, tenant: str, owner: str) -> int:
        """Forget whose the devices of a user are; return how many.

        A device that others have pairs of stays, and belongs to the next who uses it; the rest is removed.
        """


class ClientKeyRows(Protocol):
    """Key pairs of devices, and those that are ready."""

    async def find_client_key(self, key_id: str) -> ClientKeyRecord | None:
        """Return a key pair by its id."""

    async def find_client_key_for(self, key_id: str, digest: bytes) -> tuple[ClientKeyRecord, bool] | None:
        """Return a key pair, and whether a ciphertext to it, by its SHA-256, has succeeded."""

    async def find_standing(
        self,
        device: tuple[str, str],
        owner: str,
        kind: PairKind,
        *,
        after: datetime,
        of_device: Newest,
        of_owner: Newest,
        in_all: Newest,
    ) -> Standing:
        """Return how a device, by tenant and id, stands; its pair is one that expires ``after`` a time."""

    async def client_keys(
        self, tenant: str, device_id: str, *, after: tuple[str, str] | None = None, limit: int | None = None
    ) -> list[ClientKeyRecord]:
        """Return the pairs of a device, the newest first; those ``after`` a time of making and an id."""

    async def add_client_key(self, key: ClientKeyRecord) -> None:
        """Insert a pair; ``ConflictError`` when its id is taken, or the device has one of the kind already."""

    async def deprecate_client_keys(
        self, tenant: str, device_id: str, at: datetime, *, kind: PairKind | None = None
    ) -> int:
        """Hand a device's pairs out no more, those of a kind or all; return how many were."""

    async def note_client_key_uses(self, uses: Mapping[str, int], at: datetime) -> None:
        """Add to the use counts of pairs; one that is gone is passed over."""

    async def deprecate_expired_client_keys(self, now: datetime, *, limit: int) -> int:
        """Hand out no more what has expired; return how many pairs that were, ``limit`` at most."""

    async def erase_client_keys(self, expired_before: datetime, *, limit: int) -> int:
        """Erase the private halves of what has expired before a time; return how many, ``limit`` at most."""

    async def drop_client_keys(self, expired_before: datetime, *, limit: int) -> int:
        """Remove what has expired before a time, tombstones and all; return how many, ``limit`` at most."""

    async def erase_device_keys(self, tenant: str, device_id: str, at: datetime) -> list[str]:
        """Hand a device's pairs out no more and erase their private halves; return the ids of all."""

    async def drop_owner_keys(self, tenant: str, owner: str) -> list[str]:
        """Remove the pairs that were given to a user; return their ids."""

    async def client_keys_under(self, wrapped_by: int, *, after: str, limit: int) -> list[ClientKeyRecord]:
        """Return pairs of devices whose private halves a WRAP key wraps, by id, those after ``after``."""

    async def rewrap_client_key(self, key_id: str, before: bytes, sealed: bytes, wrapped_by: int) -> bool:
        """Replace a private half by itself under another WRAP key; False if it is not ``before`` any more."""

    async def add_ready_pair(self, pair: ReadyPairRecord) -> None:
        """Insert a pair that is ready."""

    async def take_ready_pair(self, kind: PairKind) -> ReadyPairRecord | None:
        """Remove the oldest ready pair of a kind that nobody else is taking, and return it."""

    async def drop_ready_pairs(self, wrapped_by: int) -> int:
        """Remove the ready pairs that a WRAP key wraps; return how many."""

    async def count_ready_pairs(self, kind: PairKind) -> int:
        """Return how many pairs of a kind are ready."""

    async def count_private_halves(self, wrapped_by: int) -> int:
        """Return how many private halves a WRAP key wraps, of devices and ready ones."""
