"""The fields of a key reference, in the document's order."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from keystead import KeyPurpose, KeyReference


async def sample() -> None:
    made = datetime(2030, 1, 1, tzinfo=UTC)
    reference = KeyReference("vault", "app-encryption-key", "app", KeyPurpose.ENCRYPT_DECRYPT, made)

    assert (reference.provider, reference.key_id, reference.key_alias) == ("vault", "app-encryption-key", "app")
    assert (reference.purpose, reference.created_at) == (KeyPurpose.ENCRYPT_DECRYPT, made)
    assert reference.qualified_id == "vault:app-encryption-key"
    assert KeyPurpose.SIGN_VERIFY
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference.key_id = "another"  # type: ignore[misc]
