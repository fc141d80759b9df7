"""The attributes of a model with encrypted fields: plain values for the application, boxes for Django."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.db.models.query_utils import DeferredAttribute

from keystead.errors import InvalidInputError
from keystead.fields import Encrypted
from keystead.fields.row_keys import ROW_KEY, new_row_key
from keystead.integrations.django.box import Box, Nothing, Opened
from keystead.integrations.django.sealed import InRaw

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField

MOVED: Final = "keystead_moved"
"""In the state of an object: that it was given another primary key, maybe that of another row."""


class EncryptedAttribute(DeferredAttribute):
    """Decrypts when it is read. What was assigned stays as it is until it is saved."""

    field: EncryptedField

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        """Return the value.

        Raises:
            DecryptionError: the ciphertext is of another row, or altered.
            ConfigurationError: the application was not bound to keys.
        """
        if instance is None:
            return self
        data, name = instance.__dict__, self.field.attname
        if name not in data:
            super().__get__(instance, cls)
        value = data[name]
        if value.__class__ is Box:
            return self.field.opened(instance, value)
        if value.__class__ is Opened:
            return value.value
        if value.__class__ is InRaw:
            return value.write
        return self.field.clear_value(instance) if value is None or value is Nothing.STORED else value

    def __set__(self, instance: Any, value: Any) -> None:
        """Assign a plain value, or a box: its content."""
        if isinstance(value, Encrypted):
            value = self._taken(instance, value)
        elif hasattr(value, "resolve_expression"):
            raise InvalidInputError(f"field {self.field} is encrypted: it takes a value, not an SQL expression")
        is_adding = instance._state.adding
        instance.__dict__[self.field.attname] = Nothing.STORED if value is None and is_adding else value
        window = self.field.window
        if window is not None and not is_adding:
            window.empty(instance)

    def _taken(self, instance: Any, box: Encrypted[Any]) -> Any:
        if box.is_bound or not isinstance(box, Box):
            return box.decrypt()
        # While its object is loaded, it is what the database holds. Later it is not, so that the next save() opens it,
        # and finds whether it is of this row.
        return box if instance._state.adding else Box(box.ciphertext, box.field)


class BoundAttribute:
    """A column that values are bound to. Before it changes, they learn whose they were.

    Of a primary key beside a row key: an object that gets another key is to become another row, with a row key of its
    own.
    """

    def __init__(self, inner: Any, field: Any, *, renews: bool) -> None:
        self.inner = inner
        self.field = field
        self._name = field.attname
        self._renews = renews
        self._set = getattr(inner, "__set__", None)

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        if instance is None:
            return self
        data = instance.__dict__
        return data[self._name] if self._name in data else self.inner.__get__(instance, cls)

    def __set__(self, instance: Any, value: Any) -> None:
        data = instance.__dict__
        before = data.get(self._name)
        if before is not None and before != value:
            for field in encrypted_fields(type(instance)):
                if field.attname not in data and self.field in field.owner.columns:
                    getattr(instance, field.attname)  # a deferred value is loaded while it can be told whose it is
                box = data.get(field.attname)
                if box.__class__ is Box and not box.is_bound:
                    data[field.attname] = box.bound(*field.owner.of(instance))
                elif box is Nothing.STORED:
                    data[field.attname] = None
            if self._renews:
                setattr(instance, ROW_KEY, new_row_key())
                instance._state.__dict__[MOVED] = True
        if self._set is None:
            data[self._name] = value
        else:
            self._set(instance, value)


def encrypted_fields(model: Any) -> tuple[EncryptedField, ...]:
    """Return the encrypted fields of a model, those of its parents too."""
    found = model.__dict__.get("_keystead_fields")
    if found is None:
        found = tuple(each for each in model._meta.concrete_fields if isinstance(each.descriptor_class, type))
        found = tuple(each for each in found if issubclass(each.descriptor_class, EncryptedAttribute))
        model._keystead_fields = found
    return found
