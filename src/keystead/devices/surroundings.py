"""Everything the devices' room works with, handed in once by the assembly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from keystead.crypto.keyring import Keyring
from keystead.devices.halves import Half
from keystead.devices.pairs import Pair, make_pair
from keystead.errors import ConfigurationError
from keystead.ports import (
    AuditTrail,
    ClientKeyRecord,
    Clock,
    Consent,
    Freely,
    KeyStore,
    PairKind,
    Random,
    ReadyPairRecord,
    UnitOfWork,
)


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """How long key pairs live, and how many are made.

    Attributes:
        lifetime: from a pair's making to its expiry; until then it decrypts, replaced or not.
        decrypt_grace: for how long after that it still decrypts what is under way; at most ``retention``.
        retention: for how long after its expiry its id is known.
        max_new: pairs that a device is given in ``window``, which slides; one that it has already is none.
        window: see ``max_new``.
        max_new_of_user: pairs that all devices of one user are given in ``window``.
        max_new_in_all: pairs that are given in ``window_in_all`` to anybody; those that are under way at the same time
            may come on top.
        window_in_all: see ``max_new_in_all``.
        kind: of a pair, where the request names none.
    """

    lifetime: timedelta = timedelta(days=30)
    decrypt_grace: timedelta = timedelta(minutes=5)
    retention: timedelta = timedelta(days=90)
    max_new: int = 5
    window: timedelta = timedelta(days=1)
    max_new_of_user: int = 50
    max_new_in_all: int = 600
    window_in_all: timedelta = timedelta(minutes=1)
    kind: PairKind = PairKind.RSA_2048

    def __post_init__(self) -> None:
        nothing, longest = timedelta(0), timedelta(days=3650)
        if not (timedelta(days=1) <= self.lifetime <= longest and nothing <= self.retention <= longest):
            raise ConfigurationError("a key pair of a device lives 1 to 3650 days, and its id is known 0 to 3650 more")
        if not nothing <= self.decrypt_grace <= self.retention:
            raise ConfigurationError("decrypt_grace is zero or more, and no longer than the retention")
        if min(self.max_new, self.max_new_of_user, self.max_new_in_all) < 1:
            raise ConfigurationError("a device, a user and all together are given at least one key pair")
        if min(self.window, self.window_in_all) <= nothing:
            raise ConfigurationError("a window in which key pairs are counted is longer than nothing")


class Rings(Protocol):
    """The keyrings of this process."""

    @property
    def store_id(self) -> str:
        """The store's id."""

    async def sealing_ring(self, name: str) -> Keyring:
        """Return a WRAP keyring ready to wrap under the version that is active in the store."""

    async def wrap_ring(self, name: str) -> Keyring:
        """Return a WRAP keyring."""

    async def load_wrap_key(self, name: str, key_id: int) -> bool:
        """Load a version by its id; False where the keyring has no such version."""

    async def load_keys(self, key_ids: Iterable[int]) -> Mapping[int, Keyring]:
        """Return the keyrings that data keys are of, loaded; ids that no row has are left out."""

    async def hold_wrap_key(self, work: UnitOfWork, key_id: int) -> None:
        """See that what was sealed by a version may be kept; the version stays so until the transaction ends.

        Raises:
            StoreRestoredError: the store must be recovered first.
            ConflictError: the version went out of use; seal under the one that is active now.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Ports and settings shared by every operation on devices."""

    store: KeyStore
    rings: Rings
    audit: AuditTrail
    clock: Clock
    random: Random = os.urandom
    policy: DevicePolicy = field(default_factory=DevicePolicy)
    make_pair: Callable[[PairKind], Pair] = make_pair
    consent: Consent = field(default_factory=Freely)

    def half(self, row: ClientKeyRecord | ReadyPairRecord) -> Half:
        """Return the private half of a row of this store."""
        return Half(self.rings.store_id, row)
