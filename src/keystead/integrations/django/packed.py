"""A value that ``values()`` selects: its ciphertext in one column together with what names its record and its tenant.

An object holds the columns that its values are bound to, a row of ``values()`` only what was asked for. So the database
puts them before the ciphertext, each in hex digits and ended by a dot; NULL is ``-``. A value that is in clear still
follows ``=``. SQLite gives text, in which the ciphertext is hex digits too, PostgreSQL gives bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.db import models

from keystead.errors import DecryptionError, InvalidInputError
from keystead.integrations.django.names import quoted

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField

_NULL: Final = "-"
_CLEAR: Final = "="
_END: Final = "."
_READERS: Final[dict[type, Callable[[bytes], Any]]] = {
    UUID: lambda held: UUID(held.decode()),
    int: int,
    str: bytes.decode,
    bytes: bytes,
    date: lambda held: date.fromisoformat(held.decode()),
}
_TEXTUAL: Final = (models.CharField, models.TextField, models.IntegerField, models.UUIDField)
"""The plain fields whose values a cast to text tells exactly, in both databases."""


def packed_sql(field: EncryptedField, compiler: Any, alias: str, sql: str) -> str:
    """Return what selects a value, given its column's name, with its owner's columns from the same row."""
    is_postgres = compiler.connection.vendor == "postgresql"
    owner = field.owner
    named = list(zip(owner.records, owner.kinds, strict=True))
    if owner.tenant is not None and owner.tenant_kind is not None:
        named.append((owner.tenant, owner.tenant_kind))
    parts = []
    for column, kind in named:
        digits = (_postgres_digits if is_postgres else _sqlite_digits)(quoted(compiler, alias, column.column), kind)
        parts.append(f"coalesce({digits}, '{_NULL}') || '{_END}'")
    head = " || ".join(parts)
    whole = f"convert_to({head}, 'UTF8') || {sql}" if is_postgres else f"{head} || hex({sql})"
    cases = f"WHEN {sql} IS NOT NULL THEN {whole}"
    if field.window is not None:
        plain = quoted(compiler, alias, field.window.column)
        clear = f"'{_CLEAR}'" + (f" || CAST({plain} AS TEXT)" if _is_textual(field) else "")
        cases += f" WHEN {plain} IS NOT NULL THEN " + (f"convert_to({clear}, 'UTF8')" if is_postgres else clear)
    return f"CASE {cases} END"


def _postgres_digits(name: str, kind: type) -> str:
    if kind is bytes:
        return f"encode({name}, 'hex')"
    # A cast of a date would be spelled as the session's DateStyle says.
    text = f"to_char({name}, 'YYYY-MM-DD')" if kind is date else f"CAST({name} AS TEXT)"
    return f"encode(convert_to({text}, 'UTF8'), 'hex')"


def _sqlite_digits(name: str, kind: type) -> str:
    # hex() of NULL is the empty text. It takes what is no text for its spelling.
    return f"CASE WHEN {name} IS NOT NULL THEN hex({name}) END"


def unpacked(field: EncryptedField, value: Any) -> Any:
    """Return the value that was selected so.

    Raises:
        InvalidInputError: it is in clear still, and of a type that is read with its object alone.
        DecryptionError: the ciphertext is of another row, or altered.
        ConfigurationError: the application was not bound to keys.
    """
    if value is None:
        return None
    given = value.encode() if isinstance(value, str) else bytes(value)
    if given.startswith(_CLEAR.encode()):
        return _in_clear(field, given[len(_CLEAR) :])
    kinds = field.owner.kinds if field.owner.tenant_kind is None else (*field.owner.kinds, field.owner.tenant_kind)
    *held, rest = given.split(_END.encode(), len(kinds))
    try:
        named = [
            None if each == _NULL.encode() else _READERS[kind](bytes.fromhex(each.decode()))
            for kind, each in zip(kinds, held, strict=True)
        ]
    except ValueError:
        raise DecryptionError(f"a row of field {field} names no record that its values could be of") from None
    ciphertext = bytes.fromhex(rest.decode()) if isinstance(value, str) else rest
    count = len(field.owner.kinds)
    record, tenant = field.owner_of(tuple(named[:count]), named[count] if len(named) > count else None)
    return field.from_plain(field.cipher.decrypt(ciphertext, record=record, tenant=tenant))


def _in_clear(field: EncryptedField, text: bytes) -> Any:
    if field.window is None or not _is_textual(field):
        raise InvalidInputError(
            f"a value of field {field} is in clear still, and values() does not tell its type; load the objects, or "
            "re-encrypt the field"
        )
    field.window.note_read()
    return field.window.plain.to_python(text.decode())


def _is_textual(field: EncryptedField) -> bool:
    plain: Any = field.window.plain if field.window is not None else None
    return isinstance(plain, _TEXTUAL) and not hasattr(plain, "from_db_value")
