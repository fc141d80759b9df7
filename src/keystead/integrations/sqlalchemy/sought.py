"""What a query looks for: a value that nothing shows, hashed when the statement runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import LargeBinary, TypeDecorator
from sqlalchemy.engine import Dialect

from keystead.errors import KMSError
from keystead.fields import Field, Index
from keystead.integrations.sqlalchemy.binding import as_itself, binding_of, refuse_literal


class Sought:
    """A value that is looked for, and whose. What shows a statement's parameters does not show it."""

    __slots__ = ("tenant", "value")

    def __init__(self, value: object, tenant: str | None) -> None:
        self.value = value
        self.tenant = tenant

    def __repr__(self) -> str:
        return "<hidden>"


class SoughtHash(TypeDecorator[Any]):
    """The hash of a ``Sought`` value under the live index key of one parity; NULL where there is none.

    Hashed when the statement runs, so that the statement and its cached form hold for any state of the keys.
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(self, field: Field, index: Index, parity: int) -> None:
        super().__init__()
        self.field = field
        self.index = index
        self.parity = parity

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Return what hashes."""
        inner = self.impl_instance.bind_processor(dialect)

        def hashed(sought: Sought) -> Any:
            cipher = binding_of(dialect).cipher(self.field)
            try:
                found = cipher.query_values(self.index, sought.value, tenant=sought.tenant).get(self.parity)
            except KMSError as exc:
                raise as_itself(exc) from None
            return inner(found) if inner and found is not None else found

        return hashed

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        """Return what refuses to write values into a statement's text."""
        return refuse_literal
