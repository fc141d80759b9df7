"""An encrypted column in a query: selected as it is, and refused where the database would work on its ciphertext."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from django.db.models import Count
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import Col, OrderBy
from django.db.models.sql.compiler import SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler

from keystead.errors import InvalidInputError
from keystead.integrations.django.names import quoted

_CURE = (
    "do it with the loaded values. It is searched by exact, in and isnull, and by what its indexes are declared for; "
    "Count works too"
)
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

    def _is_grouped_with_key(self, query: Any) -> bool:
        grouped = query.group_by if isinstance(query.group_by, tuple | list) else ()
        return any(each is self for each in grouped) and self._has_key(grouped)

    def _has_key(self, columns: Any) -> bool:
        """Return whether columns tell the row."""
        own = {each.target for each in columns if isinstance(each, Col) and each.alias == self.alias}
        return own >= set(self.target.model._meta.pk_fields) or own >= set(self.target.owner.records)


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
