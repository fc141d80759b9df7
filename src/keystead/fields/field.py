"""A field: one encrypted column, declared once. Spec: docs/spec/field-v1.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Final, TypeAlias
from uuid import UUID

from keystead.crypto.codec import ValueType, parse_value_type
from keystead.errors import InvalidInputError
from keystead.fields.indexes import Index
from keystead.model.patterns import OF_SUBJECTS, TENANT_PLACE, is_for_each_tenant, is_pattern

PythonType: TypeAlias = type

_TYPES: Final[dict[type, ValueType]] = {
    bytes: ValueType.BYTES,
    str: ValueType.TEXT,
    dict: ValueType.JSON,
    list: ValueType.JSON,
    int: ValueType.INTEGER,
    Decimal: ValueType.DECIMAL,
    datetime: ValueType.DATETIME,
    date: ValueType.DATE,
    UUID: ValueType.UUID,
    bool: ValueType.BOOL,
    float: ValueType.FLOAT,
}
_SIZED: Final = (str, bytes, bytearray, memoryview)


@dataclass(frozen=True, slots=True)
class Field:
    """One encrypted column.

    Args:
        table: the table's name.
        column: the column that holds the ciphertext.
        type: of its values: a Python type (str, bytes, int, Decimal, datetime, date, UUID, bool, float, dict, list), a
            ``ValueType``, or a type's name such as ``"text"``.
        record: the column or columns that say which record a row is; see docs/spec/field-v1.md, section 2.
        record_type: ``UUID`` where the record column holds UUIDs, so that they are known for that in a database that
            keeps them as text or bytes, and ``str`` where it holds texts that look like them; a tuple where there are
            several columns. Other types need no mention.
        tenant: the column that says whose row it is; None where there are no tenants.
        tenant_type: ``UUID`` where the tenant column holds UUIDs, as ``record_type``.
        per_subject: each record is a subject of its own, mostly a person, with a keyring that ``km.forget`` erases.
        subject: the column that says whose a value is, where that is not the record: ``"person_id"``.
        subject_kind: what subjects of one kind have in common, with ``subject`` the name of the table that its column
            points to; else the field's own table.
        subject_type: ``UUID`` where the subject column holds UUIDs, as ``record_type``.
        keyring: the keyring its values are under; ``"people-{tenant}"`` is one for each tenant. With subjects it is
            theirs.
        former_keyrings: keyrings its values were under before; they are read until they have been re-encrypted. Each
            may be one for each tenant.
        indexes: blind indexes to search it by.
        index_keyring: the keyring of purpose INDEX whose versions key them.
        id: the name in the ciphertext and the indexes, ``table.column`` unless given. A column or table that is renamed
            keeps the id it had, or nothing it holds can be read.
        encrypt_null: encrypt None too, so that nobody sees which rows hold nothing.
        allow_envelopes: take values that are ciphertexts of this store already.

    Raises:
        InvalidInputError: names, types or options that cannot go together.
    """

    table: str
    column: str
    type: type | ValueType | str = str
    record: str | tuple[str, ...] = "id"
    record_type: PythonType | tuple[PythonType | None, ...] | None = None
    tenant: str | None = None
    tenant_type: PythonType | None = None
    per_subject: bool = False
    subject: str | None = None
    subject_kind: str = ""
    subject_type: PythonType | None = None
    keyring: str = "default"
    former_keyrings: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    index_keyring: str = "index"
    id: str = ""
    encrypt_null: bool = False
    allow_envelopes: bool = False
    # What follows from the members above, set once: columns are looked up for every row.
    value_type: ValueType = field(init=False, repr=False, compare=False)
    """The type of its values."""
    record_columns: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The columns that say which record a row is."""
    record_types: tuple[PythonType | None, ...] = field(init=False, repr=False, compare=False)
    """What is declared of each record column's values."""
    index_columns: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """Every column that holds an index, token tables left out."""
    token_index: Index | None = field(init=False, repr=False, compare=False)
    """The index whose hashes live in a table of their own, if there is one."""

    def __post_init__(self) -> None:
        if not self.table or not self.column:
            raise InvalidInputError("a field names its table and its column")
        if not isinstance(self.indexes, Iterable):
            raise InvalidInputError(f"column {self.column}: indexes is a list, as in indexes=[Exact()]")
        kind, record, indexes = _value_type(self.type), _names(self.record), tuple(self.indexes)
        self._set(type=kind, value_type=kind, record=record, record_columns=record, indexes=indexes)
        self._set(former_keyrings=_names(self.former_keyrings), id=self.id or f"{self.table}.{self.column}")
        types = self.record_type if isinstance(self.record_type, tuple) else (self.record_type,) * len(record)
        if len(types) != len(record):
            raise InvalidInputError(f"field {self.id}: record_type names one type for each record column")
        columns = [index.column(self.column, parity) for index in indexes if not index.many for parity in (0, 1)]
        self._set(record_type=types, record_types=types, index_columns=tuple(columns))
        self._set(token_index=next((index for index in indexes if index.many), None))
        self._set_subjects()
        if not record:
            raise InvalidInputError(f"field {self.id}: record names at least one column")
        if OF_SUBJECTS in self.former_keyrings:
            raise InvalidInputError(f"field {self.id}: values of subjects stay under their keyrings, to be forgotten")
        if self.tenant is None and any(map(is_for_each_tenant, (self.keyring, *self.former_keyrings))):
            raise InvalidInputError(f"field {self.id}: a keyring per tenant needs tenant=, the column that names it")
        names = [index.name for index in self.indexes]
        if len(set(names)) != len(names):
            raise InvalidInputError(f"field {self.id}: two of its indexes are the same")
        for index in self.indexes:
            index.require_type(self.value_type)

    def _set_subjects(self) -> None:
        """Let a field of subjects be under their keyrings."""
        if not self.has_subjects:
            if self.subject_kind or self.subject_type:
                raise InvalidInputError(f"field {self.id} has no subjects: declare per_subject=True, or subject=")
            return
        if self.subject is not None and not self.subject_kind:
            raise InvalidInputError(
                f"field {self.id}: name the kind of its subjects, subject_kind=, mostly the table that its column "
                f"{self.subject!r} points to; two kinds may have the same ids"
            )
        if self.keyring not in ("default", OF_SUBJECTS):
            raise InvalidInputError(f"field {self.id}: each of its subjects has a keyring; leave keyring= out")
        kind = self.subject_kind or self.table.rpartition(".")[2]
        self._set(keyring=OF_SUBJECTS, subject_kind=kind, per_subject=True)

    def _set(self, **members: object) -> None:
        """Set members of a value that is frozen as soon as it is made."""
        for name, value in members.items():
            object.__setattr__(self, name, value)

    def read_record(self, values: tuple[object, ...]) -> object:
        """Return the record that is named by the record columns' values as a database driver gives them.

        One value where there is one column, else a tuple.

        Raises:
            InvalidInputError: a value that is no UUID where the declaration says so.
        """
        pairs = zip(values, self.record_types, strict=True)
        read = tuple(_as_uuid(one) if kind is UUID else one for one, kind in pairs)
        return read[0] if len(read) == 1 else read

    def read_tenant(self, value: object) -> str | None:
        """Return the tenant that is named by the tenant column's value as a database driver gives it, or by its text.

        Raises:
            InvalidInputError: a value that is no UUID where the declaration says so, or one that names no tenant.
        """
        if value is None:
            return None
        given = _as_uuid(value) if self.tenant_type is UUID else value
        try:
            return record_text(given)
        except InvalidInputError:
            raise InvalidInputError(
                f"field {self.id}: a tenant is named by what its column holds, a str, int, UUID, bytes or date that is "
                f"not empty, or by the text of it, not by this {type(value).__name__}"
            ) from None

    @property
    def has_subjects(self) -> bool:
        """Whether each subject's values are under a keyring of its own."""
        return self.per_subject or self.subject is not None

    def subject_of(self, value: object) -> str:
        """Return what the key manager calls a subject, for ``km.forget`` and ``km.subject``: its kind and its id.

        Args:
            value: what the subject column holds, or, without one, the record columns; as ``record_text`` takes it.

        Raises:
            InvalidInputError: it names nobody, or the field has no subjects.
        """
        if not self.has_subjects:
            raise InvalidInputError(f"field {self.id} has no subjects: declare per_subject=True, or subject=")
        try:
            return f"{self.subject_kind}:{record_text(value)}"
        except InvalidInputError:
            raise InvalidInputError(
                f"field {self.id} is encrypted for its subject, and this row names none: give it "
                f"{self.subject or ', '.join(self.record_columns)} first"
            ) from None

    def subject_name(self, record: object, value: object) -> str | None:
        """Return ``subject_of`` for a value of a record, given what its subject column holds; None without subjects."""
        if not self.has_subjects:
            return None
        return self.subject_of(record if self.subject is None and value is None else value)

    def read_subject(self, value: object) -> object:
        """Return the subject that is named by the subject column's value as a database driver gives it.

        Raises:
            InvalidInputError: a value that is no UUID where the declaration says so.
        """
        return _as_uuid(value) if self.subject_type is UUID else value

    @property
    def owner_columns(self) -> tuple[str, ...]:
        """Every column that says whose a value is: those of the record, the tenant's and the subject's."""
        return (*self.record_columns, *filter(None, (self.tenant, self.subject)))

    @property
    def token_table(self) -> str:
        """The name of the token index's table, which is in the schema of the field's own."""
        return token_table_of(self.table, self.column)

    @property
    def has_keyring_per_tenant(self) -> bool:
        """Whether each tenant's values are under a keyring of their own."""
        return is_for_each_tenant(self.keyring)

    def keyring_of(self, tenant: str | None) -> str:
        """Return the keyring of a tenant's values.

        Raises:
            InvalidInputError: as ``require_tenant``.
        """
        self.require_tenant(tenant)
        return self.keyring if tenant is None else self.keyring.replace(TENANT_PLACE, tenant)

    def require_tenant(self, tenant: str | None) -> None:
        """Raise ``InvalidInputError`` for a tenant where there is none, none where there is one, or one of no text."""
        if (tenant is None) != (self.tenant is None):
            cure = "has no tenant column" if self.tenant is None else f"needs the tenant, column {self.tenant!r}"
            raise InvalidInputError(f"field {self.id} {cure}")
        if tenant is not None and not isinstance(tenant, str):
            raise InvalidInputError(
                f"field {self.id}: a tenant is a str, not {type(tenant).__name__}; pass str(tenant)"
            )

    def former_keyrings_of(self, tenant: str | None) -> tuple[str, ...]:
        """Return the keyrings a tenant's values were under before; without a tenant, those that are not of one."""
        if tenant is None:
            return tuple(name for name in self.former_keyrings if not is_pattern(name))
        return tuple(name.replace(TENANT_PLACE, tenant) for name in self.former_keyrings)


