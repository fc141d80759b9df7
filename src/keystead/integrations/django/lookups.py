"""What ``filter`` may ask of an encrypted field: each question goes to a blind index, every other one is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.core.exceptions import EmptyResultSet
from django.db.models.expressions import Subquery
from django.db.models.lookups import IsNull, Lookup

from keystead.crypto.normalise import normalise, tokens
from keystead.errors import InvalidInputError
from keystead.fields import Encrypted, Exact, Index, Normalised, Prefix, Tokens
from keystead.integrations.django.names import quoted
from keystead.integrations.django.tokens import records_with

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField


class OfTenant:
    """A value that is looked for among one tenant's: ``filter(email=of_tenant("ada@example.org", org))``."""

    __slots__ = ("tenant", "value")

    def __init__(self, value: Any, tenant: Any) -> None:
        self.value = value
        self.tenant = tenant

    def __repr__(self) -> str:
        return "<hidden>"


def of_tenant(value: Any, tenant: Any) -> OfTenant:
    """Return a value, or a list of values for ``in``, to be looked for among a tenant's.

    Args:
        value: what is looked for.
        tenant: what the tenant's column holds, or the object it refers to.
    """
    return OfTenant(value, tenant)


class Search(Lookup):
    """A lookup by blind indexes. The value is hashed when the statement is compiled, so that it meets the live keys.

    A hash stands in one of two columns by the parity of the index key's version, or in both during a rotation. Then
    ``(a = x OR b = y)`` finds it; ``coalesce(a = x, b = y)`` beside it is never NULL for a row that has a value, or
    ``exclude()`` would lose rows.
    """

    prepare_rhs = False
    is_search = True
    needs: ClassVar[type[Any]] = Exact
    works_in_clear = False

    def get_prep_lookup(self) -> OfTenant | None:
        """Return the value that is looked for, hidden from what shows a query's parts; None is asked for by isnull."""
        if self.rhs is None:
            return None
        sought = self.rhs if isinstance(self.rhs, OfTenant) else OfTenant(self.rhs, None)
        field = self.encrypted
        if hasattr(sought.value, "resolve_expression") or isinstance(sought.value, Encrypted):
            raise InvalidInputError(f"field {field} is compared with plain values; a hash of others is not known")
        if (sought.tenant is None) != (field.tenant is None):
            raise InvalidInputError(
                f"field {field} is indexed for each tenant: filter(...=of_tenant(value, tenant))"
                if sought.tenant is None
                else f"field {field} has no tenants"
            )
        if field.window is not None and not self.works_in_clear:
            raise InvalidInputError(
                f"field {field} is searched by exact and in alone while some of its rows are in clear; when they are "
                "encrypted, drop plaintext= from the declaration"
            )
        if not any(isinstance(index, self.needs) for index in field.indexes):
            raise InvalidInputError(
                f"field {field} has no index for {self.lookup_name}; declare it with indexes=[{self.needs.__name__}()]"
            )
        return OfTenant(self.prepared(sought.value), sought.tenant)

    def prepared(self, value: Any) -> Any:
        """Return the value that is looked for in the field's type."""
        return self.encrypted.to_plain(value)

    @property
    def encrypted(self) -> EncryptedField:
        """The field."""
        field: EncryptedField = self.lhs.target
        return field

    def index(self) -> Index:
        """Return the index that answers."""
        return next(index for index in self.encrypted.indexes if isinstance(index, self.needs))

    def hashes(self, value: Any) -> dict[int, bytes]:
        """Return the stored hash of a value under each live index key, by parity."""
        tenant = self.encrypted.owner.tenant_named(self.rhs.tenant)
        return self.encrypted.cipher.query_values(self.index(), value, tenant=tenant)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Return the comparison of the index columns."""
        return self.compared(compiler, connection, [self.rhs.value])

    def compared(self, compiler: Any, connection: Any, values: list[Any]) -> tuple[str, list[Any]]:
        """Return whether the value is one of some."""
        found: dict[int, list[bytes]] = {}
        for value in values:
            for parity, digest in self.hashes(value).items():
                found.setdefault(parity, []).append(digest)
        parts, params = [], []
        for parity, digests in found.items():
            column = self.column(compiler, self.index().column(self.encrypted.column, parity))
            places = ", ".join(["%s"] * len(digests))
            parts.append(f"{column} = %s" if len(digests) == 1 else f"{column} IN ({places})")
            params += digests
        if self.encrypted.window is not None:
            sql, more = self.encrypted.window.compared(self, compiler, connection, values)
            whole = f"coalesce({', '.join(parts)}, {sql})"
            own = self.lhs.name_sql(compiler)[0]
            return f"(({' OR '.join(parts)} OR ({own} IS NULL AND {sql})) AND {whole})", [
                *params,
                *more,
                *params,
                *more,
            ]
        if len(parts) == 1:
            return parts[0], params
        return f"(({' OR '.join(parts)}) AND coalesce({', '.join(parts)}))", params * 2

    def column(self, compiler: Any, name: str) -> str:
        """Return a column of the row that the encrypted one is of."""
        return quoted(compiler, self.lhs.alias, name)


class ExactSearch(Search):
    """``email="x"``: equal values."""

    lookup_name = "exact"
    works_in_clear = True


class InSearch(Search):
    """``email__in=[...]``: one of some values."""

    lookup_name = "in"
    works_in_clear = True

    def prepared(self, value: Any) -> Any:
        """Return the values that are looked for, without None, which equals nothing."""
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise InvalidInputError(f"the lookup in on field {self.encrypted} takes a list of values")
        members = [member for member in value if member is not None]
        return list(dict.fromkeys(map(self.encrypted.to_plain, members)))

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Return the comparison of the index columns."""
        if not self.rhs.value:
            raise EmptyResultSet
        return self.compared(compiler, connection, self.rhs.value)


