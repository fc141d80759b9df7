"""The attribute of an encrypted column: plain values for the application, boxes for SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ClauseElement
from sqlalchemy.orm import ColumnProperty, InstanceState
from sqlalchemy.orm.attributes import InstrumentedAttribute, instance_state

from keystead.errors import InvalidInputError
from keystead.fields import Encrypted
from keystead.fields.plaintext import from_column
from keystead.integrations.sqlalchemy.binding import binding_for
from keystead.integrations.sqlalchemy.place import Place
from keystead.integrations.sqlalchemy.window import clear_value


class EncryptedAttribute(InstrumentedAttribute[Any]):
    """Decrypts when it is read. What was assigned stays as it is until the flush seals it."""

    __slots__ = ()
    inherit_cache = True

    def __get__(self, instance: object, owner: Any) -> Any:
        """Return the value, or its box where the attribute is annotated so.

        Raises:
            DataKeyNotLoadedError: its data key is not loaded, and nobody may wait here: ``await km.prefetch(rows)``.
            DecryptionError: the ciphertext is of another row, or altered.
        """
        if instance is None:
            return self
        value = super().__get__(instance, owner)
        if value.__class__ is not Encrypted:
            if value is not None or self.place.window is None:
                return value
            value = _clear(self.place, instance)
            if value.__class__ is not Encrypted:
                return value
        place = self.place
        box: Encrypted[Any] = value
        if not box.is_bound:
            record, tenant = place.owner(instance_state(instance), committed=True)
            if not place.is_boxed:
                return box.cipher.decrypt(box.ciphertext, record=record, tenant=tenant)
            box = box.bound(record, tenant)
        return box if place.is_boxed else box.decrypt()

    def __set__(self, instance: object, value: Any) -> None:
        """Assign a plain value, or a box that knows its record: its content."""
        if isinstance(value, Encrypted):
            if not value.is_bound:
                raise InvalidInputError(
                    f"a value of field {value.cipher.field.id} that was selected without its row cannot be assigned; "
                    "assign box.decrypt(record=...)"
                )
            value = value.decrypt()
        elif isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
            raise InvalidInputError(f"attribute {self.key} is encrypted: it takes a value, not an SQL expression")
        super().__set__(instance, value)

    @property
    def place(self) -> Place:
        """Where its column stands."""
        return _place_of(self.property)


class EncryptedProperty(ColumnProperty[Any]):
    """Merges what a box holds, so that validators see plain values, and nothing where the ciphertext is the same."""

    __slots__ = ()
    inherit_cache = True

    def merge(self, *given: Any) -> None:
        """Copy the value of one object to another; see ``Session.merge``."""
        _, source_state, source_dict, dest_state, dest_dict, load, *_ = given
        box = source_dict.get(self.key)
        place = _place_of(self)
        if load and box is None and place.window is not None and self.key not in source_state.committed_state:
            plain = from_column(source_dict.get(place.window.key), place.field.value_type)
            if plain is None and place.window.key not in source_dict:
                return
            if plain is not None:
                if dest_dict.get(self.key) is not None or dest_dict.get(place.window.key) is None:
                    dest_state.get_impl(self.key).set(dest_state, dest_dict, plain, None)
                return
        if not load or not isinstance(box, Encrypted):
            super().merge(*given)
            return
        present = dest_dict.get(self.key)
        if isinstance(present, Encrypted) and present.ciphertext == box.ciphertext:
            return
        if not box.is_bound:
            box = box.bound(*place.owner(source_state, committed=True))
        dest_state.get_impl(self.key).set(dest_state, dest_dict, box.decrypt(), None)


class HashProperty(ColumnProperty[Any]):
    """The column of an index hash: written with its value, and never merged, since keys may have changed meanwhile."""

    __slots__ = ()
    inherit_cache = True

    def merge(self, *given: Any) -> None:
        """Leave it as it is."""


class PlaintextProperty(ColumnProperty[Any]):
    """A column of values that are not encrypted yet: never merged, since the encrypted attribute is."""

    __slots__ = ()
    inherit_cache = True

    def merge(self, *given: Any) -> None:
        """Leave it as the database has it; without a database, take it along."""
        if not given[5]:
            super().merge(*given)


def box_again(place: Place, state: InstanceState[Any], attributes: Iterable[str] | None) -> None:
    """Put a ciphertext into its box that an UPDATE left in an object, where ``synchronize_session`` copies values."""
    value = state.dict.get(place.key)
    if isinstance(value, bytes | bytearray | memoryview) and attributes is not None and place.key in attributes:
        state.dict[place.key] = Encrypted(bytes(value), binding_for(state, place.field).cipher(place.field))


def _clear(place: Place, instance: object) -> Any:
    """Return the value that an object has in clear, in a box if it is annotated so; a box that came meanwhile."""
    state = instance_state(instance)
    value = clear_value(place, state)
    if value is None or value.__class__ is Encrypted or place.window is None:
        return value
    place.window.note_read(place.field)
    if not place.is_boxed:
        return value
    cipher = binding_for(state, place.field).cipher(place.field)
    record, tenant = place.owner(state, committed=True)
    subject = place.subject(state, committed=True)
    sealed = cipher.encrypt(value, record=record, tenant=tenant, subject=subject)
    return Encrypted(sealed or b"", cipher, record=record, tenant=tenant)


def _place_of(property_: Any) -> Place:
    place: Place = property_.columns[0].type.place
    return place
