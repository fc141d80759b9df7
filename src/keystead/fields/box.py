"""A ciphertext that knows what opens it: what a column gives back when it is loaded."""

from __future__ import annotations

from typing import Any, Final, Generic, NoReturn, SupportsIndex, TypeVar, cast

from keystead.errors import InvalidInputError
from keystead.fields.cipher import FieldCipher

T = TypeVar("T")
UNKNOWN: Final = object()
"""Stands for a record that is not known."""


class Encrypted(Generic[T]):
    """One sealed value of a field, with the record it belongs to where that is known.

    Never shows its content by itself: ``decrypt()`` does.
    """

    __slots__ = ("_record", "_tenant", "cipher", "ciphertext")

    def __init__(
        self, ciphertext: bytes, cipher: FieldCipher, *, record: object = UNKNOWN, tenant: str | None = None
    ) -> None:
        self.ciphertext = ciphertext
        self.cipher = cipher
        self._record = record
        self._tenant = tenant

    def __repr__(self) -> str:
        return f"<Encrypted {self.cipher.field.id}, {len(self.ciphertext)} bytes>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("an encrypted value belongs to a key manager of this process; pass its ciphertext instead")

    @property
    def is_bound(self) -> bool:
        """Whether the record it belongs to is known."""
        return self._record is not UNKNOWN

    @property
    def tenant(self) -> str | None:
        """Whose it is, where the record is known and the field has tenants."""
        return self._tenant

    def bound(self, record: object, tenant: str | None) -> Encrypted[T]:
        """Return the same ciphertext as of a record."""
        return Encrypted(self.ciphertext, self.cipher, record=record, tenant=tenant)

    def decrypt(self, *, record: object = UNKNOWN, tenant: str | None = None) -> T:
        """Return the value.

        Args:
            record, tenant: whose value it is, where the box does not know: one that was selected without its row.

        Raises:
            InvalidInputError: no record is known.
            DecryptionError, KMSError: as ``FieldCipher.decrypt``.
        """
        if record is UNKNOWN:
            record, tenant = self._record, self._tenant
        if record is UNKNOWN:
            raise InvalidInputError(
                f"a value of field {self.cipher.field.id} was selected without its row; give decrypt(record=...), or "
                "select the whole entity"
            )
        return cast(T, self.cipher.decrypt(self.ciphertext, record=cast(Any, record), tenant=tenant))

    def needs_reencrypt(self) -> bool:
        """Return whether it is under another version than the active one, or another keyring."""
        return self.cipher.needs_reencrypt(self.ciphertext, tenant=self._tenant)
