"""Whose a ciphertext is that a statement writes, and whose the row is that it goes into.

One that would not open there is refused before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import Column, Connection
from sqlalchemy.sql import operators
from sqlalchemy.sql.dml import Update, ValuesBase
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, ClauseElement

from keystead.errors import InvalidInputError
from keystead.fields import Encrypted, Field
from keystead.fields.field import record_text
from keystead.integrations.sqlalchemy.held import as_held, kind_of
from keystead.integrations.sqlalchemy.notes import notes_of
from keystead.integrations.sqlalchemy.place import column_named, names_of

Whose = tuple[tuple[str, ...], str | None]
"""A record, as the text of each of its columns, and a tenant."""

_SEALED: Final = "sealed"
_CURE: Final = (
    "assign the value in a session, or prepare the rows: sealed_rows(engine, Model, rows) for INSERT, sealed_updates "
    "for UPDATE"
)


class SealedCiphertext(bytes):
    """A ciphertext that was sealed for a later statement, whose it is, and the index versions its row was hashed under.

    ``is_update`` says for which statement: an UPDATE, or an INSERT.
    """

    whose: Whose
    versions: frozenset[int]
    is_update: bool

    def __new__(cls, ciphertext: bytes, whose: Whose, versions: frozenset[int], *, is_update: bool) -> Self:
        """Make one."""
        made = super().__new__(cls, ciphertext)
        made.whose, made.versions, made.is_update = whose, versions, is_update
        return made


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a statement writes into one row: values by the names of columns, and the parameters sent along."""

    values: Mapping[str, Any]
    sent: Mapping[str, Any]

    def find(self, column: Column[Any]) -> Any:
        """Return what a column is given; None where it is given nothing."""
        return next((self.resolved(self.values[name]) for name in names_of(column) if name in self.values), None)

    def resolved(self, value: Any) -> Any:
        """Return a value, or what a parameter stands for."""
        return self.sent.get(value.key, value.effective_value) if isinstance(value, BindParameter) else value


def whose_is(record: object, tenant: str | None) -> Whose:
    """Return whose a value is, as it is compared."""
    return tuple(map(record_text, record if isinstance(record, tuple) else (record,))), tenant


def note_sealed(connection: Connection, box: Encrypted[Any], whose: Whose) -> None:
    """Remember whose value a flush sealed, until the next transaction begins."""
    notes_of(connection, _SEALED)[id(box)] = (box, whose)


def require_own(
    connection: Connection, statement: ValuesBase, column: Column[Any], field: Field, row: Assignment
) -> None:
    """Refuse a ciphertext that would not open in the row it is written into.

    Raises:
        InvalidInputError: it is of another record or tenant; or it was taken from a row, or is for one that the
            statement does not name.
    """
    value = row.find(column)
    is_prepared = isinstance(value, SealedCiphertext)
    if is_prepared:
        record, tenant = value.whose
    elif isinstance(value, Encrypted):
        _, whose = notes_of(connection, _SEALED).get(id(value), (None, None))
        if whose is None:
            raise InvalidInputError(f"field {field.id} takes no value out of a row, which opens there alone; {_CURE}")
        record, tenant = whose
    else:
        return
    seen = {name: _seen(statement, column_named(column.table, name), row) for name in bound_to(field)}
    if is_prepared and None in seen.values():
        raise InvalidInputError(
            f"a value of field {field.id} was sealed for one row, which this statement does not name: give "
            f"{', '.join(seen)}, as values or by == in WHERE"
        )
    wanted = dict(zip(bound_to(field), (*record, *filter(None, (tenant,))), strict=True))
    if any(each not in (None, wanted[name]) for name, each in seen.items()):
        raise InvalidInputError(
            f"a value of field {field.id} was sealed for another row than this statement writes it into. Seal it for "
            "this one; or, where a listener changes a record or tenant during the flush, let it run before the "
            "sealing: event.listen(..., insert=True), or before_flush"
        )


def bound_to(field: Field) -> tuple[str, ...]:
    """Return the columns that a field's ciphertexts are bound to: those of the record, and the tenant's."""
    return (*field.record_columns, *filter(None, (field.tenant,)))


def _seen(statement: ValuesBase, column: Column[Any], row: Assignment) -> str | None:
    """Return the text of what a column of the row holds once it is written, or None where no one can see."""
    value = row.find(column)
    if value is None and isinstance(statement, Update):
        value = next((row.resolved(each) for each in _equal_to(column, statement._where_criteria)), None)
    if value is None or isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
        return None
    return record_text(as_held(kind_of(column, column), value))


def _equal_to(column: Column[Any], criteria: Any) -> Iterator[Any]:
    """Return the parameters that a column has to be equal to."""
    for each in criteria:
        if isinstance(each, BooleanClauseList) and each.operator is operators.and_:
            yield from _equal_to(column, each.clauses)
        elif isinstance(each, BinaryExpression) and each.operator is operators.eq:
            for own, other in ((each.left, each.right), (each.right, each.left)):
                if isinstance(other, BindParameter) and hash(own) == hash(column):
                    yield other
