"""Statements that would sort, group, compare or compute on ciphertext are refused.

A column's comparator sees its operators. Here is what no operator sees: ORDER BY, GROUP BY and DISTINCT, arguments of
functions, and comparisons in which the column stands on the right. Each statement is looked at once, where its compiled
form is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeGuard
from weakref import WeakSet

from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    Engine,
    Exists,
    FromClause,
    Insert,
    Label,
    Select,
    TypeCoerce,
    Update,
    event,
)
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    ClauseElement,
    ClauseList,
    ColumnClause,
    Grouping,
    Null,
    UnaryExpression,
    _label_reference,
    _textual_label_reference,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import CompoundSelect, GenerativeSelect, ScalarSelect, _CompoundSelectKeyword

from keystead.errors import InvalidInputError
from keystead.fields import Field
from keystead.integrations.sqlalchemy.binding import as_itself
from keystead.integrations.sqlalchemy.guard import refuse_nested
from keystead.integrations.sqlalchemy.type import EncryptedBytes

_THROUGH: Final = (BindParameter, ColumnClause, Exists, Grouping, Label, ScalarSelect, TypeCoerce, _label_reference)
"""What an encrypted column may stand in: none of these looks at what it holds."""
_KEEPS_ALL: Final = frozenset(
    {_CompoundSelectKeyword.UNION_ALL, _CompoundSelectKeyword.INTERSECT_ALL, _CompoundSelectKeyword.EXCEPT_ALL}
)
_CLAUSES: Final = {
    "_order_by_clauses": ("ORDER BY", "sort the loaded values, or by another column"),
    "_group_by_clauses": ("GROUP BY", "group the loaded values, or by another column"),
    "_distinct_on": ("DISTINCT ON", "compare the loaded values, or name another column"),
    "_where_criteria": ("WHERE", "ask for is_not(None), or search by .matches(value)"),
    "_having_criteria": ("HAVING", "ask for is_not(None), or search by .matches(value)"),
}
_COMPUTE: Final = (
    "do it with the loaded values. It is searched by ==, in_, .matches_normalised, .starts_with and .has_token; "
    "func.count and is_(None) work too, and type_coerce(column, LargeBinary) gives the bytes as they are"
)
_DISTINCT: Final = "select the whole entity, or the primary key along, or compare the loaded values"

_looked_at: Final[WeakSet[SQLCompiler]] = WeakSet()


def watch_uses() -> None:
    """Look at every statement of every engine."""
    if not event.contains(Engine, "before_cursor_execute", _look):
        event.listen(Engine, "before_cursor_execute", _look)


def refuse_misuse(statement: ClauseElement) -> None:
    """Raise ``InvalidInputError`` where a statement works on ciphertexts, or one within it writes them."""
    seen: dict[int, ClauseElement] = {}
    waiting: list[Any] = [statement]
    while waiting:
        element = waiting.pop()
        if id(element) in seen:
            continue
        # Kept along with its id, which another element would get once this one is gone.
        seen[id(element)] = element
        if isinstance(element, GenerativeSelect | Update | Delete):
            _check_clauses(element)
        if isinstance(element, Insert | Update):
            if element is not statement:
                refuse_nested(element)
        elif isinstance(element, ColumnElement):
            _check_operands(element)
        waiting.extend(element.get_children())


def _look(*given: Any) -> None:
    """Look at a statement that is about to be sent; see SQLAlchemy's event ``before_cursor_execute``."""
    context = given[4]
    compiled = context.compiled
    if not isinstance(compiled, SQLCompiler) or compiled in _looked_at:
        return
    # Of the ORM's statements the one that it made of them, with the columns and joins that are really sent.
    made: ClauseElement | None = getattr(compiled.compile_state, "statement", compiled.statement)
    if made is not None:
        refuse_misuse(made)
    _looked_at.add(compiled)


