"""What ``where`` may ask of an encrypted column: each question goes to a blind index, every other one is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    LargeBinary,
    TypeDecorator,
    and_,
    bindparam,
    func,
    not_,
    or_,
    type_coerce,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, ClauseElement, ColumnClause, Null

from keystead.crypto.codec import encode_value
from keystead.crypto.normalise import normalise, tokens
from keystead.errors import InvalidInputError
from keystead.fields import Encrypted, Exact, Field, Importer, Index, Normalised, Prefix, Tokens
from keystead.integrations.sqlalchemy.foreign import SoughtForm, cannot_be_sought
from keystead.integrations.sqlalchemy.sought import Sought, SoughtHash
from keystead.integrations.sqlalchemy.tokens import found_by_token
from keystead.integrations.sqlalchemy.window import is_in_clear, tenant_is

if TYPE_CHECKING:
    from keystead.integrations.sqlalchemy.type import EncryptedBytes


class EncryptedComparator(TypeDecorator.Comparator[Any]):
    """The operators and methods of an encrypted column.

    A value's hash stands in one of two columns by the parity of the index key's version, or in both during a rotation.
    ``(a = x OR b = y)`` finds it by their indexes; ``coalesce(a = x, b = y)`` beside it is never NULL for a row that
    has a value, without which ``not_()`` around a comparison would lose rows.
    """

    __slots__ = ()

    def operate(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        """Answer ``==``, ``!=``, ``in_`` and ``is_(None)``; refuse every other operator."""
        given: Any = other[0] if other else None
        if op in _OF_NULL and _is_none(given):
            return self._null(op, *other, **kwargs)
        if op in _OF_NULL and isinstance(given, ColumnElement) and _is_column(given, self.expr):
            # SQLAlchemy looks columns up so in its own lists and dictionaries. Sent, it is refused.
            return super().operate(op, *other, **kwargs)
        if op is operators.eq:
            return self.matches(given)
        if op is operators.ne:
            return not_(self.matches(given))
        if op is operators.in_op:
            return self.matches_any(given)
        if op is operators.not_in_op:
            return not_(self.matches_any(given))
        raise InvalidInputError(self._refusal(op))

    def reverse_operate(self, op: Any, other: Any, **kwargs: Any) -> ColumnElement[Any]:
        """Refuse: no operator takes an encrypted column on its right."""
        raise InvalidInputError(self._refusal(op))

    def matches(self, value: object, *, tenant: object = None) -> ColumnElement[bool]:
        """Return whether the value is ``value``. Needs ``Exact()``.

        ``tenant`` is what the tenant's column holds, or the text of it: an int, a UUID or a date is its own text.

        Raises:
            InvalidInputError: no such index, a value of another type, or a tenant missing, too many or naming none.
        """
        if _is_none(value):
            return self._null(operators.is_, None)
        return self._equal(self._index(Exact, "Exact()"), value, tenant)

    def matches_any(self, values: Iterable[object], *, tenant: object = None) -> ColumnElement[bool]:
        """Return whether the value is one of ``values``. Needs ``Exact()``; errors as ``matches``."""
        if isinstance(values, str | bytes | ClauseElement) or hasattr(values, "__clause_element__"):
            raise InvalidInputError(f"in_() on field {self._field.id} takes a list of values")
        index, whose = self._index(Exact, "Exact()"), self._whose(tenant)
        sought = [self._sought(value, whose) for value in values]
        found = [self._column(index, parity).in_(self._bind(index, parity, sought)) for parity in (0, 1)]
        return self._either(
            found,
            lambda old, kind: old.in_(bindparam(None, sought, type_=kind, expanding=True, unique=True)),
            whose,
        )

    def matches_normalised(self, value: str, *, tenant: object = None) -> ColumnElement[bool]:
        """Return whether the value is ``value`` but for its spelling. Needs ``Normalised()``; errors as ``matches``."""
        return self._equal(self._index(Normalised, "Normalised()"), value, tenant)

    def starts_with(self, value: str, *, tenant: object = None) -> ColumnElement[bool]:
        """Return whether the value begins with ``value``, whatever its case. Needs ``Prefix(length=len(value))``.

        Raises:
            InvalidInputError: as ``matches``, or no index of that length.
        """
        field = self._field
        length = len(normalise(value)) if isinstance(value, str) else 0
        for index in field.indexes:
            if isinstance(index, Prefix) and index.length == length:
                self._require_all()
                return self._equal(index, value, tenant)
        lengths = sorted(index.length for index in field.indexes if isinstance(index, Prefix))
        raise InvalidInputError(
            f"field {field.id} is searched by prefixes of {' or '.join(map(str, lengths)) or 'no'} characters; declare "
            f"Prefix(length={length or 3}) to search it by others"
        )

    def has_token(self, word: str, *, tenant: object = None) -> ColumnElement[bool]:
        """Return whether the value has the word ``word``, whatever its case. Needs ``Tokens()``.

        Raises:
            InvalidInputError: as ``matches``, or not exactly one word.
        """
        index = self._index(Tokens, "Tokens()")
        if not isinstance(word, str) or len(tokens(word)) != 1:
            raise InvalidInputError(
                f"has_token on field {self._field.id} takes one word; combine several with and_() or or_()"
            )
        sought = self._sought(word, self._whose(tenant))
        place = self._type.place
        if place is None or place.tokens is None:
            raise InvalidInputError(f"field {self._field.id} is searched by words through its mapped class alone")
        return found_by_token(self, self._field, place.tokens, [self._bind(index, parity, sought) for parity in (0, 1)])

    def column(self, name: str) -> ColumnElement[Any]:
        """Return the column ``name`` of the row that this column is of: of the table, or its alias.

        Raises:
            InvalidInputError: it was not selected along.
        """
        table = getattr(self.expr, "table", None)
        if isinstance(table, FromClause):
            own: ColumnElement[Any] | None = table.c.get(name)
            if own is not None:
                return own
            place = self._type.place
            found: ColumnElement[Any] | None = (
                None if place is None else table.corresponding_column(place.table.c[name])
            )
            if found is not None:
                return found
        raise InvalidInputError(
            f"field {self._field.id} is searched by column {name!r}, which this subquery does not have; search before "
            "making the subquery, or select that column along"
        )

    def _equal(self, index: Index, value: object, tenant: object) -> ColumnElement[bool]:
        whose = self._whose(tenant)
        sought = self._sought(value, whose)
        found = [self._column(index, parity) == self._bind(index, parity, sought) for parity in (0, 1)]
        return self._either(found, lambda old, kind: old == bindparam(None, sought, type_=kind, unique=True), whose)

    def _either(
        self,
        found: Sequence[ColumnElement[bool]],
        old: Callable[[ColumnElement[Any], TypeDecorator[Any]], ColumnElement[bool]],
        tenant: str | None,
    ) -> ColumnElement[bool]:
        """Return whether one of the hashes is found, or else the value in clear, or in another system's form."""
        place = self._type.place
        importer = None if place is None else place.importer
        if place is not None and importer is not None:
            self._require_found(importer)
            form = old(type_coerce(self.expr, LargeBinary), SoughtForm(importer, True))
            if place.field.tenant is not None and tenant is not None:
                form = and_(form, tenant_is(self.column(place.field.tenant), tenant))
            return and_(or_(*found, form), func.coalesce(*found, form))
        if place is None or place.window is None:
            return and_(or_(*found), func.coalesce(*found))
        window = place.window
        self._require_found(window.importer)
        plain = old(self.column(window.column.key), window.sought)
        whose = None if window.tenant is None or tenant is None else (self.column(window.tenant.key), tenant)
        return and_(or_(*found, is_in_clear(self.expr, plain, whose)), func.coalesce(*found, plain))

    def _null(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        """Return whether there is no value, or is one."""
        found = super().operate(op, *other, **kwargs)
        place = self._type.place
        if place is None or place.window is None:
            return found
        plain = self.column(place.window.column.key)
        if op in (operators.eq, operators.is_):
            return and_(found, plain.is_(None))
        return or_(found, plain.is_not(None))

    def _bind(self, index: Index, parity: int, sought: Any) -> BindParameter[Any]:
        kind = SoughtHash(self._field, index, parity)
        return bindparam(None, sought, type_=kind, unique=True, expanding=isinstance(sought, list))

    def _column(self, index: Index, parity: int) -> ColumnElement[Any]:
        return self.column(index.column(self._field.column, parity))

    def _sought(self, value: object, tenant: str | None) -> object:
        field = self._field
        if isinstance(value, Encrypted | ClauseElement) or hasattr(value, "__clause_element__"):
            raise InvalidInputError(f"field {field.id} is compared with plain values; a hash of others is not known")
        encode_value(value, field.value_type)
        return Sought(value, tenant)

    def _whose(self, tenant: object) -> str | None:
        """Return the text that names a tenant: of what its column holds, as the flush makes it, or as it was given."""
        field = self._field
        if (tenant is None) != (field.tenant is None):
            raise InvalidInputError(
                f"field {field.id} has no tenants"
                if tenant is not None
                else f"field {field.id} is indexed for each tenant: use .matches(value, tenant=...), or .matches_any, "
                ".matches_normalised, .starts_with or .has_token with tenant="
            )
        return field.read_tenant(tenant)

    def _index(self, kind: type[Index], spelling: str) -> Index:
        for index in self._field.indexes:
            if isinstance(index, kind):
                if kind is not Exact:
                    self._require_all()
                return index
        raise InvalidInputError(
            f"field {self._field.id} has no index for this search; declare it with indexes=[{spelling}]"
        )

    def _require_all(self) -> None:
        """Refuse a search that would not find rows in clear."""
        place = self._type.place
        importer = None if place is None else place.importer
        if place is not None and place.window is not None:
            importer = place.window.importer
        if importer is not None:
            raise InvalidInputError(cannot_be_sought(self._field, importer))
        if place is not None and place.window is not None:
            raise InvalidInputError(
                f"field {self._field.id} is searched by == and in_ alone while some of its rows are in clear; when "
                f"{place.window.job} has encrypted them, drop plaintext= from the declaration"
            )

    def _require_found(self, importer: Importer | None) -> None:
        """Refuse a search that would not find rows in another system's form."""
        if importer is not None and not importer.finds_equal:
            raise InvalidInputError(cannot_be_sought(self._field, importer))

    def _refusal(self, op: Any) -> str:
        name = getattr(op, "__name__", str(op)).removesuffix("_op")
        return (
            f"field {self._field.id} is encrypted, and {name} cannot be answered from ciphertext. It is searched by "
            "==, != and in_ (Exact), .matches_normalised (Normalised), .starts_with (Prefix), .has_token (Tokens) and "
            "is_(None); whatever else has to be done with the loaded values"
        )

    @property
    def _type(self) -> EncryptedBytes:
        return self.expr.type  # type: ignore[return-value]  # made by this type alone

    @property
    def _field(self) -> Field:
        field = self._type.field
        if field is None:
            raise InvalidInputError("an encrypted column can be searched once its class has been mapped")
        return field


_OF_NULL = frozenset({operators.eq, operators.ne, operators.is_, operators.is_not})


def _is_column(given: ColumnElement[Any], own: ColumnElement[Any]) -> bool:
    return isinstance(given, ColumnClause) or hash(given) == hash(own)


def _is_none(value: object) -> bool:
    return value is None or isinstance(value, Null)
