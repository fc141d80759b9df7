"""Values on their way into the database: in an INSERT as bytes, in an UPDATE as a part of its SET clause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.db.models.expressions import Case, Expression
from django.db.models.sql.subqueries import UpdateQuery

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField

WORDS: Final = "_keystead_words"
"""Where an object that is being saved keeps the hashes of words, by field, until its row is written."""


class Prepared:
    """A ciphertext, or NULL, that was sealed for the row it goes into."""

    __slots__ = ("ciphertext",)

    def __init__(self, ciphertext: bytes | None) -> None:
        self.ciphertext = ciphertext


class Sealed:
    """What one sealing of a value gives: the ciphertext, and what the columns beside it hold, by their names."""

    __slots__ = ("beside", "ciphertext", "whose")

    def __init__(
        self, ciphertext: bytes | None, beside: Mapping[str, bytes | None], whose: tuple[object, str | None]
    ) -> None:
        self.ciphertext = ciphertext
        self.beside = beside
        self.whose = whose


class _Assignment(Expression):
    """A value of an UPDATE that the compiler takes as an expression."""

    def resolve_expression(self, query: Any = None, *given: Any, **options: Any) -> Any:
        """Return itself: there is nothing to resolve."""
        return self

    def get_source_expressions(self) -> list[Any]:
        """Return nothing: it reads no other column."""
        return []


class Write(_Assignment):
    """An object's value in an UPDATE. One that was loaded and not changed stays as the database has it by then.

    It brings the columns beside it along where ``update_fields`` left them out, and finds no row that has another
    record or tenant by now than the value was sealed for.
    """

    def __init__(self, field: EncryptedField, instance: Any, sealed: Sealed | None) -> None:
        super().__init__(output_field=field)
        self.encrypted = field
        self._instance = instance
        self._sealed = sealed

    def resolve_expression(self, query: Any = None, *given: Any, **options: Any) -> Any:
        """Return itself, and see to the row once all that the statement writes is known."""
        if isinstance(query, UpdateQuery) and self._sealed is not None:
            self._require_own(query)
        return self

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Return the right side of the assignment, and further assignments where they are missing."""
        sealed = self.sealed_for(connection)
        if sealed is None:
            return compiler.quote_name_unless_alias(self.encrypted.column), []
        self.encrypted.note_place(connection)
        if not isinstance(compiler.query, UpdateQuery):
            return "%s", [sealed.ciphertext]
        written = {field.column for field, _, _ in compiler.query.values}
        parts, params = ["%s"], [sealed.ciphertext]
        for column, value in sealed.beside.items():
            if column not in written:
                parts.append(f"{compiler.quote_name_unless_alias(column)} = %s")
                params.append(value)
        return ", ".join(parts), params

    def sealed_for(self, connection: Any) -> Sealed | None:
        """Return what is written; None where the value stays. In another database than it was loaded from it goes."""
        if self._sealed is None and connection.alias != self._instance._state.db:
            self._sealed = self.encrypted.sealed(self._instance)
        return self._sealed

    def _require_own(self, query: Any) -> None:
        written = {field for field, _, _ in query.values}
        if self.encrypted not in written or self._sealed is None:
            return  # still being put together
        for field in self.encrypted.owner.columns:
            if field not in written and not field.primary_key:
                held = getattr(self._instance, field.attname)
                query.where.add(field.get_lookup("exact")(field.get_col(query.base_table), held), "AND")


class Beside(_Assignment):
    """A column beside an encrypted one, an index hash or a value in clear, in an UPDATE: it goes with the value."""

    def __init__(self, field: Any, encrypted: EncryptedField) -> None:
        super().__init__(output_field=field)
        self._column = field.column
        self._encrypted = encrypted

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Return what stands beside the value that the same statement writes, or the column itself."""
        for field, _, value in compiler.query.values:
            if field is self._encrypted and isinstance(value, Write):
                sealed = value.sealed_for(connection)
                if sealed is not None:
                    return "%s", [sealed.beside[self._column]]
        return compiler.quote_name_unless_alias(self._column), []


class SealedCase(Case):
    """The values of many rows in one UPDATE, each sealed for the row it goes into."""

    encrypted: EncryptedField


class InRaw:
    """What an object's attribute gives while a fixture is saved, which asks fields nothing."""

    __slots__ = ("box", "write")

    def __init__(self, write: Write, box: Any) -> None:
        self.write = write
        self.box = box
