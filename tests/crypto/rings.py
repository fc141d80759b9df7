"""Keyrings over random keys, without a store."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from keystead.crypto.keyring import Keyring
from keystead.crypto.snapshot import KeyringSnapshot, LoadedKey

SINCE = datetime(2030, 1, 1, tzinfo=UTC)


def loaded(version: int = 1, key_id: int | None = None) -> LoadedKey:
    """Return a version under a random key."""
    return LoadedKey(key_id or 1000 + version, version, bytearray(os.urandom(32)))


def holding(*keys: LoadedKey, active: int | None = None) -> KeyringSnapshot:
    """Return a snapshot in which the last of ``keys`` is active."""
    return KeyringSnapshot({key.id: key for key in keys}, keys[-1].id if active is None else active, SINCE)


def ring(*keys: LoadedKey, name: str = "default", **options: Any) -> Keyring:
    """Return a keyring whose last version is active."""
    made = Keyring(name, **options)
    made.load(holding(*(keys or (loaded(),))))
    return made
