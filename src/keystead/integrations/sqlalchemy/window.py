"""The time in which a column is being encrypted: rows that are not yet have their value in clear, in another column.

Opened by ``encrypted(..., plaintext="email_plain")``, ended by ``keystead.fields.reencrypt``. Nobody writes the
plaintext column any more but to empty it, so that rows in clear only become fewer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    LargeBinary,
    String,
    Table,
    TypeDecorator,
    and_,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstanceState
from sqlalchemy.types import TypeEngine
from sqlalchemy.util.concurrency import in_greenlet

from keystead import telemetry
from keystead.crypto.codec import ValueType
from keystead.errors import ConfigurationError, ConflictError, InvalidInputError, KMSError
from keystead.fields import Encrypted, Exact, Field, Importer
from keystead.fields.importing.reading import Foreign
from keystead.fields.plaintext import from_column
from keystead.integrations.sqlalchemy.foreign import SoughtForm, require_importable
from keystead.integrations.sqlalchemy.sought import Sought

if TYPE_CHECKING:
    from keystead.integrations.sqlalchemy.place import Place

log = logging.getLogger("keystead.integrations.sqlalchemy")

_TENANTS: Final[dict[type, Callable[[str], object]]] = {
    UUID: UUID,
    int: int,
    date: date.fromisoformat,
    bytes: bytes.fromhex,
}
_JOB: Final = "keystead.fields.reencrypt(..., plaintext_column={name!r})"


@dataclass(slots=True, eq=False)
class Window:
    """The plaintext column of one encrypted column. Its attribute's key is known once the class is configured."""

    column: Column[Any]
    tenant: Column[Any] | None
    importer: Importer | None = None
    key: str = ""
    was_logged: bool = False

    @property
    def job(self) -> str:
        """How the window is ended."""
        return _JOB.format(name=self.column.name)

    def note_read(self, field: Field) -> None:
        """Count a value that was read in clear; an importer counts its own."""
        if self.importer is not None:
            return
        telemetry.plaintext_read(field.id)
        if not self.was_logged:
            self.was_logged = True
            log.warning(
                "a value is still in clear, and read from its plaintext column; re-encrypt the field",
                extra={"field": field.id},
            )

    def value(self, stored: object, field: Field) -> object:
        """Return what a row's column holds as a value of the field.

        Raises:
            KMSError: as ``Importer.read``, where the values are another system's.
        """
        if self.importer is None or stored is None:
            return from_column(stored, field.value_type)
        [found] = self.importer.read_many([cast(Foreign, stored)], kind=field.value_type)
        if isinstance(found, KMSError):
            raise found
        return found

    def compared(self, value: Sought) -> ColumnElement[bool]:
        """Return whether the column holds a value, in clear or in the form of another system."""
        sought: Any = value
        found: ColumnElement[bool] = self.column == type_coerce(sought, self.sought)
        return found

    @property
    def sought(self) -> TypeDecorator[Any]:
        """The type by which values are looked for in the column."""
        if self.importer is None:
            return SoughtPlain(self.column.type)
        return SoughtForm(self.importer, isinstance(self.column.type, LargeBinary))


