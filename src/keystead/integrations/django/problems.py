"""What is wrong with the declaration of an encrypted field, as Django's system checks tell it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from django.core import checks

from keystead.errors import KMSError
from keystead.integrations.django.record import default_record

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField

_SUPPORTED: Final = ("sqlite", "postgresql")


def problems_of(field: EncryptedField) -> list[checks.CheckMessage]:
    """Return the errors and warnings of one field."""
    found: list[checks.CheckMessage] = []

    def error(number: int, message: str, hint: str | None = None) -> None:
        found.append(checks.Error(message, hint=hint, obj=field, id=f"keystead.E{number:03}"))

    try:
        spec, window = field.spec, field.window
    except KMSError as exc:
        error(1, str(exc))
        return found
    if field.choices is None and any(index.many for index in field.indexes) and len(spec.record_columns) != 1:
        error(2, f"field {spec.id} has Tokens() and several record columns", "declare record= as one unique field")
    for column in field.owner.columns:
        if _moves(column):
            error(
                3,
                f"field {spec.id} is bound to {column}, which its foreign key changes when the other row is deleted",
                "use on_delete=CASCADE, PROTECT or RESTRICT, or bind the field to a column that stays",
            )
    if window is not None and not (field.null and window.plain.null):
        error(4, f"field {spec.id} is being encrypted, and it or {window.column} is not nullable", "null=True for both")
    if not field.record and default_record(field.model) == ("keystead_row",) and _lacks_row_key(field):
        error(5, f"field {spec.id} has no record that is known before the insert", "add keystead_row = RowKeyField()")
    for what in _compared(field):
        error(
            7, f"field {spec.id} is encrypted, and {what} would compare its ciphertext", "declare indexes= on the field"
        )
    return found


def _compared(field: EncryptedField) -> Iterator[str]:
    """Yield what the model's options would have the database do with the field's column."""
    meta = field.model._meta
    if any(str(name).lstrip("-+") == field.name for name in meta.ordering):
        yield "Meta.ordering"
    if any(field.name in names for names in meta.unique_together):
        yield "Meta.unique_together"
    for each in (*meta.indexes, *meta.constraints):
        if any(str(name).lstrip("-") == field.name for name in getattr(each, "fields", ())):
            yield f"{type(each).__name__} {each.name}"


def _moves(column: Any) -> bool:
    remote = column.remote_field
    return remote is not None and getattr(remote.on_delete, "__name__", "") in (
        "SET_NULL",
        "SET_DEFAULT",
        "set_on_delete",
    )


def _lacks_row_key(field: EncryptedField) -> bool:
    return "keystead_row" not in {each.name for each in field.model._meta.local_fields}
