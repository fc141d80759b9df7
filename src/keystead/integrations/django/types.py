"""An encrypted field for each of Django's that Keystead has a type for."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from keystead.crypto.codec import ValueType
from keystead.integrations.django.field import EncryptedField


class EncryptedTextField(EncryptedField, models.TextField):
    """A text."""

    value_type = ValueType.TEXT


class EncryptedCharField(EncryptedField, models.CharField):
    """A text of one line. ``max_length`` is for forms and validation; the column needs none."""

    value_type = ValueType.TEXT

    def _check_max_length_attribute(self, **options: Any) -> list[Any]:
        return [] if self.max_length is None else list(super()._check_max_length_attribute(**options))


class EncryptedEmailField(EncryptedField, models.EmailField):
    """An e-mail address."""

    value_type = ValueType.TEXT


class EncryptedURLField(EncryptedField, models.URLField):
    """A URL."""

    value_type = ValueType.TEXT


class EncryptedIntegerField(EncryptedField, models.IntegerField):
    """A whole number of any size."""

    value_type = ValueType.INTEGER

    @property
    def validators(self) -> list[Any]:
        """The validators that were declared: no column sets bounds."""
        return [*self.default_validators, *self._validators]


class EncryptedDecimalField(EncryptedField, models.DecimalField):
    """A decimal number, with the digits it was given."""

    value_type = ValueType.DECIMAL


class EncryptedFloatField(EncryptedField, models.FloatField):
    """A floating-point number."""

    value_type = ValueType.FLOAT


class EncryptedBooleanField(EncryptedField, models.BooleanField):
    """True or False."""

    value_type = ValueType.BOOL


class EncryptedDateField(EncryptedField, models.DateField):
    """A date."""

    value_type = ValueType.DATE


class EncryptedDateTimeField(EncryptedField, models.DateTimeField):
    """A moment. Without USE_TZ it is in the default time zone."""

    value_type = ValueType.DATETIME

    def to_plain(self, value: Any) -> Any:
        """Return an aware datetime."""
        plain = super().to_plain(value)
        if isinstance(plain, datetime) and timezone.is_naive(plain):
            return timezone.make_aware(plain, timezone.get_default_timezone())
        return plain

    def from_plain(self, value: Any) -> Any:
        """Return a naive datetime without USE_TZ, an aware one with it."""
        if isinstance(value, datetime) and not settings.USE_TZ:
            return timezone.make_naive(value, timezone.get_default_timezone())
        return value


class EncryptedUUIDField(EncryptedField, models.UUIDField):
    """A UUID."""

    value_type = ValueType.UUID


class EncryptedBinaryField(EncryptedField, models.Field):
    """Bytes. Not a kind of BinaryField, which names a placeholder of its own in statements."""

    value_type = ValueType.BYTES
    empty_values = (None, b"")

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("editable", False)
        super().__init__(*args, **options)

    def deconstruct(self) -> Any:
        """Return the declaration, as a migration writes it."""
        name, path, args, options = super().deconstruct()
        options.pop("editable", None)
        return name, path, args, {**options, "editable": True} if self.editable else options

    def get_default(self) -> Any:
        """Return the default; no bytes where there is none, as Django does for texts."""
        default = super().get_default()
        return b"" if default == "" else default

    def value_to_string(self, obj: Any) -> str:
        """Return the value as a fixture holds it, in base64."""
        return base64.b64encode(self.value_from_object(obj)).decode()

    def to_python(self, value: Any) -> Any:
        """Return the bytes that a fixture holds."""
        return base64.b64decode(value) if isinstance(value, str) else value


class EncryptedJSONField(EncryptedField, models.JSONField):
    """What JSON holds. It may be changed in place, as with a plain field."""

    value_type = ValueType.JSON
    is_changeable = True

    def to_plain(self, value: Any) -> Any:
        """Return what the field's encoder makes of a value."""
        return value if self.encoder is None else json.loads(json.dumps(value, cls=self.encoder))

    def from_plain(self, value: Any) -> Any:
        """Return what the field's decoder makes of a value."""
        return value if self.decoder is None else json.loads(json.dumps(value), cls=self.decoder)
