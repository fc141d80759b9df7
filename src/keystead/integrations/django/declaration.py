"""The declaration of an encrypted field: what it was given, and what Keystead calls it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from django.core import checks
from django.db.models import Field as DjangoField

from keystead.crypto.codec import ValueType
from keystead.errors import InvalidInputError
from keystead.fields import Exact, Field, FieldCipher, Index
from keystead.integrations.django.binding import current
from keystead.integrations.django.problems import problems_of
from keystead.integrations.django.record import Owner
from keystead.integrations.django.window import Window

_CURES: Final = {
    "primary_key": "a key has to be compared by the database; keep it plain, and random if it must not tell anything",
    "db_index": "declare blind indexes, indexes=[Exact()]: one on the ciphertext finds nothing",
    "db_default": "the database cannot encrypt; use default=",
    "db_collation": "the database cannot compare ciphertexts",
    "unique_for_date": "the database cannot compare ciphertexts",
    "unique_for_month": "the database cannot compare ciphertexts",
    "unique_for_year": "the database cannot compare ciphertexts",
}
_OPTIONS: Final[Mapping[str, Any]] = {
    "indexes": (),
    "record": (),
    "tenant": None,
    "per_subject": False,
    "subject": None,
    "subject_kind": "",
    "keyring": "default",
    "former_keyrings": (),
    "index_keyring": "index",
    "id": "",
    "encrypt_null": False,
    "allow_envelopes": False,
    "plaintext": None,
}


class Declaration(DjangoField):
    """Stands before a Django field in a class's bases.

    Args:
        indexes: what to search it by: ``Exact``, ``Normalised``, ``Prefix``, ``Tokens``. ``unique=True`` is short for
            ``Exact(unique=True)``.
        record: the field or fields that say which record a row is: the primary key where that is known before the
            insert, else a random row key in a field ``keystead_row`` that is added, as ``record="keystead_row"`` does.
        tenant: the field that says whose row it is.
        per_subject, subject, subject_kind: under a keyring for each subject, as in ``Field``: ``km.forget`` erases it.
        keyring, former_keyrings, index_keyring, encrypt_null, allow_envelopes: as in ``keystead.fields.Field``.
        id: the name in the ciphertext, ``table.column`` unless given. Keep it when table or column are renamed.
        plaintext: the field of the same model that still holds values in clear, while a table is being encrypted.
        options: what the plain Django field takes besides.

    Raises:
        InvalidInputError: an option that cannot go with ciphertext.
    """

    value_type: ClassVar[ValueType]

    if TYPE_CHECKING:
        # What the attribute of an object is, which the class declares by the field.
        def __get__(self, instance: object, owner: object = None) -> Any: ...
        def __set__(self, instance: object, value: Any) -> None: ...

    def __init__(
        self,
        *args: Any,
        indexes: Iterable[Index] = (),
        record: str | tuple[str, ...] = (),
        tenant: str | None = None,
        per_subject: bool = False,
        subject: str | None = None,
        subject_kind: str = "",
        keyring: str = "default",
        former_keyrings: Iterable[str] = (),
        index_keyring: str = "index",
        id: str = "",
        encrypt_null: bool = False,
        allow_envelopes: bool = False,
        plaintext: str | None = None,
        unique: bool = False,
        **options: Any,
    ) -> None:
        for option, cure in _CURES.items():
            if options.get(option) not in (None, False):
                raise InvalidInputError(f"an encrypted field takes no {option}: {cure}")
        found = tuple(indexes)
        if unique and not any(index.unique for index in found):
            found = (Exact(unique=True), *(index for index in found if not isinstance(index, Exact)))
        for index in found:
            index.require_type(self.value_type)
        self.indexes = found
        self.record = (record,) if isinstance(record, str) else tuple(record)
        self.tenant = tenant
        self.per_subject = per_subject
        self.subject = subject
        self.subject_kind = subject_kind
        self.keyring = keyring
        self.former_keyrings = tuple(former_keyrings)
        self.index_keyring = index_keyring
        self.id = id
        self.encrypt_null = encrypt_null
        self.allow_envelopes = allow_envelopes
        self.plaintext = plaintext
        super().__init__(*args, **options)

    def deconstruct(self) -> Any:
        """Return the declaration, as a migration writes it: nothing of keys is in it."""
        name, _, args, options = super().deconstruct()
        for option, default in _OPTIONS.items():
            value = getattr(self, option)
            if value != default:
                options[option] = list(value) if option == "indexes" else value
        return name, f"keystead.integrations.django.{type(self).__name__}", args, options

    def check(self, **options: Any) -> list[checks.CheckMessage]:
        """Return what is wrong with the declaration; see Django's system checks."""
        return [*super().check(**options), *problems_of(self)]

    @cached_property
    def spec(self) -> Field:
        """The field as the rest of Keystead knows it.

        Raises:
            ConfigurationError, InvalidInputError: a declaration that cannot be.
        """
        owner = self.owner
        given = (*owner.kinds, owner.tenant_kind, owner.subject_kind)
        *kinds, tenant_kind, subject_kind = (kind if kind is UUID else None for kind in given)
        return Field(
            self.model._meta.db_table.replace('"', ""),
            self.column,
            type=self.value_type,
            record=tuple(each.column for each in owner.records),
            record_type=tuple(kinds),
            tenant=None if owner.tenant is None else owner.tenant.column,
            tenant_type=tenant_kind,
            per_subject=self.per_subject,
            subject=None if owner.subject is None else owner.subject.column,
            subject_kind=self.subject_kind,
            subject_type=subject_kind,
            keyring=self.keyring,
            former_keyrings=self.former_keyrings,
            indexes=self.indexes,
            index_keyring=self.index_keyring,
            id=self.id,
            encrypt_null=self.encrypt_null,
            allow_envelopes=self.allow_envelopes,
        )

    @cached_property
    def owner(self) -> Owner:
        """The columns that its values are bound to."""
        return Owner(self)

    @cached_property
    def window(self) -> Window | None:
        """The field that still holds values in clear, while the table is being encrypted."""
        return None if self.plaintext is None else Window(self)

    @property
    def cipher(self) -> FieldCipher:
        """What encrypts and decrypts its values.

        Raises:
            ConfigurationError: the application was not bound to keys.
        """
        return current().cipher(self.spec)
