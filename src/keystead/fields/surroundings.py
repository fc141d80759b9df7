"""What re-encryption needs of a key manager, which is built above it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from keystead.fields.cipher import FieldCipher
from keystead.fields.field import Field
from keystead.fields.keyrings import Keyrings
from keystead.model import KeyRecord
from keystead.ports import AuditTrail, FieldRecord, KeyStore


class NodeName(Protocol):
    """This process among the nodes of a store."""

    @property
    def value(self) -> str:
        """Its name."""


class Surroundings(Protocol):
    """The store, and who we are."""

    @property
    def store(self) -> KeyStore:
        """Keystead's own store."""

    @property
    def node(self) -> NodeName:
        """This process."""

    @property
    def audit(self) -> AuditTrail:
        """What is told of changes."""


class IndexRotation(Protocol):
    """The rotation of index keys, which waits for re-encryption to fill the rows."""

    async def is_ready(self, name: str) -> bool:
        """Return whether a version is waiting and every live node has loaded it."""

    async def note_indexed(self, field_id: str, version: int) -> None:
        """Note that every row of a field has been hashed under a version."""

    async def finish(self, name: str) -> KeyRecord | None:
        """Make the waiting version active, if every registered field has been filled."""


class Lifecycle(Protocol):
    """What happens to keys."""

    @property
    def index_rotation(self) -> IndexRotation:
        """The rotation of index keys."""


class Session(Protocol):
    """An initialised manager."""

    @property
    def surroundings(self) -> Surroundings:
        """The store, and who we are."""

    @property
    def lifecycle(self) -> Lifecycle:
        """What happens to keys."""

    async def poll(self) -> None:
        """Load what changed in the store, and beat."""


class Manager(Protocol):
    """``KeyManager``, as far as re-encryption is concerned."""

    @property
    def keyrings(self) -> Keyrings:
        """Its keyrings."""

    def field(self, field: Field) -> FieldCipher:
        """Return what encrypts and decrypts the values of a field."""

    async def load_fields(self, *fields: Field, tenants: Iterable[str] = ()) -> None:
        """Load the keyrings of fields."""

    async def prefetch(self, rows: Iterable[object]) -> None:
        """Load every data key that ciphertexts name."""

    async def register_field(self, field: Field, source: str) -> FieldRecord:
        """Remember in the store where a field's column is."""

    async def session(self) -> Session:
        """Return what there is after initialisation."""
