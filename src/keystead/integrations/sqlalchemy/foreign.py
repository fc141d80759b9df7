"""Old values of another system in a table that is being converted: what an application may ask of them meanwhile."""

from __future__ import annotations

from typing import Any

from sqlalchemy import LargeBinary, String, TypeDecorator
from sqlalchemy.engine import Dialect

from keystead.errors import ConfigurationError, KMSError
from keystead.fields import Field, Importer
from keystead.integrations.sqlalchemy.binding import as_itself


class SoughtForm(TypeDecorator[Any]):
    """A ``Sought`` value in the one form that it has in the other system, to compare old values with."""

    impl = String
    cache_ok = True

    def __init__(self, importer: Importer, is_binary: bool) -> None:
        super().__init__()
        self.importer = importer
        self.is_binary = is_binary
        if is_binary:
            self.impl = LargeBinary()  # type: ignore[assignment]  # TypeDecorator's own __init__ puts an instance there

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return the form."""
        try:
            form = self.importer.form_of(value.value)
        except KMSError as exc:
            raise as_itself(exc) from None
        return form.encode() if self.is_binary else form


def require_importable(field: Field, importer: Importer, *, in_place: bool) -> None:
    """Refuse declarations of which old values could break the promise.

    Raises:
        ConfigurationError: an index is unique, and old values cannot be compared with new ones.
    """
    if any(index.unique for index in field.indexes) and (in_place or not importer.finds_equal):
        raise ConfigurationError(
            f"field {field.id} has a unique index and an importer, and old values in the form {importer.name} cannot "
            "be compared with new ones; declare the index without unique=True until all are re-encrypted, and keep the "
            "application's own check for so long"
        )


def cannot_be_sought(field: Field, importer: Importer) -> str:
    """Return why a search is refused while old values are there."""
    return (
        f"field {field.id} is not searched so while some of its rows are in the form {importer.name}, which an index "
        "does not find; when keystead.fields.reencrypt(..., importer=...) has converted them, drop importer= from the "
        "declaration"
    )
