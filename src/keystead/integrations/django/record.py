"""Which record a row is, and whose: the columns that values are bound to, and what objects hold in them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

from django.db import models
from django.db.models.fields import AutoFieldMixin

from keystead.errors import ConfigurationError
from keystead.fields.held import as_held
from keystead.fields.row_keys import ROW_KEY

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField

Whose: TypeAlias = tuple[object, str | None, object]
"""A record, a tenant and a subject."""

_KINDS: Final[tuple[tuple[type[Any], type], ...]] = (
    (models.UUIDField, UUID),
    (models.IntegerField, int),
    (models.CharField, str),
    (models.TextField, str),
    (models.BinaryField, bytes),
    (models.DateField, date),
)
_PROCESSING: Final = ("get_prep_value", "get_db_prep_value", "get_db_prep_save", "get_db_converters")


class Owner:
    """The columns that one encrypted field is bound to.

    Raises:
        ConfigurationError: a column that cannot name a record or tenant, or is not there.
    """

    def __init__(self, field: EncryptedField) -> None:
        self.records = tuple(_concrete(field, name) for name in field.record or default_record(field.model))
        self.tenant = None if field.tenant is None else _concrete(field, field.tenant)
        self.kinds = tuple(_kind(field, each) for each in self.records)
        self.tenant_kind = None if self.tenant is None else _kind(field, self.tenant)
        self.subject = None if field.subject is None else _concrete(field, field.subject)
        self.subject_kind = None if self.subject is None else _kind(field, self.subject)
        self.attnames = tuple(each.attname for each in self.records)
        self.tenant_attname: str | None = None if self.tenant is None else self.tenant.attname
        self._field = field

    @property
    def columns(self) -> tuple[Any, ...]:
        """The model fields of record, tenant and subject."""
        return (*self.records, *(each for each in (self.tenant, self.subject) if each is not None))

    @cached_property
    def movable(self) -> tuple[Any, ...]:
        """Those of record and tenant that may change in a row, and leave a value behind that does not open."""
        own = self.records if self.tenant is None else (*self.records, self.tenant)
        return tuple(each for each in own if not each.primary_key and each.name != ROW_KEY)

    @cached_property
    def is_settled(self) -> bool:
        """Whether an object holds all of them before it is saved, and no column's own ``pre_save`` sets one."""
        return all(each.name == ROW_KEY or type(each).pre_save is models.Field.pre_save for each in self.columns)

    def of(self, instance: Any) -> Whose:
        """Return the record, the tenant and the subject of an object, as its columns hold them."""
        tenant = None if self.tenant_attname is None else self.tenant_named(getattr(instance, self.tenant_attname))
        subject = None
        if self.subject is not None and self.subject_kind is not None:
            subject = as_held(self.subject_kind, getattr(instance, self.subject.attname))
        if len(self.attnames) == 1:
            return as_held(self.kinds[0], getattr(instance, self.attnames[0])), tenant, subject
        return self.record_named(tuple(getattr(instance, each) for each in self.attnames)), tenant, subject

    def record_named(self, given: Any) -> object:
        """Return a record that is named by one value, or a tuple where there are several columns."""
        values = given if isinstance(given, tuple) else (given,)
        if len(values) != len(self.kinds):
            raise ConfigurationError(f"a record of {self._field} is named by {len(self.kinds)} values")
        held = tuple(map(as_held, self.kinds, values))
        return held[0] if len(held) == 1 else held

    def tenant_named(self, given: Any) -> str | None:
        """Return the tenant that is named by a value of its column, or by an object of the model it refers to."""
        plain = given.pk if isinstance(given, models.Model) else given
        held = plain if self.tenant_kind is None or plain is None else as_held(self.tenant_kind, plain)
        return self._field.spec.read_tenant(held)


def default_record(model: Any) -> tuple[str, ...]:
    """Return the names of the primary key's fields if all are known before the insert, else of the row key."""
    fields = tuple(model._meta.pk_fields)
    return tuple(each.name for each in fields) if all(map(_is_known, fields)) else (ROW_KEY,)


def _is_known(field: Any) -> bool:
    if isinstance(field, AutoFieldMixin) or field.generated:
        return False
    # What a foreign key refers to is saved before.
    return bool(field.has_default() or not field.has_db_default())


def _concrete(encrypted: EncryptedField, name: str) -> Any:
    meta = encrypted.model._meta
    for field in meta.local_concrete_fields:
        if name in (field.name, field.attname, field.column):
            return field
    if name == "pk":
        return meta.pk
    raise ConfigurationError(f"encrypted field {encrypted} names column {name!r}, which its table has not")


def _kind(encrypted: EncryptedField, field: Any) -> type:
    """Return the class of what a column holds: UUID, int, str, bytes or date."""
    plain = field
    while plain.remote_field is not None:
        plain = plain.target_field
    if not isinstance(plain, models.DateTimeField) and all(map(_is_djangos, map(_method_of(plain), _PROCESSING))):
        for class_, kind in _KINDS:
            if isinstance(plain, class_):
                return kind
    raise ConfigurationError(
        f"encrypted field {encrypted} is bound to {field}, whose column holds something that a Python value does not "
        "tell; use a field of UUIDs, integers, texts, bytes or dates, or record='keystead_row', which adds one of "
        "random UUIDs"
    )


def _method_of(field: Any) -> Callable[[str], Any]:
    return lambda name: getattr(type(field), name)


def _is_djangos(method: Any) -> bool:
    # A row key writes UUIDs as Django does.
    return str(method.__module__).startswith(("django.db.", "keystead.integrations.django.companions"))
