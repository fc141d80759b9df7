"""An encrypted field: the way of its values into the database and back, and into its queries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Final, NoReturn

from django.core.exceptions import ValidationError
from django.db.models import CharField, TextField
from django.db.models.expressions import Subquery
from django.db.models.sql import Query

from keystead.crypto.codec import ValueType
from keystead.errors import InvalidInputError
from keystead.fields import Exact
from keystead.integrations.django.attribute import EncryptedAttribute
from keystead.integrations.django.binding import current
from keystead.integrations.django.box import Box, Nothing, Opened
from keystead.integrations.django.column import EncryptedCol
from keystead.integrations.django.commit import note_indexes
from keystead.integrations.django.declaration import Declaration
from keystead.integrations.django.lookups import OfTenant, lookup_of
from keystead.integrations.django.sealed import WORDS, Prepared, Sealed, SealedCase, Under, Write
from keystead.integrations.django.sealing import seal_all

_CURE: Final = (
    "assign the value and save() the object, or change many by keystead.integrations.django.bulk_update(queryset, "
    "objects, fields)"
)
_KEEP_TEXT: Final = [(each.get_prep_value, each.to_python) for each in (CharField, TextField)]


class EncryptedField(Declaration):
    """A Django field whose column holds ciphertext. Stands before the plain field of its type; see ``Declaration``."""

    descriptor_class = EncryptedAttribute
    is_changeable: ClassVar[bool] = False
    """Whether a value may be changed in place."""

    def to_plain(self, value: Any) -> Any:
        """Return a value in the type that is sealed, as the plain Django field would prepare it."""
        if self.value_type is ValueType.TEXT and isinstance(value, bytes | bytearray | memoryview):
            raise InvalidInputError(f"field {self} takes text, and bytes would become the text of their spelling")
        return super().get_prep_value(value)

    @cached_property
    def keeps_text(self) -> bool:
        """Whether the plain Django field leaves a text as it is, which need not be asked of each of many."""
        own = (type(self).get_prep_value, type(self).to_python)
        return self.value_type is ValueType.TEXT and own in _KEEP_TEXT

    def from_plain(self, value: Any) -> Any:
        """Return a value that was opened in the type that the plain Django field gives."""
        return value

    def typed(self, value: Any) -> bytes:
        """Return the typed plaintext of a value."""
        return self.cipher.typed(None if value is None else self.to_plain(value))

    def get_internal_type(self) -> str:
        """Return the type of a column of bytes."""
        return "BinaryField"

    def get_col(self, alias: str, output_field: Any = None) -> EncryptedCol:
        """Return the column in a query, which is looked at there."""
        return EncryptedCol(alias, self, output_field)

    def get_lookup(self, lookup_name: str) -> Any:
        """Return the lookup of a name.

        Raises:
            InvalidInputError: what it asks cannot be answered from ciphertext and the indexes declared.
        """
        return lookup_of(self, lookup_name)

    def get_transform(self, name: str) -> NoReturn:
        """Refuse to look into values."""
        lookup_of(self, name)
        raise InvalidInputError(f"field {self} is encrypted, and nothing looks into its values in a query")

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Put a ciphertext into its box: no decryption, no key, no I/O."""
        if value is None:
            return None
        if expression.__class__ is not EncryptedCol and not isinstance(expression, Query | Subquery):
            raise InvalidInputError(
                f"field {self} is encrypted, and {type(expression).__name__} of it is not its value"
            )
        if isinstance(value, str):
            value = value.encode()  # SQLite keeps a text in a column of bytes; it opens as little as other bytes
        return Box(value if value.__class__ is bytes else bytes(value), self, is_stored=True)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Let through what was sealed, and nothing else.

        Raises:
            InvalidInputError: a value in clear, an SQL expression, or one of another field.
        """
        if value.__class__ is Prepared and value.sealed is not None:
            sealed: Sealed = value.sealed
            if sealed.under.told is not connection and sealed.ciphertext is not None:
                self.note_written(connection, sealed.under)
            return sealed.ciphertext
        if isinstance(value, Write | SealedCase) and value.encrypted is self:
            return value
        if value is None and self.model.__module__ == "__fake__":
            return None  # a column that a migration adds
        raise InvalidInputError(f"field {self} takes no value here, where its row is not known; {_CURE}")

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Let through what was sealed; see ``get_db_prep_value``."""
        return self.get_db_prep_value(value, connection)

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        """Seal the value of an object whose row is about to be written."""
        if self.is_automatic:
            super().pre_save(model_instance, add)
        return Prepared(self, model_instance) if add else self.write_of(model_instance)

    def write_of(self, instance: Any) -> Write:
        """Return what an UPDATE of an object's row writes."""
        value = instance.__dict__.get(self.attname)
        if value.__class__ is Opened and not value.is_changed:
            value = value.box
        is_still = value is Nothing.STORED
        if value.__class__ is Box and value.is_stored:
            is_still = not value.is_bound or value.whose == self.owner.of(instance)
        return Write(self, instance, None if is_still else self.take(instance))

    def take(self, instance: Any) -> Sealed:
        """Seal an object's value, and leave the object with its box and the hashes beside it."""
        return self.take_all([instance])[0]

    def take_all(self, instances: Sequence[Any]) -> list[Sealed]:
        """Seal the values of objects, as ``take`` does one; order kept."""
        sealed = seal_all(self, instances)
        name, window = self.attname, self.window
        for instance, each in zip(instances, sealed, strict=True):
            data = instance.__dict__
            if each.words is not None:
                if WORDS not in data:
                    raise InvalidInputError(
                        f"field {self} has Tokens(), whose words are rows of another table; save() objects one by one, "
                        "or many by keystead.integrations.django.bulk_create(queryset, objects)"
                    )
                data[WORDS][self.name] = each.words
            record, tenant, subject = each.whose
            data[name] = None if each.ciphertext is None else Box(each.ciphertext, self, record, tenant, subject)
            data.update(each.beside)
            if window is not None:
                window.empty(instance)
        return sealed

    @cached_property
    def is_automatic(self) -> bool:
        """Whether the field sets its value itself when it is saved."""
        return bool(getattr(self, "auto_now", False) or getattr(self, "auto_now_add", False))

    @cached_property
    def is_settled(self) -> bool:
        """Whether an object's value, and whose it is, are known before its row's turn comes in an INSERT of many."""
        return self.owner.is_settled and not self.is_automatic

    def content(self, instance: Any) -> Any:
        """Return an object's value, whether it was assigned, loaded or is in clear still."""
        value = instance.__dict__.get(self.attname)
        if value.__class__ is Opened:
            return value.value
        if value.__class__ is Box:
            return value.decrypt() if value.is_bound else value.bound(*self.owner.of(instance)).decrypt()
        return getattr(instance, self.attname) if value is None or value is Nothing.STORED else value

    def opened(self, instance: Any, box: Box) -> Any:
        """Return the value of a box that stands in an object."""
        record, tenant, _ = box.whose if box.is_bound else self.owner.of(instance)
        value = self.from_plain(self.cipher.decrypt(box.ciphertext, record=record, tenant=tenant))
        if self.is_changeable:
            held = Opened(box, value, self.typed(value))
            instance.__dict__[self.attname] = held
        return value

    def clear_value(self, instance: Any) -> Any:
        """Return the value that an object without a ciphertext has in clear; None where it has none."""
        return None if self.window is None else self.window.value_of(instance)

    def note_written(self, connection: Any, under: Under) -> None:
        """Remember where rows of the field lie, and under which index keys the transaction hashed them."""
        binding = current()
        binding.note_place(self, connection)
        if under.versions:
            note_indexes(connection, binding.cipher(self.spec), under.versions)
        under.told = connection

    def owner_of(self, record: object, tenant: object) -> tuple[object, str | None]:
        """Return a record and a tenant as values are bound to them, named as their columns hold them."""
        return self.owner.record_named(record), self.owner.tenant_named(tenant)

    def validate(self, value: Any, model_instance: Any) -> None:
        """Validate a value, and see that no other row has it where the field is unique."""
        super().validate(value, model_instance)
        is_unique = any(index.unique and isinstance(index, Exact) for index in self.indexes)
        if not is_unique or value in self.empty_values or not isinstance(model_instance, self.model):
            return
        sought = value
        if self.tenant is not None:
            sought = OfTenant(value, getattr(model_instance, str(self.owner.tenant_attname)))
        others = self.model._default_manager.filter(**{self.name: sought})
        if not model_instance._state.adding:
            others = others.exclude(pk=model_instance.pk)
        if others.exists():
            raise ValidationError(
                self.error_messages["unique"],
                code="unique",
                params={"model_name": self.model._meta.verbose_name, "field_label": self.verbose_name},
            )
