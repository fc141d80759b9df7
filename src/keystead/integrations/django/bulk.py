"""Many objects at once, where Django's own calls give no field a chance: words of other tables, and ``bulk_update``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connections, transaction
from django.db.models import Value, When

from keystead.errors import ConflictError, InvalidInputError
from keystead.integrations.django.attribute import encrypted_fields
from keystead.integrations.django.sealed import WORDS, Prepared, SealedCase
from keystead.integrations.django.tokens import write_tokens

BATCH_ROWS = 500


def bulk_create(queryset: Any, objs: Iterable[Any], **options: Any) -> list[Any]:
    """Insert objects with the words of their values, as ``queryset.bulk_create(objs)`` does without.

    Args:
        queryset: or a manager, ``Person.objects``.
        objs: new objects.
        options: those of ``bulk_create``; none that meets rows which are there.

    Raises:
        InvalidInputError: an option that does.
        KMSError: as ``FieldCipher.encrypt``.
    """
    if options.keys() & {"ignore_conflicts", "update_conflicts", "update_fields", "unique_fields"}:
        raise InvalidInputError("rows that are there already keep their words; insert what is new, and save() the rest")
    new = list(objs)
    fields = [field for field in encrypted_fields(queryset.model) if field.spec.token_index is not None]
    for obj in new:
        obj.__dict__[WORDS] = {}
    rows = queryset.all()
    try:
        with transaction.atomic(using=rows.db, savepoint=False):
            made: list[Any] = rows.bulk_create(new, **options)
            for field in fields:
                name = field.owner.attnames[0]
                write_tokens(field, rows.db, [(getattr(obj, name), obj.__dict__[WORDS][field.name]) for obj in made])
    finally:
        for obj in new:
            obj.__dict__.pop(WORDS, None)
    return made


def bulk_update(queryset: Any, objs: Iterable[Any], fields: Sequence[str], *, batch_size: int = BATCH_ROWS) -> int:
    """Write fields of objects, encrypted ones among them, as ``queryset.bulk_update(objs, fields)`` does for others.

    Returns how many rows matched.

    Args:
        queryset: or a manager, ``Person.objects``.
        objs: objects that were saved or loaded.
        fields: names of fields.
        batch_size: rows in one statement.

    Raises:
        InvalidInputError: an object without a primary key, a field that is none, or a record or tenant.
        ConflictError: a row has another record or tenant by now than its object.
        KMSError: as ``FieldCipher.encrypt``.
    """
    rows, changed, count = queryset.all(), list(objs), 0
    own = {each.name: each for each in rows.model._meta.concrete_fields}
    if unknown := [name for name in fields if name not in own]:
        raise InvalidInputError(f"no such fields: {', '.join(unknown)}")
    encrypted = [each for each in encrypted_fields(rows.model) if each.name in fields]
    bound = {column for each in encrypted_fields(rows.model) for column in each.owner.columns}
    if moved := [name for name in fields if own[name] in bound]:
        raise InvalidInputError(f"values are bound to {', '.join(moved)}; save() objects that change it")
    if any(not obj._is_pk_set() for obj in changed):
        raise InvalidInputError("an object without a primary key has no row to update")
    plain = [name for name in fields if own[name] not in encrypted]
    with transaction.atomic(using=rows.db, savepoint=False):
        if plain:
            rows.bulk_update(changed, plain, batch_size=batch_size)
        for start in range(0, len(changed), batch_size):
            batch = changed[start : start + batch_size]
            _require_own(rows, batch, encrypted)
            count += _update(rows, batch, encrypted)
    return count if encrypted else len(changed)


def _update(rows: Any, batch: list[Any], encrypted: list[Any]) -> int:
    assigned: dict[str, Any] = {}
    for field in encrypted:
        for obj in batch:
            obj.__dict__[WORDS] = {}
        sealed = [(obj, field.take(obj)) for obj in batch]
        case = SealedCase(
            *(When(pk=obj.pk, then=Value(Prepared(field, obj, each), output_field=field)) for obj, each in sealed),
            output_field=field,
        )
        case.encrypted = field
        assigned[field.name] = case
        beside = {each.column: each for each in rows.model._meta.concrete_fields}
        for name in sealed[0][1].beside:
            column = beside[name]
            assigned[column.name] = SealedCase(
                *(When(pk=obj.pk, then=Value(each.beside[name], output_field=column)) for obj, each in sealed),
                output_field=column,
            )
        words = [(getattr(obj, field.owner.attnames[0]), obj.__dict__.pop(WORDS)) for obj in batch]
        if field.spec.token_index is not None:
            write_tokens(field, rows.db, [(record, found[field.name]) for record, found in words])
    count: int = rows.filter(pk__in=[obj.pk for obj in batch]).update(**assigned)
    return count


def _require_own(rows: Any, batch: list[Any], encrypted: list[Any]) -> None:
    names = sorted({column.attname for field in encrypted for column in field.owner.columns})
    held = rows.select_for_update() if rows.db and _locks(rows) else rows
    found = held.filter(pk__in=[obj.pk for obj in batch]).order_by().values_list("pk", *names)
    now = {row[0]: row[1:] for row in found}
    for obj in batch:
        if obj.pk in now and now[obj.pk] != tuple(getattr(obj, name) for name in names):
            raise ConflictError("a row has another record or tenant by now than its object; load it again")


def _locks(rows: Any) -> bool:

    return bool(connections[rows.db].features.has_select_for_update)
