"""An encrypted column in a query: selected, and refused where the database would work on its ciphertext.

An object takes its ciphertext as it is. A row of ``values()`` takes it packed with what names its record, to be opened
when the row is read; see ``packed``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NoReturn
from weakref import WeakValueDictionary

from django.db.models import Count
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import Col, OrderBy
from django.db.models.sql.compiler import SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler

from keystead.errors import InvalidInputError
from keystead.integrations.django.names import quoted
from keystead.integrations.django.packed import packed_sql, unpacked

_CURE = (
    "do it with the loaded values. It is searched by exact, in and isnull, and by what its indexes are declared for; "
    "Count works too"
)
_PACKED: Final = "_keystead_packed"
"""In a connection: the columns that its last statement selects packed, by their ids.

What was packed is told by this alone, never by what the database gives: that may have been written by anybody.
"""
_WRITING = (SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler)


class EncryptedCol(Col):
    """See the module. Comparisons never come here: the lookups of an encrypted field name its index columns."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Return the column's name, where it is only selected.

        Raises:
            InvalidInputError: it is sorted, grouped, compared or computed with.
        """
        if isinstance(compiler, _WRITING):
            self.refuse("an expression of it")
        if compiler.select is None:  # its columns are being put together
            self._look_at(compiler.query)
        elif not self._is_grouped_with_key(compiler.query):
            self.refuse("ORDER BY, GROUP BY, a function or a comparison with another column")
        return self.name_sql(compiler)

    def name_sql(self, compiler: Any) -> tuple[str, list[Any]]:
        """Return the column's name."""
        return quoted(compiler, self.alias, self.target.column), []

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        """Return what is selected: the column, or what ``values()`` opens."""
        query = compiler.query
        if compiler.select is not None or query.subquery:
            return sql, params
        notes = compiler.connection.__dict__.setdefault(_PACKED, WeakValueDictionary())
        if not self._is_value(query):
            notes.pop(id(self), None)
            return sql, params
        notes[id(self)] = self
        return packed_sql(self.target, compiler, self.alias, sql), params

    def get_db_converters(self, connection: Any) -> list[Any]:
        """Return what takes the column of a row as it was selected."""
        if connection.__dict__.get(_PACKED, {}).get(id(self)) is self:
            return [partial(_opened, self.target)]
        converters: list[Any] = super().get_db_converters(connection)
        return converters

    def get_group_by_cols(self) -> list[Any]:
        """Return nothing: its row's key is grouped by, of which it follows."""
        return []

    def refuse(self, what: str) -> NoReturn:
        """Raise ``InvalidInputError``."""
        raise InvalidInputError(
            f"field {self.target} is encrypted, and {what} would see its ciphertext, which is another in each row; "
            f"{_CURE}"
        )

    def _look_at(self, query: Any) -> None:
        """Refuse what compares or computes with selected columns without naming them again."""
        for annotation in query.annotation_select.values():
            for column in _computed_with(annotation):
                column.refuse(f"{type(annotation).__name__}")
        for name in map(_sorted_by, query.order_by):
            selected = (query.selected or {}).get(name, name)
            column = query.select[selected] if isinstance(selected, int) else query.annotations.get(selected)
            if isinstance(column, EncryptedCol):
                column.refuse("ORDER BY")
        for name in query.distinct_fields:
            path = query.names_to_path(name.split(LOOKUP_SEP), query.get_meta())
            if isinstance(path[1].get_col(query.get_initial_alias()), EncryptedCol):
                self.refuse("DISTINCT ON")
        if query.distinct and not query.distinct_fields and not query.default_cols and not self._has_key(query.select):
            self.refuse("DISTINCT")

        if query.combinator:
            self._look_at_parts(query)

    def _look_at_parts(self, query: Any) -> None:
        """Refuse to compare rows of several queries by a ciphertext, and to take one column for another."""
        if not _gives_values(query):
            if any(_gives_values(part) for part in query.combined_queries):
                self.refuse(f"{query.combinator} of objects and values()")
            return
        if not (query.combinator == "union" and query.combinator_all) and not self._has_key(query.select):
            self.refuse(query.combinator.upper())
        own = _targets(query)
        for part in query.combined_queries:
            if (part.model is not query.model) if not _gives_values(part) else _targets(part) != own:
                self.refuse(f"{query.combinator} with other columns")

    def _is_value(self, query: Any) -> bool:
        """Return whether ``values()`` or ``values_list()`` asked for the column, and each row has its own record."""
        if not _gives_values(query):
            return False
        if not query.group_by:
            return True
        grouped = {each.target for each in query.group_by if isinstance(each, Col) and each.alias == self.alias}
        return grouped >= set(self.target.model._meta.pk_fields)

    def _is_grouped_with_key(self, query: Any) -> bool:
        grouped = query.group_by if isinstance(query.group_by, tuple | list) else ()
        return any(each is self for each in grouped) and self._has_key(grouped)

    def _has_key(self, columns: Any) -> bool:
        """Return whether columns tell the row."""
        own = {each.target for each in columns if isinstance(each, Col) and each.alias == self.alias}
        return own >= set(self.target.model._meta.pk_fields) or own >= set(self.target.owner.records)


def _gives_values(query: Any) -> bool:
    return bool(query.values_select) or query.selected is not None


def _targets(query: Any) -> list[Any]:
    """Return the encrypted fields in the places where a query selects them, None elsewhere."""
    if query.selected is None:
        columns = query.select
    else:
        columns = [
            query.select[each] if isinstance(each, int) else query.annotations[each] if isinstance(each, str) else each
            for each in query.selected.values()
        ]
    return [each.target if isinstance(each, EncryptedCol) else None for each in columns]


def _opened(field: Any, value: Any, expression: Any, connection: Any) -> Any:
    return unpacked(field, value)


def _sorted_by(given: Any) -> str | None:
    """Return the name that a member of ``order_by`` gives, which may be that of a selected column."""
    while isinstance(given, OrderBy):
        given = given.expression
    return given.lstrip("-+") if isinstance(given, str) else getattr(given, "name", None)


def _computed_with(expression: Any, *, is_within: bool = False) -> Iterator[EncryptedCol]:
    """Yield the encrypted columns that an expression works on."""
    if isinstance(expression, EncryptedCol):
        if is_within:
            yield expression
    elif not getattr(expression, "is_search", False) and not (
        isinstance(expression, Count) and not expression.distinct
    ):
        for each in getattr(expression, "get_source_expressions", list)():
            if each is not None:
                yield from _computed_with(each, is_within=True)
