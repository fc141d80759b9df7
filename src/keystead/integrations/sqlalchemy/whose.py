"""Whose a ciphertext is that a statement writes, and whose the row is that it goes into.

One that would not open there is refused before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from sqlalchemy import Column, Connection
from sqlalchemy.sql import operators
from sqlalchemy.sql.dml import Update, ValuesBase
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, ClauseElement

from keystead.errors import InvalidInputError
from keystead.fields import Encrypted, Field
from keystead.fields.field import record_text
from keystead.fields.held import as_held
from keystead.integrations.sqlalchemy.held import kind_of
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


class Assignment(NamedTuple):
    """What a statement writes into one row: values by the names of columns, and the parameters sent along."""

    values: Mapping[str, Any]
    sent: Mapping[str, Any]

    def find(self, names: tuple[str, ...]) -> Any:
        """Return what the column of these names is given; None where it is given nothing."""
        for name in names:
            if name in self.values:
                return self.resolved(self.values[name])
        return None

    def resolved(self, value: Any) -> Any:
        """Return a value, or what a parameter stands for."""
        return self.sent.get(value.key, value.effective_value) if isinstance(value, BindParameter) else value


class Bound(NamedTuple):
    """A column that ciphertexts are bound to, as one statement names it."""

    name: str
    names: tuple[str, ...]
    kind: type
    pinned: tuple[BindParameter[Any], ...]
    """What it has to be equal to in the rows that an UPDATE changes."""

    def seen(self, row: Assignment) -> str | None:
        """Return the text of what the column holds once the row is written, or None where no one can see."""
        value = row.find(self.names)
        if value is None and self.pinned:
            value = row.resolved(self.pinned[0])
        if value is None:
            return None
        if value.__class__ is not self.kind:
            if isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
                return None
            value = as_held(self.kind, value)
        return record_text(value)


def whose_is(record: object, tenant: str | None) -> Whose:
    """Return whose a value is, as it is compared."""
    return tuple(map(record_text, record if isinstance(record, tuple) else (record,))), tenant


def note_sealed(connection: Connection, box: Encrypted[Any], whose: Whose) -> None:
    """Remember whose value a flush sealed, until its row is written or the next transaction begins."""
    notes_of(connection, _SEALED)[id(box)] = (box, whose)


def forget_sealed(connection: Connection, box: object) -> Whose | None:
    """Forget it, once its row is written, and return whose it is, None for what was not sealed by this flush.

    A transaction may write more rows than memory holds.
    """
    noted: tuple[object, Whose] | None = notes_of(connection, _SEALED).pop(id(box), None)
    return None if noted is None else noted[1]


def _bounds(statement: ValuesBase, column: Column[Any], field: Field) -> list[Bound]:
    """Return the columns that a field's ciphertexts are bound to: those of the record, then the tenant's."""
    criteria = statement._where_criteria if isinstance(statement, Update) else ()
    found = []
    for name in bound_to(field):
        own = column_named(column.table, name)
        found.append(Bound(name, names_of(own), kind_of(column, own), tuple(_equal_to(own, criteria))))
    return found


def bound_to(field: Field) -> tuple[str, ...]:
    """Return the names of the columns that a field's ciphertexts are bound to."""
    return (*field.record_columns, *filter(None, (field.tenant,)))


def require_own(
    connection: Connection, statement: ValuesBase, column: Column[Any], field: Field, rows: Sequence[Assignment]
) -> None:
    """Refuse values that would not open in the rows they are written into.

    Raises:
        InvalidInputError: one is of another record or tenant; or it was taken from a row, or is for one that the
            statement does not name.
    """
    names, bounds = names_of(column), None
    for row in rows:
        value = row.find(names)
        if isinstance(value, SealedCiphertext | Encrypted):
            bounds = bounds or _bounds(statement, column, field)
            _require(connection, field, bounds, value, row)


def _require(
    connection: Connection, field: Field, bounds: list[Bound], value: SealedCiphertext | Encrypted[Any], row: Assignment
) -> None:
    is_prepared = isinstance(value, SealedCiphertext)
    if isinstance(value, SealedCiphertext):
        record, tenant = value.whose
    else:
        _, whose = notes_of(connection, _SEALED).get(id(value), (None, None))
        if whose is None:
            raise InvalidInputError(f"field {field.id} takes no value out of a row, which opens there alone; {_CURE}")
        record, tenant = whose
    for bound, wanted in zip(bounds, record if tenant is None else (*record, tenant), strict=True):
        seen = bound.seen(row)
        if seen is None and is_prepared:
            raise InvalidInputError(
                f"a value of field {field.id} was sealed for one row, which this statement does not name: give "
                f"{', '.join(bound_to(field))} along, as values or by == in WHERE"
            )
        if seen not in (None, wanted):
            raise InvalidInputError(
                f"a value of field {field.id} was sealed for another row than this statement writes it into. Seal it "
                "for this one; or, where a listener changes a record or tenant during the flush, let it run before the "
                "sealing: event.listen(..., insert=True), or before_flush"
            )


def _equal_to(column: Column[Any], criteria: Any) -> Iterator[BindParameter[Any]]:
    """Return the parameters that a column has to be equal to."""
    for each in criteria:
        if isinstance(each, BooleanClauseList) and each.operator is operators.and_:
            yield from _equal_to(column, each.clauses)
        elif isinstance(each, BinaryExpression) and each.operator is operators.eq:
            for own, other in ((each.left, each.right), (each.right, each.left)):
                if isinstance(other, BindParameter) and hash(own) == hash(column):
                    yield other
