"""The column type: ciphertext in, a box out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import LargeBinary, TypeDecorator
from sqlalchemy.engine import Dialect

from keystead.crypto.codec import ValueType
from keystead.crypto.envelope import is_envelope
from keystead.errors import InvalidInputError
from keystead.fields import Encrypted, Field, Index
from keystead.integrations.sqlalchemy.binding import as_itself, binding_of, refuse_literal
from keystead.integrations.sqlalchemy.comparator import EncryptedComparator

if TYPE_CHECKING:
    from keystead.integrations.sqlalchemy.place import Place


_Class: TypeAlias = type


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What ``encrypted(...)`` was given, before the table is known."""

    type: type | ValueType | str | None
    indexes: tuple[Index, ...]
    keyring: str
    former_keyrings: tuple[str, ...]
    index_keyring: str
    tenant: str | None
    per_subject: bool
    subject: str | None
    subject_kind: str
    record: tuple[str, ...]
    id: str
    encrypt_null: bool
    allow_envelopes: bool
    plaintext: str | None

    def field(
        self,
        table: str,
        column: str,
        record: tuple[str, ...],
        kinds: tuple[_Class | None, ...],
        owner_kinds: tuple[_Class | None, _Class | None],
    ) -> Field:
        """Return the field it declares, once it is known where. ``owner_kinds`` are the tenant's and the subject's."""
        tenant_type, subject_type = owner_kinds
        return Field(
            table,
            column,
            type=str if self.type is None else self.type,
            record=record,
            record_type=kinds,
            tenant=self.tenant,
            tenant_type=tenant_type,
            per_subject=self.per_subject,
            subject=self.subject,
            subject_kind=self.subject_kind,
            subject_type=subject_type,
            keyring=self.keyring,
            former_keyrings=self.former_keyrings,
            indexes=self.indexes,
            index_keyring=self.index_keyring,
            id=self.id,
            encrypt_null=self.encrypt_null,
            allow_envelopes=self.allow_envelopes,
        )


class EncryptedBytes(TypeDecorator[Any]):
    """The ciphertext of a field. Loading gives an ``Encrypted`` box; only ciphertext goes in.

    Needs no key until a value passes, so that migrations need none at all.
    """

    impl = LargeBinary
    cache_ok = True
    comparator_factory = EncryptedComparator

    def __init__(self, field: Field | None = None) -> None:
        super().__init__()
        self.field = field
        self.declaration: Declaration | None = None
        self.is_boxed = False
        self.place: Place | None = None

    def declare(self, kind: type | ValueType | str | None, is_boxed: bool) -> None:
        """Add what the attribute's annotation says to the declaration."""
        if self.declaration is not None:
            self.is_boxed = is_boxed
            if self.declaration.type is None:
                self.declaration = replace(self.declaration, type=kind)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Return what lets ciphertext through and refuses everything else."""
        inner = self.impl_instance.bind_processor(dialect)

        def checked(value: Any) -> Any:
            if value is None:
                return None
            ciphertext = self._ciphertext(value)
            return inner(ciphertext) if inner else ciphertext

        return checked

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        """Return what refuses to write values into a statement's text."""
        return refuse_literal

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Return what puts a ciphertext into its box: no decryption, no I/O."""
        inner = self.impl_instance.result_processor(dialect, coltype)
        field = self.field

        def boxed(value: Any) -> Any:
            if value is None:
                return None
            ciphertext: Any = inner(value) if inner else value
            return ciphertext if field is None else Encrypted(ciphertext, binding_of(dialect).cipher(field))

        return boxed

    def compare_values(self, x: Any, y: Any) -> bool:
        """Return whether two values of the attribute are the same; two ciphertexts of one value are not."""
        if isinstance(x, Encrypted) and isinstance(y, Encrypted):
            return x.ciphertext == y.ciphertext
        return x.__class__ is y.__class__ and bool(x == y)

    @property
    def python_type(self) -> type[Any]:
        """The class of what loading gives."""
        return Encrypted

    def _ciphertext(self, value: Any) -> bytes:
        if isinstance(value, Encrypted):
            if self.field is None or value.cipher.field.id == self.field.id:
                return value.ciphertext
        elif isinstance(value, bytes | bytearray | memoryview) and is_envelope(bytes(value)):
            return bytes(value)
        name = "an encrypted column" if self.field is None else f"encrypted column {self.field.id}"
        raise as_itself(
            InvalidInputError(
                f"{name} takes ciphertext here, not {type(value).__name__}: bulk and Core statements do not encrypt. "
                "Add objects through a session, or prepare the rows: sealed_rows(engine, Model, rows) for INSERT, "
                "sealed_updates for UPDATE"
            )
        )
