"""The time in which a column is being encrypted: rows that are not yet have their value in clear, in another column.

Opened by ``plaintext="email_plain"``, ended by ``manage.py keystead_reencrypt``. Nobody writes the plaintext column any
more but to empty it, so that rows in clear only become fewer.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from keystead import telemetry
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.integrations.django.box import Nothing
from keystead.integrations.django.sealed import Beside

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField
    from keystead.integrations.django.lookups import Search

log = logging.getLogger("keystead.integrations.django")


class Window:
    """The plaintext field of one encrypted field."""

    def __init__(self, field: EncryptedField) -> None:
        found = {each.name: each for each in field.model._meta.local_concrete_fields}.get(str(field.plaintext))
        if found is None:
            raise ConfigurationError(
                f"field {field} has plaintext={field.plaintext!r}, and its model has no such field"
            )
        self.plain: Any = found
        self.attname: str = found.attname
        self.column: str = found.column
        self._encrypted = field
        self._was_logged = False

    def value_of(self, instance: Any) -> Any:
        """Return the value that an object without a ciphertext has in clear; None where it has none."""
        data, name = instance.__dict__, self._encrypted.attname
        if self.attname not in data and not instance._state.adding:
            # Both anew, in one statement: the row may have been encrypted since its ciphertext was looked for.
            instance.refresh_from_db(fields=[name, self.attname])
            if data.get(name) not in (None, Nothing.STORED):
                return getattr(instance, name)
        value = data.get(self.attname)
        if value is not None:
            self.note_read()
        return value

    def note_read(self) -> None:
        """Count a value that was read in clear, and say so in the log once."""
        telemetry.plaintext_read(self._encrypted.spec.id)
        if not self._was_logged:
            self._was_logged = True
            log.warning(
                "a value is still in clear, and read from its plaintext column; re-encrypt the field",
                extra={"field": self._encrypted.spec.id},
            )

    def empty(self, instance: Any) -> None:
        """Forget the value in clear of an object that is assigned another."""
        if self.attname in instance.__dict__:
            instance.__dict__[self.attname] = None

    def take_out(self, instance: Any) -> None:
        """Let an object that is about to be saved hold its value in the encrypted field alone."""
        data = instance.__dict__
        if data.get(self.attname) is not None and data.get(self._encrypted.attname) in (None, Nothing.STORED):
            data[self._encrypted.attname] = data[self.attname]
        self.empty(instance)

    def compared(self, search: Search, compiler: Any, connection: Any, values: list[Any]) -> tuple[str, list[Any]]:
        """Return whether the value in clear is one of some, of the tenant that is asked for."""
        prepared = [self.plain.get_db_prep_value(self.plain.get_prep_value(each), connection) for each in values]
        sql = f"{search.column(compiler, self.column)} IN ({', '.join(['%s'] * len(prepared))})"
        tenant = self._encrypted.owner.tenant
        if tenant is None:
            return sql, prepared
        given = search.rhs.tenant
        whose = tenant.get_db_prep_value(getattr(given, "pk", given), connection)
        return f"({sql} AND {search.column(compiler, tenant.column)} = %s)", [*prepared, whose]


class PlaintextAttribute:
    """The attribute of a plaintext field: read and emptied, but written by no one."""

    def __init__(self, inner: Any, name: str) -> None:
        self.inner = inner
        self._name = name

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        return self if instance is None else self.inner.__get__(instance, cls)

    def __set__(self, instance: Any, value: Any) -> None:
        if value is not None and not instance._state.adding:
            held = instance.__dict__.get(self._name)
            if held is not None and held != value:
                raise InvalidInputError(
                    f"attribute {self._name} holds what is not encrypted yet, and is written by no one; assign the "
                    "encrypted field, which empties it"
                )
        instance.__dict__[self._name] = value


def guard(model: Any, field: EncryptedField) -> None:
    """Let nobody write values in clear into a plaintext field any more."""
    for each in model._meta.local_concrete_fields:
        if each.name == field.plaintext:
            setattr(model, each.attname, PlaintextAttribute(model.__dict__[each.attname], each.attname))
            each.pre_save = partial(_emptied, each, field)


def _emptied(plain: Any, field: EncryptedField, instance: Any, add: bool) -> Any:
    """Return what a plaintext column is written with: nothing in a new row, and with its ciphertext in an old one."""
    return None if add else Beside(plain, field)
