"""``encrypted(...)``: the declaration of an encrypted column, where ``mapped_column(...)`` stood."""

from __future__ import annotations

import builtins
import types
from collections.abc import Iterable
from typing import Any, Final, Union, get_args, get_origin

from sqlalchemy.orm import MappedColumn, mapped_column
from sqlalchemy.orm.util import de_stringify_annotation

from keystead.crypto.codec import ValueType
from keystead.errors import InvalidInputError
from keystead.fields import Encrypted, Index
from keystead.integrations.sqlalchemy.mapping import prepare
from keystead.integrations.sqlalchemy.type import Declaration, EncryptedBytes

_CURES: Final = {
    "index": "declare blind indexes, indexes=[Exact()]: one on the ciphertext finds nothing",
    "unique": "declare indexes=[Exact(unique=True)]: two ciphertexts of one value differ",
    "primary_key": "a key has to be compared by the database; keep it plain, and random if it must not tell anything",
    "server_default": "the database cannot encrypt; use default=",
    "onupdate": "assign the value instead",
    "server_onupdate": "assign the value instead",
    "type_": "the column is of bytes; type= is the type of the values",
}


class EncryptedColumn(MappedColumn[Any]):
    """A column that takes the type of its values from its annotation, and prepares its class for encryption."""

    inherit_cache = True

    def declarative_scan(self, decl_scan: Any, registry: Any, cls: type[Any], *given: Any) -> None:
        """Read the annotation; see ``MappedColumn``."""
        super().declarative_scan(decl_scan, registry, cls, *given)
        module, _, _, _, annotation, _ = given
        self._adopt(cls, module, annotation)

    def declarative_scan_for_composite(self, decl_scan: Any, registry: Any, cls: type[Any], *given: Any) -> None:
        """Read the annotation of a composite's member; see ``MappedColumn``."""
        super().declarative_scan_for_composite(decl_scan, registry, cls, *given)
        module, _, _, annotation = given
        self._adopt(cls, module, annotation)

    def _adopt(self, cls: type[Any], module: str | None, annotation: Any) -> None:
        kind, is_boxed = None, False
        if annotation is not None:
            plain = de_stringify_annotation(cls, annotation, module or cls.__module__, include_generic=True)
            kind, is_boxed = _value_type(plain)
        sqltype = self.column.type
        if isinstance(sqltype, EncryptedBytes):
            sqltype.declare(kind, is_boxed)
        prepare(cls)

    def found_in_pep593_annotated(self) -> Any:
        """Return the column that an attribute declared by ``Annotated[str, encrypted()]`` gets."""
        return self._copy()


def encrypted(
    *,
    type: type | ValueType | str | None = None,
    indexes: Iterable[Index] = (),
    keyring: str = "default",
    tenant: str | None = None,
    per_subject: bool = False,
    subject: str | None = None,
    subject_kind: str = "",
    record: str | tuple[str, ...] | None = None,
    id: str | None = None,
    encrypt_null: bool = False,
    former_keyrings: Iterable[str] = (),
    index_keyring: str = "index",
    allow_envelopes: bool = False,
    plaintext: str | None = None,
    name: str | None = None,
    **options: Any,
) -> MappedColumn[Any]:
    """Declare an encrypted column where ``mapped_column`` would declare a plain one.

    With ``email: Mapped[str] = encrypted()`` the attribute gives and takes plain values. With
    ``Mapped[Encrypted[str]]`` it gives boxes, and ``box.decrypt()`` the value.

    Args:
        type: of the values, where the annotation does not say it; see ``Field``.
        indexes: what to search it by: ``Exact``, ``Normalised``, ``Prefix``, ``Tokens``.
        keyring, former_keyrings, index_keyring, encrypt_null, allow_envelopes: as in ``Field``.
        tenant: the column that says whose row it is.
        per_subject, subject, subject_kind: under a keyring for each subject, as in ``Field``: ``km.forget`` erases it.
        record: the column or columns that say which record a row is: the primary key where that is known before the
            insert, else a random row key in a column ``keystead_row`` that is added, as ``record="keystead_row"`` does.
        id: the name in the ciphertext, ``table.column`` unless given. Keep it when table or column are renamed.
        plaintext: the column of the same class that still holds values in clear, while a table is being encrypted:
            where there is no ciphertext it is read instead. Drop it when ``keystead.fields.reencrypt`` has come to its
            end; see docs/guides/convert-an-application.md.
        name: of the column; the attribute's unless given.
        options: what ``mapped_column`` takes besides: nullable, default, deferred, comment, info, sort_order, and in
            dataclasses init, default_factory, kw_only, compare, repr (False unless given).

    Raises:
        InvalidInputError: an option that cannot go with ciphertext.
    """
    for option, cure in _CURES.items():
        if option in options:
            raise InvalidInputError(f"an encrypted column takes no {option}: {cure}")
    sqltype = EncryptedBytes()
    sqltype.declaration = Declaration(
        type=type,
        indexes=tuple(indexes),
        keyring=keyring,
        former_keyrings=tuple(former_keyrings),
        index_keyring=index_keyring,
        tenant=tenant,
        per_subject=per_subject,
        subject=subject,
        subject_kind=subject_kind,
        record=(record,) if isinstance(record, str) else tuple(record or ()),
        id=id or "",
        encrypt_null=encrypt_null,
        allow_envelopes=allow_envelopes,
        plaintext=plaintext,
    )
    positional = (name, sqltype) if name is not None else (sqltype,)
    plain: MappedColumn[Any] = mapped_column(*positional, **options)
    made = plain._copy_as(EncryptedColumn)
    if "repr" not in options:
        # Set past the check that refuses options of dataclasses elsewhere: a dataclass must not print the value.
        made._attribute_options = made._attribute_options._replace(dataclasses_repr=False)
    return made


def _value_type(annotation: Any) -> tuple[type | None, bool]:
    """Return the type of the values that an annotation names, if it does, and whether it asks for boxes."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not types.NoneType]
        return _value_type(members[0]) if len(members) == 1 else (None, False)
    if hasattr(annotation, "__metadata__"):
        return _value_type(get_args(annotation)[0])
    if annotation is Encrypted:
        return None, True
    if origin is Encrypted:
        return _value_type(get_args(annotation)[0])[0], True
    plain = origin or annotation
    return (plain if isinstance(plain, builtins.type) else None), False
