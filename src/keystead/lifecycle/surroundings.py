"""Everything the lifecycle works with, handed in once by the assembly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from keystead.crypto.envelope import new_key_id
from keystead.lifecycle.algorithms import algorithm_of
from keystead.lifecycle.wrapping import Kek, KekWrapper
from keystead.model import (
    WRAP_KEYRING,
    DataKeyState,
    KeyRecord,
    KeyringPurpose,
    KeyringRecord,
    RotationPolicy,
    ages_by_policy,
    utc_text,
)
from keystead.ports import (
    AuditEvent,
    AuditTrail,
    Clock,
    KeyStore,
    NodeRecord,
    Random,
    SeenState,
    StateJournal,
    UnitOfWork,
)

ROTATION_FRACTION = 0.8
"""A version is replaced after this part of its lifetime, so that there is never a gap."""


class Activation(NamedTuple):
    """When a version became active, is due for rotation, and expires."""

    activated_at: datetime
    rotate_after: datetime | None
    expires_at: datetime | None

    def of(self, row: KeyRecord) -> KeyRecord:
        """Return ``row`` as active since then."""
        return replace(row, state=DataKeyState.ACTIVE, **self._asdict())


@dataclass(slots=True)
class NodeName:
    """This process's name among the nodes of a store; a child of a fork gets another."""

    value: str


class NoAudit:
    """An audit trail that keeps nothing."""

    async def record(self, work: UnitOfWork, event: AuditEvent) -> None:
        """Keep nothing."""


class NoJournal:
    """A journal that remembers nothing: restores are noticed by running nodes only."""

    def read(self, store_id: str) -> SeenState:
        """Return an empty state."""
        return SeenState()

    def append(
        self,
        store_id: str,
        *,
        epoch: int | None = None,
        keys: Mapping[int, tuple[str, int]] | None = None,
        destroyed: object = (),
        exported_at: object = None,
        audited: bool = False,
        erasures: object = None,
    ) -> None:
        """Remember nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Ports and settings shared by every lifecycle operation.

    ``kek`` wraps new WRAP versions; ``wrap_context`` are pairs sealed with them besides the row's own columns.
    """

    store: KeyStore
    wrapper: KekWrapper
    kek: Kek
    clock: Clock
    random: Random = os.urandom
    audit: AuditTrail = field(default_factory=NoAudit)
    journal: StateJournal = field(default_factory=NoJournal)
    policy: RotationPolicy = field(default_factory=RotationPolicy)
    wrap_context: Mapping[str, str] = field(default_factory=dict)
    node: NodeName = field(default_factory=lambda: NodeName(""))

    async def other_nodes(self, work: UnitOfWork) -> list[NodeRecord]:
        """Return the live nodes that are not this process."""
        return [node for node in await work.live_nodes() if node.node_id != self.node.value]

    def new_row(self, keyring: KeyringRecord, version: int, context: Mapping[str, str] | None = None) -> KeyRecord:
        """Return the row of a new version, not yet wrapped, in state pre-active.

        Args:
            context: pairs sealed with it besides the row's own columns.
        """
        return KeyRecord(
            id=new_key_id(self.random),
            keyring=keyring.name,
            version=version,
            purpose=keyring.purpose,
            state=DataKeyState.PRE_ACTIVE,
            algorithm=keyring.algorithm,
            wrapped_key=None,
            created=utc_text(self.clock.now()),
            context=dict(self.wrap_context) if keyring.purpose is KeyringPurpose.WRAP else dict(context or {}),
        )

    def new_keyring(
        self,
        name: str,
        purpose: KeyringPurpose = KeyringPurpose.ENCRYPT,
        algorithm: str = "AES-256-GCM",
        wrap_keyring: str = WRAP_KEYRING,
    ) -> KeyringRecord:
        """Return the row of a new keyring.

        Raises:
            InvalidAlgorithmError: no such algorithm.
        """
        algorithm_of(algorithm)
        if purpose is KeyringPurpose.WRAP:
            wrap_keyring = ""
        return KeyringRecord(name, purpose, algorithm, wrap_keyring, created_at=self.clock.now())

    async def new_key(self, keyring: KeyringRecord) -> bytes:
        """Return a new data key for a keyring, not yet wrapped."""
        return await algorithm_of(keyring.algorithm).new_key(self.random)

    def activation(self, keyring: KeyringRecord) -> Activation:
        """Return the times a version gets when it becomes active.

        Only keyrings that encrypt data age, and not those of subjects, of which there may be millions, nor those of
        Transit keys, which have a period of their own: their keys, as WRAP and INDEX keys, are rotated on request.
        """
        now = self.clock.now()
        period = self.policy.period
        if not ages_by_policy(keyring.name, keyring.purpose) or period <= timedelta(0):
            return Activation(now, None, None)
        return Activation(now, now + period * ROTATION_FRACTION, now + period)
