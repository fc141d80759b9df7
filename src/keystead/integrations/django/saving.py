"""What has to be done around an object's ``save()``, by Django's signals."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import router, transaction
from django.db.models.signals import class_prepared, post_save, pre_save

from keystead.errors import InvalidInputError
from keystead.fields.row_keys import ROW_KEY
from keystead.integrations.django.attribute import MOVED, encrypted_fields
from keystead.integrations.django.box import Box
from keystead.integrations.django.field import EncryptedField
from keystead.integrations.django.sealed import WORDS, InRaw, Write
from keystead.integrations.django.tokens import write_tokens


def watch(sender: Any, **signal: Any) -> None:
    """Hear of the saving of objects of a model that has encrypted fields, its own or of its parents."""
    fields = [each for each in sender._meta.concrete_fields if isinstance(each, EncryptedField)]
    if not fields:
        return
    pre_save.connect(before, sender=sender)
    post_save.connect(after, sender=sender)
    if any(index.many for field in fields for index in field.indexes):
        sender.save_base = _in_one_transaction(sender.save_base)


def before(sender: Any, instance: Any, raw: bool, using: str, update_fields: Any, **signal: Any) -> None:
    """See that nothing is left behind that would not open, and seal what a fixture gives."""
    data = instance.__dict__
    data[WORDS] = {}
    if instance._state.adding or instance._state.__dict__.get(MOVED):
        _adopt_row_keys(instance, using)
    for field in encrypted_fields(type(instance)):
        if field.window is not None and (update_fields is None or field.name in update_fields):
            field.window.take_out(instance)
        box = data.get(field.attname)
        if update_fields is not None and not {field.name, field.attname} & update_fields:
            _require_still(field, instance, box)
        if raw:
            sealed = field.take(instance)
            data[field.attname] = InRaw(Write(field, instance, sealed), data[field.attname])


def after(sender: Any, instance: Any, raw: bool, using: str, **signal: Any) -> None:
    """Write the words of what was saved."""
    data = instance.__dict__
    for field in encrypted_fields(type(instance)):
        held = data.get(field.attname)
        if isinstance(held, InRaw):
            data[field.attname] = held.box
        tokens = data.get(WORDS, {}).get(field.name)
        if tokens is not None:
            write_tokens(field, using, [(getattr(instance, field.owner.attnames[0]), tokens)])
    data.pop(WORDS, None)
    instance._state.__dict__.pop(MOVED, None)


def _adopt_row_keys(instance: Any, using: str) -> None:
    """Give an object that is to replace a row, by its primary key, that row's row key: its words name it by that."""
    for model in {field.model for field in encrypted_fields(type(instance))}:
        key = getattr(instance, model._meta.pk.attname)
        if key is not None and ROW_KEY in {each.name for each in model._meta.local_fields}:
            found = model._base_manager.using(using).filter(pk=key).values_list(ROW_KEY, flat=True).first()
            if found is not None:
                instance.__dict__[ROW_KEY] = found


def _require_still(field: Any, instance: Any, box: Any) -> None:
    """Refuse to save a record, tenant or subject that changed, without the values bound to it."""
    if isinstance(box, Box) and box.is_bound and box.whose != field.owner.of(instance):
        raise InvalidInputError(
            f"field {field} is bound to {', '.join(each.name for each in field.owner.columns)}, which update_fields "
            "changes alone; name the field there too"
        )


def _in_one_transaction(save_base: Callable[..., Any]) -> Callable[..., Any]:
    """Let a row and the words of its values be written together or not at all."""

    @wraps(save_base)
    def saving(self: Any, *given: Any, using: str | None = None, **options: Any) -> Any:
        using = using or router.db_for_write(type(self), instance=self)
        try:
            with transaction.atomic(using=using, savepoint=False):
                return save_base(self, *given, using=using, **options)
        finally:
            self.__dict__.pop(WORDS, None)

    return saving


class_prepared.connect(watch)