class NormalisedSearch(Search):
    """``email__iexact="X"``: equal but for the spelling that the index overlooks."""

    lookup_name = "iexact"
    needs = Normalised


class PrefixSearch(Search):
    """``email__istartswith="ada"``: begins so, whatever the case. As many characters as the index covers."""

    lookup_name = "istartswith"
    needs = Prefix

    def index(self) -> Index:
        """Return the index of so many characters."""
        length = len(normalise(self.rhs.value))
        for index in self.encrypted.indexes:
            if isinstance(index, Prefix) and index.length == length:
                return index
        lengths = sorted(index.length for index in self.encrypted.indexes if isinstance(index, Prefix))
        raise InvalidInputError(
            f"field {self.encrypted} is searched by prefixes of {' or '.join(map(str, lengths))} characters; declare "
            f"Prefix(length={length or 3}) to search it by others"
        )


class TokenSearch(Search):
    """``note__has_token="tea"``: has the word, whatever its case."""

    lookup_name = "has_token"
    needs = Tokens

    def prepared(self, value: Any) -> Any:
        """Return the word."""
        if not isinstance(value, str) or len(tokens(value)) != 1:
            raise InvalidInputError(
                f"has_token on field {self.encrypted} takes one word; combine several lookups for more"
            )
        return value

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Return whether the row's record is among those that have the word."""
        found = records_with(self.encrypted, list(self.hashes(self.rhs.value).values()))
        sql, params = compiler.compile(Subquery(found))
        return f"{self.column(compiler, self.encrypted.owner.records[0].column)} IN {sql}", list(params)


class NullSearch(IsNull):
    """``email__isnull=True``: has no value."""

    is_search = True

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Return whether there is no ciphertext, and no value in clear either."""
        field: EncryptedField = self.lhs.target
        if field.encrypt_null:
            raise InvalidInputError(f"field {field} encrypts None too, so that nobody sees which rows hold nothing")
        own, params = self.lhs.name_sql(compiler)
        names = [own]
        if field.window is not None:
            names.append(quoted(compiler, self.lhs.alias, field.window.column))
        if self.rhs:
            return " AND ".join(f"{name} IS NULL" for name in names), params
        return "(" + " OR ".join(f"{name} IS NOT NULL" for name in names) + ")", params


_LOOKUPS: Final[dict[str, type[Lookup]]] = {
    found.lookup_name: found
    for found in (ExactSearch, InSearch, NullSearch, NormalisedSearch, PrefixSearch, TokenSearch)
}


def lookup_of(field: EncryptedField, name: str) -> Any:
    """Return the lookup of a name.

    Raises:
        InvalidInputError: it cannot be answered from ciphertext.
    """
    if name not in _LOOKUPS:
        raise InvalidInputError(
            f"field {field} is encrypted, and {name} cannot be answered from ciphertext. It is searched by exact, in "
            "(Exact), iexact (Normalised), istartswith (Prefix), has_token (Tokens) and isnull; whatever else has to "
            "be done with the loaded values"
        )
    return _LOOKUPS[name]
