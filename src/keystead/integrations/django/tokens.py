"""The table of a token index: one row for each word of a value, under each live index key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db import models

from keystead.integrations.django.record import default_record

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField

_QUOTE: Final = '"'


def add_token_model(field: EncryptedField) -> None:
    """Make the model of a field's words, so that migrations make its table; a row goes when its record goes."""
    owner: Any = field.model
    records = field.record or default_record(owner)
    if len(records) != 1:
        return  # which the system checks tell
    refers = models.ForeignKey(
        owner, models.CASCADE, to_field=records[0], db_column="record", related_name="+", serialize=False
    )
    meta = type(
        "Meta",
        (),
        {
            "app_label": owner._meta.app_label,
            "db_table": _table_of(field),
            "apps": owner._meta.apps,
            "managed": owner._meta.managed,
            "default_permissions": (),
            "verbose_name": f"word of {field.name} of {owner._meta.verbose_name}",
        },
    )
    type(
        _name_of(field),
        (models.Model,),
        {
            "__module__": owner.__module__,
            "__doc__": "Hashes of words, which the library writes.",
            "Meta": meta,
            "pk": models.CompositePrimaryKey("token", "record"),
            "token": models.BinaryField(serialize=False),
            "record": refers,
        },
    )


def _table_of(field: EncryptedField) -> str:
    """Return the name of the table, in quotes as the owner's where that names a schema."""
    owner = str(field.model._meta.db_table)
    name = f"{owner.removesuffix(_QUOTE)}_{field.column}_tokens"
    return name + _QUOTE if owner.endswith(_QUOTE) else name


def write_tokens(field: EncryptedField, using: str, words: list[tuple[Any, list[bytes]]]) -> None:
    """Replace the words of some records, given as their column holds them."""
    model = _model_of(field)
    own = model._base_manager.using(using)
    own.filter(record_id__in=[record for record, _ in words]).delete()
    own.bulk_create([model(token=token, record_id=record) for record, tokens in words for token in sorted(set(tokens))])


def records_with(field: EncryptedField, tokens: list[bytes]) -> Any:
    """Return a query for what names the records that have one of some words."""
    return _model_of(field)._base_manager.filter(token__in=tokens).order_by().values("record_id")


def _model_of(field: EncryptedField) -> Any:
    return field.model._meta.apps.get_model(field.model._meta.app_label, _name_of(field))


def _name_of(field: EncryptedField) -> str:
    return f"{field.model.__name__}{field.name.title().replace('_', '')}Tokens"
