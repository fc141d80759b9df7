"""Data keys, keyrings and their policies, as rows and as answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from keystead.model.transit import is_of_transit

WRAP_KEYRING = "keystead.wrap"
AUDIT_KEYRING = "keystead.audit"
"""Name of the store's own WRAP keyring; names beginning with ``keystead.`` belong to Keystead."""

ERASURES_KEYRING = "keystead.erasures"
"""The keyring whose keys vouch for lines of the log of erasures."""
SUBJECT_PREFIX = "keystead.subject."
"""What the names of keyrings of subjects begin with; see docs/spec/erasure-v1.md."""


def is_of_subject(keyring: str) -> bool:
    """Whether a keyring, by its name, is that of a subject."""
    return keyring.startswith(SUBJECT_PREFIX)


class DataKeyState(StrEnum):
    """State of a data key; ``docs/spec/key-states.md`` has the table of what each allows."""

    PRE_ACTIVE = "pre-active"
    ACTIVE = "active"
    DECRYPT_ONLY = "decrypt-only"
    DISABLED = "disabled"
    PENDING_DESTROY = "pending-destroy"
    DESTROYED = "destroyed"

    @property
    def can_decrypt(self) -> bool:
        """Whether a key in this state may be loaded and decrypt."""
        return self in (DataKeyState.PRE_ACTIVE, DataKeyState.ACTIVE, DataKeyState.DECRYPT_ONLY)


class KeyringPurpose(StrEnum):
    """What a keyring's keys are for; sealed with every wrapped key."""

    WRAP = "wrap"
    ENCRYPT = "encrypt"
    INDEX = "index"
    MAC = "mac"
    SIGN = "sign"
    DEVICE = "device"
    SESSION = "session"


def ages_by_policy(keyring: str, purpose: KeyringPurpose) -> bool:
    """Whether a keyring's versions are replaced by the store's rotation policy, by their age or their use."""
    return purpose is KeyringPurpose.ENCRYPT and not is_of_subject(keyring) and not is_of_transit(keyring)


def utc_text(moment: datetime) -> str:
    """Return ``moment`` (aware) as RFC 3339 UTC text with microseconds: the form that is sealed and stored."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def utc_of(ms: int) -> datetime:
    """Return the time that is so many milliseconds after 1970, as clocks of stores tell it."""
    return datetime.fromtimestamp(ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class KeyringRecord:
    """A row of ``keyrings``. ``wrap_keyring`` names the WRAP keyring that wraps its keys ("" for a WRAP keyring)."""

    name: str
    purpose: KeyringPurpose
    algorithm: str
    wrap_keyring: str
    next_version: int = 1
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A row of ``data_keys``. Never holds a plaintext key.

    ``created`` is the text that was sealed; ``context`` the caller's pairs sealed besides the row's own immutable
    columns. ``wrapped_by`` is the id of the WRAP key, None for WRAP rows, whose wrapping is told by ``kek_*``: the
    provider instance, the key id as the service answered it, the KEK version and the algorithm.
    ``published_epoch`` is the store's epoch at which the row became visible.
    """

    id: int
    keyring: str
    version: int
    purpose: KeyringPurpose
    state: DataKeyState
    algorithm: str
    wrapped_key: bytes | None
    created: str
    wrapped_by: int | None = None
    kek_provider: str | None = None
    kek_key_id: str | None = None
    kek_version: str | None = None
    kek_algorithm: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    published_epoch: int = 0
    activated_at: datetime | None = None
    rotate_after: datetime | None = None
    expires_at: datetime | None = None
    destroy_after: datetime | None = None
    messages: int = 0
    bytes: int = 0
    legacy_version: str | None = None

    @property
    def created_at(self) -> datetime:
        """The time of creation, aware UTC."""
        return datetime.fromisoformat(self.created)


@dataclass(frozen=True, slots=True)
class StoreState:
    """The one row of ``store_state``: a random id (32 hex characters), the epoch, and whether it was restored.

    ``audited``: its changes are recorded in an audit trail, by every process that makes some.
    """

    store_id: str
    epoch: int
    restored: bool
    audited: bool = False


@dataclass(frozen=True, slots=True)
class DataKeyInfo:
    """What may be told about a data key. Never its bytes."""

    id: int
    keyring: str
    version: int
    algorithm: str
    state: DataKeyState
    created_at: datetime
    activated_at: datetime | None = None
    rotate_after: datetime | None = None
    expires_at: datetime | None = None
    destroy_after: datetime | None = None
    messages: int = 0
    bytes: int = 0
    wrapped_by: int | None = None
    kek_provider: str | None = None
    kek_key_id: str | None = None
    kek_version: str | None = None
    legacy_version: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether this version is the one that encrypts."""
        return self.state is DataKeyState.ACTIVE

    @classmethod
    def from_record(cls, record: KeyRecord) -> DataKeyInfo:
        """Return the public half of a row."""
        return cls(
            id=record.id,
            keyring=record.keyring,
            version=record.version,
            algorithm=record.algorithm,
            state=record.state,
            created_at=record.created_at,
            activated_at=record.activated_at,
            rotate_after=record.rotate_after,
            expires_at=record.expires_at,
            destroy_after=record.destroy_after,
            messages=record.messages,
            bytes=record.bytes,
            wrapped_by=record.wrapped_by,
            kek_provider=record.kek_provider,
            kek_key_id=record.kek_key_id,
            kek_version=record.kek_version,
            legacy_version=record.legacy_version,
        )


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When a key is replaced. Every field has a default.

    ``rotation_period`` of zero means never by age; due at 80 % of it, expired at its end. ``max_messages`` and
    ``max_bytes`` (None = no limit) rotate at 80 % as well. ``last_rotation`` and ``next_rotation`` are aware UTC, or
    None where unknown. ``rotation_period_days`` may be given instead of ``rotation_period``; fractions are allowed.
    """

    enabled: bool = True
    rotation_period_days: float | None = None
    last_rotation: datetime | None = None
    next_rotation: datetime | None = None
    rotation_period: timedelta | None = None
    max_messages: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        period, days = self.rotation_period, self.rotation_period_days
        if period is None:
            period = timedelta(days=90) if days is None else timedelta(days=days)
            object.__setattr__(self, "rotation_period", period)
        if days is None:
            object.__setattr__(self, "rotation_period_days", period / timedelta(days=1))

    @property
    def period(self) -> timedelta:
        """``rotation_period`` as a plain timedelta; zero when rotation by age is off."""
        if not self.enabled or self.rotation_period is None:
            return timedelta(0)
        return self.rotation_period
