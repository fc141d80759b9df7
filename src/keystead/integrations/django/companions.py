"""What an encrypted field needs beside it, added to its model when that is complete.

Real columns, so that migrations make them: a hash for each index and parity, and a row key where the primary key is not
known before the insert. Hidden from forms, fixtures and serialisers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models
from django.db.models.expressions import Func
from django.db.models.signals import class_prepared

from keystead.fields import Index
from keystead.fields.row_keys import ROW_KEY, new_row_key
from keystead.integrations.django.attribute import BoundAttribute, EncryptedAttribute
from keystead.integrations.django.record import default_record
from keystead.integrations.django.sealed import Beside
from keystead.integrations.django.tokens import add_token_model
from keystead.integrations.django.window import guard

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField


class HashField(models.Field):
    """The column of an index's hashes under keys of one parity. Only the field it belongs to writes it."""

    description = "Hash of an encrypted field"
    encrypted: EncryptedField | None = None
    is_before: bool = False
    """Whether its turn in an INSERT comes before that of the field it belongs to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options |= {"null": True, "editable": False, "serialize": False, "blank": True}
        super().__init__(*args, **options)

    def deconstruct(self) -> Any:
        """Return the declaration, as a migration writes it."""
        name, _, args, options = super().deconstruct()
        for option in ("null", "editable", "serialize", "blank"):
            options.pop(option, None)
        return name, "keystead.integrations.django.HashField", args, options

    def get_internal_type(self) -> str:
        """Return the type of a column of bytes."""
        return "BinaryField"

    def pre_save(self, instance: Any, add: bool) -> Any:
        """Return what the sealing of the value left for it."""
        if add and not self.is_before:
            return instance.__dict__.get(self.attname)
        if self.encrypted is None:
            return None
        if not add:
            return Beside(self, self.encrypted)
        self.encrypted.take(instance)
        return instance.__dict__.get(self.attname)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Return the hash as it is: one of an INSERT of many rows takes no detours."""
        return value


class RandomRowKey(Func):
    """A random UUID that the database draws, one for each row that is there already when the column is added."""

    output_field = models.UUIDField()
    allowed_default = True
    arity = 0

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Draw it by PostgreSQL's own function."""
        return "gen_random_uuid()", []

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Draw it as Django writes UUIDs into SQLite: 32 hex digits, version 4."""
        digits = "lower(hex(randomblob({})))"
        variant = "substr('89ab', 1 + (random() & 3), 1)"
        half = f"substr({digits.format(2)}, 2)"
        return f"({digits.format(6)} || '4' || {half} || {variant} || {half} || {digits.format(6)})", []


class RowKeyField(models.UUIDField):
    """A UUID for each row, known before the insert."""

    description = "Row key of encrypted fields"
    db_returning = False
    """An INSERT has no need to give back what the object drew."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options |= {"unique": True, "editable": False, "serialize": False}
        options |= {"db_default": RandomRowKey()}
        super().__init__(*args, **options)

    def get_default(self) -> UUID:
        """Return the key of a new object. Not by ``default=``, of which ``makemigrations`` would ask."""
        return new_row_key()

    def pre_save(self, instance: Any, add: bool) -> Any:
        """Return the key that the object holds."""
        return instance.__dict__.get(self.attname) or super().pre_save(instance, add)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Return the key as the database takes it: one of an INSERT of many rows takes no detours."""
        if value.__class__ is not UUID:
            return super().get_db_prep_save(value, connection)
        return value if connection.features.has_native_uuid_field else value.hex

    def deconstruct(self) -> Any:
        """Return the declaration, as a migration writes it."""
        name, _, args, options = super().deconstruct()
        for option in ("unique", "editable", "serialize", "db_default"):
            options.pop(option, None)
        return name, "keystead.integrations.django.RowKeyField", args, options


def prepare(sender: Any, **signal: Any) -> None:
    """Add to a model that is complete what its encrypted fields need."""
    own = [each for each in sender._meta.local_concrete_fields if isinstance(each, _encrypted_class())]
    if not own:
        return
    is_application = not _is_made_by_migrations(sender)
    for field in own:
        if is_application:
            _add_companions(sender, field)
        for name, index, _ in companions_of(field):
            _adopt(sender, field, name, index)
    _watch(sender, own)


def companions_of(field: EncryptedField) -> list[tuple[str, Index, int]]:
    """Return the names of a field's hash columns, with their index and parity."""
    return [
        (index.column(field.column, parity), index, parity)
        for index in field.indexes
        if not index.many
        for parity in (0, 1)
    ]


def _add_companions(model: Any, field: EncryptedField) -> None:
    names = {each.name for each in model._meta.local_fields}
    if (field.record or default_record(model)) == (ROW_KEY,) and ROW_KEY not in names:
        model.add_to_class(ROW_KEY, RowKeyField())
    for name, index, _ in companions_of(field):
        if name not in names:
            model.add_to_class(name, HashField(db_index=not index.unique, unique=index.unique))
    if any(index.many for index in field.indexes):
        add_token_model(field)


def _adopt(model: Any, field: EncryptedField, name: str, index: Index) -> None:
    """Tell a hash column whose it is. In the midst of a migration it may not be there yet."""
    for each in model._meta.local_concrete_fields:
        if each.column == name and isinstance(each, HashField):
            each.encrypted = field
            each.is_before = each.creation_counter < field.creation_counter


def _watch(model: Any, own: list[EncryptedField]) -> None:
    """Hear of changes of what values are bound to."""
    columns: dict[Any, bool] = {}
    for field in own:
        for name in (*(field.record or default_record(model)), *filter(None, (field.tenant, field.subject))):
            columns |= {each: False for each in model._meta.local_concrete_fields if name in (each.name, each.attname)}
        if field.plaintext is not None:
            guard(model, field)
    if any(isinstance(each, RowKeyField) for each in columns):
        columns |= {each: True for each in model._meta.pk_fields if each.model is model}
    for column, renews in columns.items():
        inner = model.__dict__.get(column.attname)
        if inner is not None and not isinstance(inner, BoundAttribute | EncryptedAttribute):
            setattr(model, column.attname, BoundAttribute(inner, column, renews=renews))


def _is_made_by_migrations(model: Any) -> bool:
    """Return whether a model stands for a table as some migration left it, or as a migration remakes it."""
    return model.__module__ == "__fake__" or not model._meta.apps.app_configs


def _encrypted_class() -> Any:
    from keystead.integrations.django.field import EncryptedField

    return EncryptedField


class_prepared.connect(prepare)
