"""Answers of the half of the manager that has the Go KMS's names."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class EncryptedField:
    """An encrypted named field. ``value`` is an envelope v1; ``name`` is authenticated with it."""

    value: bytes
    version: int
    algorithm: str = "AES-256-GCM"
    name: str = ""


@dataclass(frozen=True, slots=True)
class KeyStatistics:
    """Counts over one keyring: rows, active rows, rows past their expiry."""

    total_keys: int = 0
    active_keys: int = 0
    expired_keys: int = 0


@dataclass(frozen=True, slots=True)
class KMSStatus:
    """State of a manager and of its default keyring. Fields that cannot be told now are None."""

    initialized: bool
    shutdown: bool
    algorithm: str | None = None
    rotate_interval: timedelta | None = None
    active_key_version: int | None = None
    active_key_expiry: datetime | None = None
    key_statistics: KeyStatistics = field(default_factory=KeyStatistics)
