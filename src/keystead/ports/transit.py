"""What the store keeps of Transit keys, beside the keyrings that hold their versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from keystead.errors import KMSError
from keystead.model.transit import TransitType


@dataclass(frozen=True, slots=True)
class TransitKeyRecord:
    """A Transit key. Its versions are the data keys of ``keyring``; the latest is the active one.

    Attributes:
        keyring: its own, not one that was another's before.
        tenant: whose it is; empty for the default one.
        derived: each context has a key of its own.
        convergent: equal plaintexts have equal ciphertexts.
        min_available: versions before it are gone for good; 0 where none is.
        min_decryption: versions before it do not decrypt or verify.
        min_encryption: versions before it do not encrypt or sign; 0 where only the latest is taken by itself.
        auto_rotate_s: it is rotated when its latest version is so many seconds old; 0 for never.
        imported: it was made of key material from outside.
        allow_rotation: whether an imported key may be rotated here.
        key_size: bytes of an ``hmac`` key; 0 for every other type.
    """

    keyring: str
    tenant: str
    name: str
    type: TransitType
    created_at: datetime
    derived: bool = False
    convergent: bool = False
    exportable: bool = False
    allow_plaintext_backup: bool = False
    deletion_allowed: bool = False
    min_available: int = 0
    min_decryption: int = 1
    min_encryption: int = 0
    auto_rotate_s: int = 0
    imported: bool = False
    allow_rotation: bool = False
    key_size: int = 0
    soft_deleted: bool = False


@dataclass(frozen=True, slots=True)
class TransitItem:
    """A plaintext or a ciphertext of a Transit key, and what goes with it; all before base64.

    Attributes:
        value: the plaintext, or the ``vault:vN:`` text.
        context: what a derived key is derived by.
    """

    value: bytes = field(repr=False)
    context: bytes = field(default=b"", repr=False)
    associated_data: bytes = field(default=b"", repr=False)


class TransitEnd(Protocol):
    """A key of some Transit engine, as one end of a move of ciphertexts from key to key. Blocks; thread-safe."""

    def is_done(self, text: str) -> bool:
        """Return whether a ciphertext is known to be of this key's latest version; no key is used."""

    def decrypt(self, items: Sequence[TransitItem]) -> list[bytes | KMSError]:
        """Return for each ciphertext its plaintext or the error that is its own; what concerns all is raised."""

    def encrypt(self, items: Sequence[TransitItem]) -> list[str | KMSError]:
        """Return for each plaintext its ciphertext or the error that is its own; what concerns all is raised."""


class TransitRows(Protocol):
    """Transit keys."""

    async def find_transit_key(self, tenant: str, name: str, *, lock: bool = False) -> TransitKeyRecord | None:
        """Return a key; ``lock`` holds its row until the transaction ends."""

    async def add_transit_key(self, record: TransitKeyRecord) -> None:
        """Insert a key whose keyring is there; ``ConflictError`` where its tenant has one of that name."""

    async def put_transit_key(self, record: TransitKeyRecord) -> None:
        """Change what may change of a key."""

    async def drop_transit_key(self, keyring: str) -> bool:
        """Remove a key, by its keyring; False when absent."""

    async def transit_keys(self, tenant: str, *, after: str = "", limit: int = 1000) -> list[TransitKeyRecord]:
        """Return a page of a tenant's keys by name."""

    async def is_upsert_disabled(self, tenant: str) -> bool:
        """Return whether encrypting under a name that is no key's makes no key, for a tenant."""

    async def disable_upsert(self, tenant: str, disabled: bool) -> None:
        """Set it."""

    async def tenants_without_upsert(self) -> list[str]:
        """Return every tenant for whom it makes none."""

    async def all_transit_keys(
        self, *, after: str = "", limit: int = 1000, rotating: bool = False
    ) -> list[TransitKeyRecord]:
        """Return a page of every tenant's keys by keyring, or of those that are rotated by their age."""
