"""What stands in an object's ``__dict__`` for a value that was loaded or saved: its ciphertext, and whose it is."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, SupportsIndex

from django.apps import apps

from keystead.fields import Encrypted, FieldCipher
from keystead.fields.box import UNKNOWN
from keystead.integrations.django.record import Whose

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField


class Box(Encrypted[Any]):
    """A sealed value of a model's field. It finds its keys when it is opened, so that loading rows needs none.

    ``is_stored`` says that the database gave it: an UPDATE leaves such a value as it is there.
    """

    __slots__ = ("field", "is_stored", "subject")

    def __init__(
        self,
        ciphertext: bytes,
        field: EncryptedField,
        record: object = UNKNOWN,
        tenant: str | None = None,
        subject: object = None,
        *,
        is_stored: bool = False,
    ) -> None:
        # Not by the parent's constructor, which takes the cipher: one is made for each value of each row.
        self.ciphertext = ciphertext
        self.field = field
        self.is_stored = is_stored
        self._record = record
        self._tenant = tenant
        self.subject = subject

    @property
    def cipher(self) -> FieldCipher:  # type: ignore[override]  # a slot of the parent, looked up here
        """What opens it.

        Raises:
            ConfigurationError: the application was not bound to keys.
        """
        return self.field.cipher

    @property
    def whose(self) -> Whose:
        """Its record, tenant and subject."""
        return self._record, self._tenant, self.subject

    def bound(self, record: object, tenant: str | None, subject: object = None) -> Box:
        """Return the same ciphertext as of a record."""
        return Box(self.ciphertext, self.field, record=record, tenant=tenant, subject=subject, is_stored=self.is_stored)

    def decrypt(self, *, record: object = UNKNOWN, tenant: object = None) -> Any:
        """Return the value. One that a subquery gave has to be told whose it is, as the row's columns hold it.

        Raises:
            InvalidInputError: no record is known.
            DecryptionError, KMSError: as ``FieldCipher.decrypt``.
        """
        if record is UNKNOWN:
            return self.field.from_plain(super().decrypt())
        record, name = self.field.owner_of(record, tenant)
        return self.field.from_plain(super().decrypt(record=record, tenant=name))

    def __repr__(self) -> str:
        return f"<Encrypted {self.field.spec.id}, {len(self.ciphertext)} bytes>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Give the ciphertext and whose it is: a pickled object holds no values, and needs no keys."""
        whose = self.whose if self.is_bound else ()
        return _restored, (self.field.model._meta.label_lower, self.field.name, self.ciphertext, self.is_stored, *whose)


class Nothing(Enum):
    """What stands for a value that the database did not have when the object was loaded, or that was never given."""

    STORED = auto()


class Opened:
    """A value that may be changed in place, as it was read out of its box."""

    __slots__ = ("box", "typed", "value")

    def __init__(self, box: Box, value: Any, typed: bytes) -> None:
        self.box = box
        self.value = value
        self.typed = typed

    def __repr__(self) -> str:
        return repr(self.box)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Leave the value out of a pickle or a copy, unless it was changed and stands nowhere else."""
        return _same, (self.value if self.is_changed else self.box,)

    @property
    def is_changed(self) -> bool:
        """Whether the value is another one by now."""
        return self.box.field.typed(self.value) != self.typed


def _restored(label: str, name: str, ciphertext: bytes, is_stored: bool, *whose: Any) -> Box:
    field: Any = apps.get_model(label)._meta.get_field(name)
    box = Box(ciphertext, field, is_stored=is_stored)
    return box.bound(*whose) if whose else box


def _same(thing: Any) -> Any:
    return thing
