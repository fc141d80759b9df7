"""Values on their way into the database: in an INSERT as bytes, in an UPDATE as a part of its SET clause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db.models.expressions import Case, Expression
from django.db.models.sql.subqueries import UpdateQuery

from keystead.errors import InvalidInputError
from keystead.integrations.django.names import quoted
from keystead.integrations.django.record import Whose

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField

_BATCH: Final = "_keystead_sealed"
WORDS: Final = "_keystead_words"
"""Where an object that is being saved keeps the hashes of words, by field, until its row is written."""


class Under:
    """The versions of the index keys that some values were hashed under, and the connection that was told of them."""

    __slots__ = ("told", "versions")

    def __init__(self, versions: frozenset[int]) -> None:
        self.versions = versions
        self.told: Any = None


class Sealed:
    """What one sealing of a value gives.

    ``beside`` is what the columns beside it hold, by their names; ``words`` are the hashes of its words, where they are
    indexed.
    """

    __slots__ = ("beside", "ciphertext", "under", "whose", "words")

    def __init__(
        self,
        ciphertext: bytes | None,
        beside: dict[str, bytes | None],
        whose: Whose,
        under: Under,
        words: list[bytes] | None,
    ) -> None:
        self.ciphertext = ciphertext
        self.beside = beside
        self.whose = whose
        self.under = under
        self.words = words


class Prepared:
    """An object's value in an INSERT. With it all values are sealed that the statement inserts into the column.

    An INSERT takes it for an expression, and so shows itself before it takes the bytes.
    """

    __slots__ = ("field", "instance", "sealed")

    contains_column_references = contains_aggregate = contains_over_clause = False

    def __init__(self, field: EncryptedField, instance: Any, sealed: Sealed | None = None) -> None:
        self.field = field
        self.instance = instance
        self.sealed = sealed

    def resolve_expression(self, query: Any, *given: Any, **options: Any) -> Prepared:
        """Return itself, sealed.

        Raises:
            InvalidInputError: the statement would write it into a row that is there.
        """
        if self.sealed is None:
            batch: dict[Any, dict[int, Sealed]] = query.__dict__.setdefault(_BATCH, {})
            sealed = batch.get(self.field)
            if sealed is None:
                if query.update_fields:
                    self._refuse_upsert({field.column for field in query.update_fields})
                together = query.objs if self.field.is_settled else [self.instance]
                sealed = dict(zip(map(id, together), self.field.take_all(together), strict=True))
                if self.field.is_settled:
                    batch[self.field] = sealed
            self.sealed = sealed[id(self.instance)]
        return self

    def _refuse_upsert(self, columns: set[str]) -> None:
        spec = self.field.spec
        if columns & {spec.column, *spec.index_columns, *spec.owner_columns}:
            raise InvalidInputError(
                f"field {self.field} cannot be set by an upsert, nor what it is bound to: it does not know the row it "
                "meets. save() the objects that are there, or keystead.integrations.django.bulk_update them"
            )


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
        sealed = self.sealed_for(compiler, connection)
        if sealed is None:
            return quoted(compiler, self.encrypted.column), []
        self.encrypted.note_written(connection, sealed.under)
        if not isinstance(compiler.query, UpdateQuery):
            return "%s", [sealed.ciphertext]
        written = {field.column for field, _, _ in compiler.query.values}
        parts, params = ["%s"], [sealed.ciphertext]
        for column, value in sealed.beside.items():
            if column not in written:
                parts.append(f"{quoted(compiler, column)} = %s")
                params.append(value)
        return ", ".join(parts), params

    def sealed_for(self, compiler: Any, connection: Any) -> Sealed | None:
        """Return what is written; None where the value stays.

        It is written where the statement writes what it is bound to as well, which may be another in the row by now;
        and in another database than it was loaded from.
        """
        if self._sealed is None and (
            connection.alias != self._instance._state.db
            or any(field in self.encrypted.owner.movable for field, _, _ in compiler.query.values)
        ):
            self._sealed = self.encrypted.take(self._instance)
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
                sealed = value.sealed_for(compiler, connection)
                if sealed is not None:
                    return "%s", [sealed.beside[self._column]]
        return quoted(compiler, self._column), []


class SealedCase(Case):
    """The values of many rows in one UPDATE, each sealed for the row it goes into."""

    encrypted: EncryptedField

    def as_sql(self, compiler: Any, connection: Any, **options: Any) -> tuple[str, Any]:
        """Return the statement's part, of the column's type also where every row gets NULL."""
        sql, params = super().as_sql(compiler, connection, **options)
        return f"CAST({sql} AS {self.output_field.db_type(connection)})", params


class InRaw:
    """What an object's attribute gives while a fixture is saved, which asks fields nothing."""

    __slots__ = ("box", "write")

    def __init__(self, write: Write, box: Any) -> None:
        self.write = write
        self.box = box