class SoughtPlain(TypeDecorator[Any]):
    """A ``Sought`` value as the plaintext column holds it."""

    impl = String
    cache_ok = True

    def __init__(self, plain: TypeEngine[Any]) -> None:
        super().__init__()
        self.plain = plain
        self.impl = plain  # type: ignore[assignment]  # TypeDecorator's own __init__ puts an instance there, too

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return the value."""
        plain = value.value
        if isinstance(plain, datetime) and plain.tzinfo is not None:
            # As re-encryption reads it: a time without a zone, which is all that SQLite keeps, is in UTC.
            has_zone = getattr(self.plain, "timezone", False) and dialect.name != "sqlite"
            return plain if has_zone else plain.astimezone(UTC).replace(tzinfo=None)
        return plain


def open_window(table: Table, column: Column[Any], field: Field, name: str, importer: Importer | None = None) -> Window:
    """Return the window of a column that is being encrypted, which leaves the column nullable for the time.

    Raises:
        ConfigurationError: a plaintext column that cannot be.
    """
    found = next((each for each in table.c if each.name == name), None)
    trouble = _trouble(found, field, is_imported=importer is not None)
    if found is None or trouble:
        raise ConfigurationError(f"encrypted column {column} has plaintext={name!r}, {trouble}")
    column.nullable = True
    tenant = None if field.tenant is None else next(each for each in table.c if each.name == field.tenant)
    if importer is not None:
        require_importable(field, importer, in_place=False)
    return Window(found, tenant, importer)


def clear_value(place: Place, state: InstanceState[Any]) -> object:
    """Return the value that an object without a ciphertext has in clear; None where it has none.

    Raises:
        InvalidInputError: the plaintext was not loaded along, and nobody may wait here.
    """
    window = place.window
    if window is None or place.key in state.committed_state:
        return None
    if window.key not in state.dict:
        if state.key is None:
            return None
        if state.session is not None:
            if state.session.get_bind(state.mapper).dialect.is_async and not in_greenlet():
                raise InvalidInputError(
                    f"field {place.field.id} is being encrypted, and its plaintext column was not loaded along, for "
                    f"which nobody may wait here; load it too, or `await session.refresh(row, [{place.key!r}, "
                    f"{window.key!r}])`"
                )
            # Both anew, in one statement: the row may have been encrypted since its ciphertext was looked for.
            state._expire_attributes(state.dict, [place.key, window.key])
            box = state.manager[place.key].impl.get(state, state.dict)
            if box is not None:
                return box
        state.manager[window.key].impl.get(state, state.dict)
    return window.value(state.dict.get(window.key), place.field)


def look_again(place: Place, state: InstanceState[Any], attributes: Iterable[str] | None) -> None:
    """Have a missing ciphertext loaded anew where its plaintext was loaded later than it.

    The row may have been encrypted between the two, and would seem to have nothing.
    """
    if place.window is None or attributes is None or place.key in attributes or place.window.key not in attributes:
        return
    if place.key in state.dict and state.dict[place.key] is None and place.key not in state.committed_state:
        state._expire_attributes(state.dict, [place.key])


def is_in_clear(
    sealed: ColumnElement[Any], plain: ColumnElement[bool], tenant: tuple[ColumnElement[Any], str] | None
) -> ColumnElement[bool]:
    """Return whether a row has no ciphertext, and its plaintext is as ``plain`` says."""
    found = and_(type_coerce(sealed, LargeBinary).is_(None), plain)
    if tenant is None:
        return found
    return and_(found, tenant_is(*tenant))


def tenant_is(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return whether a tenant's column holds a tenant, given its text."""
    found: ColumnElement[bool] = column == _tenant_value(column, text)
    return found


def require_unique(place: Place, connection: Connection, state: InstanceState[Any]) -> None:
    """Refuse a value that was written while another row has it in clear, as the database does once it is encrypted.

    The row itself is not in clear any more. Rows that are only become fewer, so that none can get the value afterwards.

    Raises:
        IntegrityError: of SQLAlchemy, since that is what code that writes unique values expects.
    """
    window, box = place.window, state.dict.get(place.key)
    if window is None or not isinstance(box, Encrypted) or not _is_unique(place.field):
        return
    value = box.decrypt()
    if value is None:
        return
    plain = window.compared(Sought(value, box.tenant))
    tenant = None if window.tenant is None or box.tenant is None else (window.tenant, box.tenant)
    statement = select(literal(1)).where(is_in_clear(place.column, plain, tenant)).limit(1)
    if connection.execute(statement).first() is not None:
        raise IntegrityError(
            f"look for a value of field {place.field.id} in clear",
            None,
            ConflictError(
                f"UNIQUE constraint failed: another row has this value of field {place.field.id} in clear, in column "
                f"{window.column.name}"
            ),
        )


def refuse_assignment(state: InstanceState[Any], value: object, before: object, initiator: Any) -> None:
    """Refuse to write a plaintext column."""
    if value is None and state.key is None:
        return
    raise InvalidInputError(
        f"attribute {initiator.key} holds what is not encrypted yet, and is written by no one; assign the encrypted "
        "attribute, which empties it"
    )


def _trouble(column: Column[Any] | None, field: Field, *, is_imported: bool) -> str:
    """Return why a plaintext column cannot be one, or nothing."""
    if column is None:
        return f"and table {field.table} has no such column"
    if column.primary_key or column.name in (field.column, field.tenant, *field.record_columns):
        return "which is a part of what the row is"
    if not column.nullable:
        return "which has to be nullable: the value goes when it is encrypted"
    if any(each is not None for each in (column.default, column.server_default, column.onupdate)):
        return "which must have no default: nobody writes values in clear any more"
    if is_imported:
        return ""
    try:
        # What JSON holds has no one type in Python.
        held = ValueType.JSON if isinstance(column.type, JSON) else column.type.python_type
        kind = Field(field.table, field.column, type=held).value_type
    except (InvalidInputError, NotImplementedError):
        kind = None
    if kind is not field.value_type:
        return f"whose values are not of type {field.value_type.name.lower()}"
    if any(index.unique and not isinstance(index, Exact) for index in field.indexes):
        return "and a unique index other than Exact, which values in clear cannot be compared by; add it afterwards"
    return ""


def _is_unique(field: Field) -> bool:
    return any(index.unique for index in field.indexes)


def _tenant_value(column: ColumnElement[Any], text: str) -> Any:
    """Return a tenant's text as its column holds it."""
    try:
        kind: type = column.type.python_type
    except NotImplementedError:
        return text
    try:
        return _TENANTS[kind](text) if kind in _TENANTS else text
    except ValueError:
        raise InvalidInputError(f"column {column} holds no such tenant") from None
