"""Key pairs of devices: handed out, replaced, and opened for whoever they belong to."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Final

from keystead.crypto.envelope import parse_header
from keystead.devices.halves import open_half
from keystead.devices.issuing import Asked, Issuing
from keystead.devices.metrics import Metrics
from keystead.devices.names import checked_key_id, checked_name
from keystead.devices.operations import Operation, Reason
from keystead.devices.pairs import OpenKey
from keystead.devices.surroundings import Surroundings
from keystead.errors import (
    DecryptionError,
    ForbiddenError,
    InvalidInputError,
    KeyExpiredError,
    KeyNotFoundError,
    KMSError,
    RateLimitedError,
    StorageOperationError,
)
from keystead.model import WRAP_KEYRING, Principal
from keystead.ports import ClientKeyRecord, PairKind
from keystead.runtime.single_flight import SingleFlight

KEPT_OPEN: Final = 1024
"""Private halves that are kept parsed."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A private half that is kept parsed, with the pair's row as it was last seen, and what the half is bound to."""

    key: ClientKeyRecord
    wrapped_by: int
    context: bytes
    opened: OpenKey


class ClientKeys:
    """Gives each device its key pair, and opens what was encrypted to it."""

    def __init__(self, surroundings: Surroundings, metrics: Metrics) -> None:
        self._s = surroundings
        self._metrics = metrics
        self._issuing = Issuing(surroundings)
        self._flights: SingleFlight[ClientKeyRecord] = SingleFlight()
        self._open: OrderedDict[str, _Open] = OrderedDict()

    async def generate(
        self, who: Principal, device_id: str, *, app_version: str | None = None, kind: PairKind | None = None
    ) -> ClientKeyRecord:
        """Return the key pair that a device is to encrypt to, made if it has none that has not expired.

        The first who uses a device owns it.

        Raises:
            InvalidInputError: an id or version that cannot be one.
            ForbiddenError: the device is somebody else's, or was revoked.
            RateLimitedError: a new pair is needed, and as many were made as may be: for the device, for its owner, or
                in all.
            KMSError: as ``open``: a pair is handed out only while its private half opens.
        """
        return await self._measured(who, device_id, app_version, kind, replaces=False)

    async def rotate(
        self, who: Principal, device_id: str, *, app_version: str | None = None, kind: PairKind | None = None
    ) -> ClientKeyRecord:
        """Give a device a new key pair, and hand its others out no more; they decrypt until they expire.

        Raises:
            KMSError: as ``generate``.
        """
        return await self._measured(who, device_id, app_version, kind, replaces=True)

    async def find(self, who: Principal, key_id: str) -> ClientKeyRecord:
        """Return a key pair that decrypts for ``who``; errors as ``find_for``."""
        named = checked_key_id(key_id)
        async with self._s.store.reading(once=True) as work:
            key = await work.find_client_key(named)
        return self._usable(who, key)

    async def find_for(self, who: Principal, key_id: str, digest: bytes) -> tuple[ClientKeyRecord, bool]:
        """Return a key pair that decrypts for ``who``, and whether a ciphertext, by its SHA-256, has succeeded.

        Raises:
            KeyNotFoundError: there is none of that id, or it is somebody else's.
            KeyExpiredError: it has expired, and the grace is over; or its device was revoked.
        """
        named = checked_key_id(key_id)
        async with self._s.store.reading(once=True) as work:
            found = await work.find_client_key_for(named, digest)
        key, is_spent = (None, False) if found is None else found
        return self._usable(who, key), is_spent

    def recent(self, who: Principal, key_id: str) -> ClientKeyRecord | None:
        """Return a key pair that has decrypted for ``who`` in this process, as it was then, without asking the store.

        Raises:
            KeyNotFoundError, KeyExpiredError: as ``find_for``.
        """
        known = self._open.get(key_id)
        return None if known is None else self._usable(who, known.key)

    def _usable(self, who: Principal, key: ClientKeyRecord | None) -> ClientKeyRecord:
        if key is None or (key.tenant, key.owner) != (who.tenant, who.user):
            raise KeyNotFoundError("Encryption key not found")
        over = None if key.expires_at is None else key.expires_at + self._s.policy.decrypt_grace
        if key.wrapped_private_key is None or (over is not None and over <= self._s.clock.now()):
            self._open.pop(key.id, None)
            raise KeyExpiredError("Encryption key has expired")
        return key

    async def open(self, key: ClientKeyRecord) -> OpenKey:
        """Return the private half of a pair that ``find`` has returned, ready to decrypt.

        Raises:
            StorageOperationError: it does not open: its row was altered, or its WRAP key is gone.
            KeyStateError: its WRAP key was taken out of use.
            KMSError: the KMS is away, and was for longer than keys in memory may be used without it.
        """
        sealed = key.wrapped_private_key or b""
        ring = await self._s.rings.wrap_ring(WRAP_KEYRING)
        known = self._open.get(key.id)
        # As ``recent`` has returned it: nothing of its row is another.
        same = known if known is not None and known.key is key else None
        try:
            wrapped_by = parse_header(sealed).key_id if same is None else same.wrapped_by
            if wrapped_by not in ring.snapshot.keys:
                await self._s.rings.load_wrap_key(WRAP_KEYRING, wrapped_by)
            ring.get(wrapped_by)
            if same is not None:
                self._open.move_to_end(key.id)
                return same.opened
            half = self._s.half(key)
            context = half.context()
            if known is not None and (known.key.wrapped_private_key, known.context) == (sealed, context):
                opened = known.opened
            else:
                opened = open_half(ring, half, sealed)
        except DecryptionError:
            raise StorageOperationError(
                f"the private half of client key {key.id} does not open: its row was altered, or its WRAP key is gone; "
                "restore the store, or have the device get another key"
            ) from None
        self._open[key.id] = _Open(key, wrapped_by, context, opened)
        self._open.move_to_end(key.id)
        if len(self._open) > KEPT_OPEN:
            self._open.popitem(last=False)
        return opened

    async def _measured(
        self, who: Principal, device_id: str, app_version: str | None, kind: PairKind | None, *, replaces: bool
    ) -> ClientKeyRecord:
        begun = self._s.clock.monotonic()
        key: ClientKeyRecord | None = None
        reason: Reason | None = None
        try:
            version = None if app_version is None else checked_name(app_version, "appVersion")
            named = checked_name(device_id, "deviceId")
            asked = Asked(who, named, version, kind or self._s.policy.kind, replaces)
            issuing = partial(self._issuing.issue, asked)
            key = await (issuing() if replaces else self._flights.run(asked, issuing))
            # A public half that somebody has put in the row would be signed, and encrypted to.
            await self.open(key)
        except Exception as exc:
            reason = next((each for kind_of, each in _REASONS if isinstance(exc, kind_of)), Reason.NOT_GENERATED)
            raise
        finally:
            self._metrics.note(
                Operation.GENERATE,
                self._s.clock.monotonic() - begun,
                reason=reason,
                key_id=None if key is None else key.id,
                device_id=device_id,
                tenant=who.tenant,
                is_owner=key is not None,
            )
        return key


_REASONS: Final[tuple[tuple[type[KMSError], Reason], ...]] = (
    (ForbiddenError, Reason.FORBIDDEN),
    (RateLimitedError, Reason.QUOTA_EXCEEDED),
    (InvalidInputError, Reason.INVALID_INPUT),
)
