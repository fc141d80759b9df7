"""Which key manager serves an engine: found by the engine's dialect, which is all that a column type is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.orm import InstanceState
from sqlalchemy.util.concurrency import await_, in_greenlet

from keystead import blocking
from keystead.errors import (
    ConfigurationError,
    DataKeyNotLoadedError,
    InvalidInputError,
    KeyringNotLoadedError,
    KMSError,
)
from keystead.fields import Field, FieldCipher
from keystead.manager.manager import KeyManager

T = TypeVar("T")

Manager = KeyManager | blocking.KeyManager

_bindings: Final[WeakKeyDictionary[Dialect, Binding]] = WeakKeyDictionary()


class Binding:
    """An engine's encrypted fields, and the manager whose keys they are under.

    ``sources`` says for each field that is registered where its rows are looked for.
    """

    def __init__(self, km: Manager, fields: tuple[Field, ...]) -> None:
        self.km = km
        self.fields = fields
        self.sources: dict[str, str] = {}
        self._ciphers = {field.id: km.field(field) for field in fields}

    def __repr__(self) -> str:
        return f"<Binding of {len(self.fields)} fields to {self.km!r}>"

    def cipher(self, column: Any) -> FieldCipher:
        """Return what encrypts and decrypts the values of a field, given it or its attribute, ``User.email``."""
        field = column if isinstance(column, Field) else getattr(column.type, "field", None)
        if field is None:
            raise InvalidInputError("this is no encrypted column; give cipher() one, as in cipher(User.email)")
        found = self._ciphers.get(field.id)
        if found is None:
            found = self._ciphers[field.id] = self.km.field(field)
        return found

    def in_flush(
        self,
        action: Callable[[], T],
        cipher: FieldCipher,
        tenant: str | None,
        ciphertext: bytes | None = None,
        *,
        subject: object = None,
    ) -> T:
        """Return what ``action`` does; keys it misses are awaited where an async session's flush makes that possible.

        Raises:
            KeyringNotLoadedError, DataKeyNotLoadedError: they cannot be.
        """
        if not isinstance(self.km, KeyManager) or not in_greenlet():
            return action()
        try:
            return action()
        except KeyringNotLoadedError:
            tenants = () if tenant is None else (tenant,)
            subjects = () if subject is None else (subject,)
            await_(self.km.load_fields(cipher.field, tenants=tenants, subjects=subjects))
        except DataKeyNotLoadedError:
            if ciphertext is None:
                raise
            await_(self.km.prefetch([ciphertext]))
        return action()


def remember(dialect: Dialect, binding: Binding) -> None:
    """Let columns used through ``dialect`` find their keys, for as long as its engine lives."""
    _bindings[dialect] = binding


def binding_of(dialect: Dialect) -> Binding:
    """Return what an engine was bound to.

    Raises:
        ConfigurationError: nothing.
    """
    found = _bindings.get(dialect)
    if found is None:
        raise as_itself(
            ConfigurationError(
                "an encrypted column is used through an engine that has no keys; call "
                "keystead.integrations.sqlalchemy.bind(engine, km, Base) once, when the application starts"
            )
        )
    return found


def binding_for(state: InstanceState[Any], field: Field) -> Binding:
    """Return what the engine of an object's session was bound to; without a session, what has the field.

    Raises:
        ConfigurationError: nothing.
    """
    if state.session is not None:
        return binding_of(state.session.get_bind(state.mapper).dialect)
    for found in list(_bindings.values()):
        if any(each.id == field.id for each in found.fields):
            return found
    raise ConfigurationError(f"no engine was bound to the keys of field {field.id}; call bind(engine, km, Base)")


def refuse_literal(value: object) -> NoReturn:
    """Refuse to write a value into a statement's text; a column type's literal processor."""
    raise as_itself(InvalidInputError("values of encrypted columns are never written into a statement's text"))


def as_itself(error: KMSError) -> KMSError:
    """Return the same error in a class that SQLAlchemy raises as it is.

    It would put every other one into a ``StatementError`` whose text has the statement's parameters: plain values.
    """
    kind = type(error)
    unwrapped = type(kind.__name__, (kind, DontWrapMixin), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    made: KMSError = KMSError.__new__(unwrapped)
    made.args = error.args
    vars(made).update(vars(error))
    return made