def _check_clauses(statement: Any) -> None:
    for name, (clause, cure) in _CLAUSES.items():
        for each in _flat(getattr(statement, name, None) or ()):
            field = _field_of(each)
            if field is None and isinstance(each, _textual_label_reference):
                field = _named(statement, each.element)
            if field is not None:
                _raise(field, clause, cure)
    if isinstance(statement, CompoundSelect):
        if statement.keyword not in _KEEPS_ALL:
            for select in statement.selects:
                _check_rows(getattr(select, "element", select), statement.keyword.value)
    elif getattr(statement, "_distinct", False) and not getattr(statement, "_distinct_on", ()):
        _check_rows(statement, "DISTINCT")


def _check_rows(select: Any, clause: str) -> None:
    """Refuse to compare rows by a ciphertext, which differs between equal values unless the row is the same."""
    if not isinstance(select, Select):
        return
    given: list[Any] = list(select._raw_columns)
    for each in given:
        field = _field_of(each)
        if field is not None and not _has_row(field, _unlabelled(each), given):
            _raise(field, clause, _DISTINCT)


def _has_row(field: Field, column: Any, given: list[Any]) -> bool:
    """Return whether the columns given say which row it is."""
    table = getattr(column, "table", None)
    if not isinstance(table, FromClause):
        return False
    if any(isinstance(each, FromClause) and each == table for each in given):
        return True
    names = {each.name for each in map(_unlabelled, given) if getattr(each, "table", None) == table}
    key = {each.name for each in table.primary_key}
    return names >= set(field.record_columns) or (bool(key) and names >= key)


def _check_operands(element: ColumnElement[Any]) -> None:
    if isinstance(element, _THROUGH):
        return
    if isinstance(element, FunctionElement) and getattr(element, "name", "").lower() == "count":
        return
    if isinstance(element, BinaryExpression) and isinstance(element.right, Null):
        return
    for operand in _flat(element.get_children()):
        field = _field_of(operand)
        if field is not None:
            _raise(field, _what(element), _COMPUTE)


def _flat(elements: Iterable[Any]) -> Iterator[Any]:
    """Yield elements without the parentheses, lists, references and directions around them."""
    for each in elements:
        if isinstance(each, ClauseList):
            yield from _flat(each.clauses)
        elif isinstance(each, Grouping | _label_reference) or _is_direction(each):
            yield from _flat((each.element,))
        else:
            yield each


def _is_direction(element: Any) -> TypeGuard[UnaryExpression[Any]]:
    return isinstance(element, UnaryExpression) and element.modifier is not None


def _field_of(element: Any) -> Field | None:
    if not isinstance(element, ColumnElement) or isinstance(element, BindParameter):
        return None
    return element.type.field if isinstance(element.type, EncryptedBytes) else None


def _named(statement: Any, name: str) -> Field | None:
    """Return the field of the column that ``order_by("name")`` means: one selected, else one of the tables."""
    select = statement
    while isinstance(select, CompoundSelect):
        select = getattr(select.selects[0], "element", select.selects[0])
    if not isinstance(select, Select):
        return None
    columns: dict[str, Any] = {}
    for table in select.columns_clause_froms:
        columns |= {each.name: each for each in table.c if isinstance(each, Column)} | dict(table.c.items())
    columns |= dict(select.selected_columns.items())
    return _field_of(columns.get(name))


def _unlabelled(element: Any) -> Any:
    while isinstance(element, Label):
        element = element.element
    return element


def _what(element: ColumnElement[Any]) -> str:
    if isinstance(element, FunctionElement):
        return f"function {getattr(element, 'name', '') or type(element).__name__}"
    if isinstance(element, BinaryExpression):
        return f"comparison {getattr(element.operator, '__name__', 'operator').removesuffix('_op')} with another column"
    return f"expression {element.__visit_name__}"


def _raise(field: Field, what: str, cure: str) -> None:
    raise as_itself(
        InvalidInputError(
            f"field {field.id} is encrypted, and {what} would see its ciphertext, which is another in each row; {cure}"
        )
    )
