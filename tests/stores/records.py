"""Rows for tests. The wrapped keys are plain filler: no key is in them."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from keystead.model import DataKeyState, KeyRecord, KeyringPurpose, KeyringRecord, utc_text
from keystead.ports import KeyStore

FILLER = b"not a key, only filler as long as a wrapped key would be"
CREATED = datetime(2030, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)


def keyring(name: str = "default", **given: Any) -> KeyringRecord:
    values: dict[str, Any] = {
        "purpose": KeyringPurpose.ENCRYPT,
        "algorithm": "AES-256-GCM",
        "wrap_keyring": "keystead.wrap",
        "created_at": CREATED,
    }
    return KeyringRecord(name, **(values | given))


def data_key(**given: Any) -> KeyRecord:
    values: dict[str, Any] = {
        "id": random.randrange(1, 2**63),
        "keyring": "default",
        "version": 1,
        "purpose": KeyringPurpose.ENCRYPT,
        "state": DataKeyState.ACTIVE,
        "algorithm": "AES-256-GCM",
        "wrapped_key": FILLER,
        "created": utc_text(CREATED),
        "wrapped_by": 77,
    }
    return KeyRecord(**(values | given))


async def fill(store: KeyStore, *keys: KeyRecord) -> None:
    """Add the keys, and the keyrings they are of."""
    async with store.transaction() as work:
        for name in {key.keyring for key in keys} | {"default"}:
            await work.add_keyring(keyring(name))
        for key in keys:
            await work.add_key(key)