def token_table_of(table: str, column: str) -> str:
    """Return the name of the table that a column's token index lives in."""
    return f"{table.rpartition('.')[2]}_{column}_tokens"


def record_text(record: object) -> str:
    """Return the text that names a record in the ciphertext: injective for the values of one set of columns.

    str as it is, int in decimal, UUID in lower-case hyphenated hex, bytes in hex, date as YYYY-MM-DD; several columns
    as ``u32`` decimal length, colon, text, one after the other. Members of an enumeration that are str or int as well
    name what they are made of.

    Raises:
        InvalidInputError: None, empty, or of another class.
    """
    if record.__class__ is str and record:
        return record
    if record.__class__ is UUID:
        return str(record)
    if isinstance(record, tuple):
        parts = [record_text(part) for part in record]
        return parts[0] if len(parts) == 1 else "".join(f"{len(part)}:{part}" for part in parts)
    if record is None or isinstance(record, bool) or (isinstance(record, _SIZED) and not record):
        raise InvalidInputError(
            "a field is bound to its record, and this one has no id yet: give the row its primary key first, or a row "
            "key column (docs/guides/encrypted-columns.md)"
        )
    # By the base class: a member of an enumeration has a text of its own, and the column holds what it is made of.
    if isinstance(record, str):
        return str.__str__(record)
    if isinstance(record, int):
        try:
            return int.__repr__(int(record))
        except ValueError:
            raise too_many_digits() from None
    if isinstance(record, UUID):
        return str(record)
    if isinstance(record, bytes | bytearray | memoryview):
        return bytes(record).hex()
    if isinstance(record, date) and not isinstance(record, datetime):
        return record.isoformat()
    raise InvalidInputError(f"a record is named by str, int, UUID, bytes or date, not {type(record).__name__}")


def too_many_digits() -> InvalidInputError:
    """Return the error for a number that Python does not write in decimal."""
    return InvalidInputError("a record is named by a number of more digits than Python writes; name it by a str")


def _value_type(given: type | ValueType | str) -> ValueType:
    if isinstance(given, ValueType):
        kind = given
    elif isinstance(given, str):
        kind = parse_value_type(given)
    elif isinstance(given, type) and given in _TYPES:
        kind = _TYPES[given]
    else:
        raise InvalidInputError(f"a field cannot hold {given!r}; use one of {', '.join(t.__name__ for t in _TYPES)}")
    if kind is ValueType.NULL:
        raise InvalidInputError("a field of type null holds nothing; use the type of its other values")
    return kind


def _as_uuid(given: object) -> object:
    if given is None or isinstance(given, UUID):
        return given
    try:
        return UUID(bytes=given) if isinstance(given, bytes) else UUID(str(given))
    except ValueError:
        raise InvalidInputError("a column that is declared to hold UUIDs holds something else") from None


def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
