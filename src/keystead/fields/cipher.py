"""Encrypting and decrypting the values of one field, bound to field, record and tenant; and their index hashes.

No I/O: what is not loaded is an error that says how to load it. Spec: docs/spec/field-v1.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from struct import Struct
from typing import Final

from keystead.crypto.batch import open_all, open_one, seal_all
from keystead.crypto.codec import ValueType, decode_value, encode_value
from keystead.crypto.context import encode_context
from keystead.crypto.envelope import MAGIC, TEXT_PREFIX, as_binary, parse_header
from keystead.crypto.keyring import Keyring
from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidCiphertextError,
    InvalidInputError,
    KeyringNotLoadedError,
)
from keystead.fields.field import Field, record_text, too_many_digits
from keystead.fields.indexes import Index, version_mark
from keystead.fields.keyrings import Keyrings
from keystead.model import is_of_subject

_u32: Final = Struct(">I").pack
_RECORD: Final = _u32(15) + b"keystead.record"
_TEXT: Final = bytes((ValueType.TEXT,))
_MAGIC: Final = bytes((MAGIC,))
_LENGTHS: Final = tuple(map(_u32, range(256)))
"""Looked up, where packing would cost as much as a quarter of the encryption."""


class FieldCipher:
    """The values of one field. Thread-safe; made by ``KeyManager.field``."""

    def __init__(self, field: Field, keyrings: Keyrings) -> None:
        self.field = field
        self.keyrings = keyrings
        self._type = field.value_type
        self._head = encode_context({"keystead.field": field.id}) + _RECORD
        self._encode = self._encoder()

    def __repr__(self) -> str:
        return f"<FieldCipher {self.field.id}>"

    def encrypt(
        self, value: object, *, record: object, tenant: str | None = None, subject: object = None
    ) -> bytes | None:
        """Return the ciphertext of ``value``, which opens for this field, record and tenant alone.

        ``record`` is what the field's record columns hold: str, int, UUID, bytes, date, or a tuple where there are
        several, and ``subject`` what its subject column holds, if it has one. None stays None unless the field says
        ``encrypt_null``.

        Raises:
            InvalidInputError: a value of another type, one that is a ciphertext already, no record or no subject.
            KeyringNotLoadedError: the keyring of the tenant or the subject is not loaded.
            KMSError: as ``local_encrypt``.
        """
        return self.encrypt_many(((value, record),), tenant=tenant, subject=subject)[0]

    def encrypt_many(
        self, values: Iterable[tuple[object, object]], *, tenant: str | None = None, subject: object = None
    ) -> list[bytes | None]:
        """Return the ciphertext of each (value, record), all of one tenant; order kept. Errors as ``encrypt``.

        Each is of the subject that its record names, or all of one, where ``subject`` is given.
        """
        if self.field.has_subjects:
            return self._encrypt_for_subjects([*values], tenant, subject)
        ring = self.ring(tenant)
        tail = _tail(tenant)
        head, encode, keeps_null = self._head, self._encode, not self.field.encrypt_null
        messages: list[tuple[bytes, bytes]] = []
        nulls: list[int] = []
        for value, record in values:
            if value is None and keeps_null:
                nulls.append(len(messages) + len(nulls))
            else:
                messages.append((encode(value), head + _record(record) + tail))
        sealed: list[bytes | None] = [*seal_all(ring, messages)]
        for position in nulls:
            sealed.insert(position, None)
        return sealed

    def decrypt(self, ciphertext: bytes | str | None, *, record: object, tenant: str | None = None) -> object:
        """Return the value of a ciphertext, an envelope or its ``ks1.`` text; None is None.

        Raises:
            DecryptionError: another field, record or tenant, another key, or altered bytes.
            DataKeyNotLoadedError: its data key is not loaded; ``await km.prefetch([ciphertext])`` fetches it.
        """
        if ciphertext is None:
            return None
        blob = as_binary(ciphertext)
        ring, context = self.ring_of(blob, tenant), self.context(record, tenant)
        return decode_value(self._open(ring, blob, context), self._expected)

    def decrypt_many(
        self, ciphertexts: Iterable[tuple[bytes | str | None, object]], *, tenant: str | None = None
    ) -> list[object]:
        """Return the value of each (ciphertext, record), all of one tenant; order kept. Errors as ``decrypt``."""
        tail, head, expected = _tail(tenant), self._head, self._expected
        ring = None if self.field.has_subjects else self.ring(tenant)
        messages: list[tuple[bytes, bytes]] = []
        nulls: list[int] = []
        for ciphertext, record in ciphertexts:
            if ciphertext is None:
                nulls.append(len(messages) + len(nulls))
            else:
                blob = ciphertext if ciphertext.__class__ is bytes else as_binary(ciphertext)
                messages.append((blob, head + _record(record) + tail))
        opened = None
        if ring is not None:
            # One of them may be of a former keyring, or of a key that can be fetched.
            with contextlib.suppress(DataKeyNotLoadedError, DecryptionError):
                opened = open_all(ring, messages)
        if opened is None:
            opened = [self._open(self.ring_of(blob, tenant), blob, context) for blob, context in messages]
        values = [decode_value(data, expected) for data in opened]
        for position in nulls:
            values.insert(position, None)
        return values

    def typed(self, value: object) -> bytes:
        """Return the typed plaintext that ``encrypt`` seals; None is of the type null.

        Raises:
            InvalidInputError: a value of another type, or one that is a ciphertext already.
        """
        return self._encode(value)

    def reseal(self, ciphertext: bytes, *, record: object, tenant: str | None = None, subject: object = None) -> bytes:
        """Return the same plaintext under the active version of the field's keyring, and for the same record.

        Raises:
            DecryptionError, KMSError: as ``decrypt`` and ``encrypt``.
        """
        context = self.context(record, tenant)
        plaintext = self._open(self.ring_of(ciphertext, tenant), ciphertext, context)
        name = self.field.subject_name(record, subject)
        return seal_all(self.ring(tenant, name), ((plaintext, context),))[0]

    def needs_reencrypt(self, ciphertext: bytes | str, *, tenant: str | None = None) -> bool:
        """Return whether ``ciphertext`` is under another version than the active one, or another keyring."""
        if not self.field.has_subjects:
            return self.ring(tenant).needs_reencrypt(ciphertext)
        ring = self.ring_of(as_binary(ciphertext), tenant)
        return not is_of_subject(ring.name) or ring.needs_reencrypt(ciphertext)

    def context(self, record: object, tenant: str | None) -> bytes:
        """Return the encoded context that binds a value."""
        return self.contexts_of(tenant)(record)

    def contexts_of(self, tenant: str | None) -> Callable[[object], bytes]:
        """Return what gives ``context`` for one record of a tenant after the other."""
        head, tail = self._head, _tail(tenant)

        def context(record: object) -> bytes:
            return head + _record(record) + tail

        return context

    def ring(self, tenant: str | None, subject: str | None = None) -> Keyring:
        """Return the keyring that encrypts a tenant's values, or a subject's, by the name that ``subject_of`` gives.

        Raises:
            KeyringNotLoadedError: it is not loaded.
        """
        if self.field.has_subjects:
            return self.rings_of({subject or ""}, tenant)[subject or ""]
        name = self.field.keyring_of(tenant)
        ring = self.keyrings.find(name)
        if ring is None:
            raise _not_loaded(name, self.field)
        return ring

    def rings_of(self, subjects: Collection[str], tenant: str | None) -> Mapping[str, Keyring]:
        """Return the keyrings of subjects by their names; errors as ``ring``."""
        self.field.require_tenant(tenant)
        rings = self.keyrings.find_subjects(subjects)
        if len(rings) < len(subjects):
            raise KeyringNotLoadedError(
                f"the keyring of a subject of field {self.field.id} is not loaded in this process; "
                "`await km.load_fields(field, subjects=[...])` loads those of the rows at hand, by the ids that name "
                "them"
            )
        return rings

    def ring_of(self, ciphertext: bytes, tenant: str | None) -> Keyring:
        """Return the keyring a ciphertext is under: the field's own, or a former one that holds its data key.

        Raises:
            KeyringNotLoadedError: as ``ring``.
            DataKeyNotLoadedError: of a field of subjects, one that nobody has loaded.
        """
        ring = None if self.field.has_subjects else self.ring(tenant)
        if ring is not None and not self.field.former_keyrings:
            return ring
        key_id = parse_header(ciphertext).key_id
        if ring is None:
            self.field.require_tenant(tenant)
            holder = self.keyrings.find_holder(key_id)
            if holder is not None and is_of_subject(holder.name):
                return holder
        elif key_id in ring.snapshot.keys:
            return ring
        for name in self.field.former_keyrings_of(tenant):
            former = self.keyrings.find_former(name)
            if former is not None and key_id in former.snapshot.keys:
                return former
        if ring is None:
            raise self._missing(key_id)
        return ring

    def index_values(self, value: object, *, tenant: str | None = None) -> dict[str, bytes | None]:
        """Return what every index column of a row with ``value`` must hold; None for a parity without a live key.

        Raises:
            InvalidInputError: a tenant missing, too many or not as text.
            StaleViewError: this process may not know of every live index key.
            KeyringNotLoadedError: the index keyring is not loaded.
        """
        return self.index_many((value,), tenant=tenant)[0]

    def index_many(self, values: Sequence[object], *, tenant: str | None = None) -> list[dict[str, bytes | None]]:
        """Return ``index_values`` of each value, all of one tenant; order kept, errors as there."""
        self.field.require_tenant(tenant)
        self.keyrings.require_current_view()
        empty: dict[str, bytes | None] = dict.fromkeys(self.field.index_columns)
        if not empty or all(value is None for value in values):
            return [empty.copy() for _ in values]
        made = [
            (
                index.column(self.field.column, version % 2),
                version_mark(version),
                index.hasher(key, self.field.id, tenant or "", self._type),
            )
            for version, key in self._index_keys()
            for index in self.field.indexes
            if not index.many
        ]
        rows = []
        for value in values:
            rows.append(columns := empty.copy())
            if value is not None:
                for column, mark, hashed in made:
                    columns[column] = mark + hashed(value)
        return rows

    def token_values(self, index: Index, value: object, *, tenant: str | None = None) -> list[bytes]:
        """Return what a token index must hold for a row with ``value``: its words' hashes under each live index key."""
        self.field.require_tenant(tenant)
        self.keyrings.require_current_view()
        if value is None:
            return []
        return [
            version_mark(version) + digest
            for version, key in self._index_keys()
            for digest in index.hashes(key, self.field.id, tenant or "", value, self._type)
        ]

    def query_values(self, index: Index, value: object, *, tenant: str | None = None) -> dict[int, bytes]:
        """Return the stored hash to look for under each live index key, by the version's parity.

        Raises:
            InvalidInputError: a value the index cannot look for, or a tenant missing, too many or not as text.
            KeyringNotLoadedError: the index keyring is not loaded.
        """
        self.field.require_tenant(tenant)
        return {
            version % 2: version_mark(version) + index.hasher(key, self.field.id, tenant or "", self._type)(value)
            for version, key in self._index_keys()
        }

    @property
    def index_versions(self) -> tuple[int, ...]:
        """The live versions of the index keyring, oldest first; empty where the field has no index."""
        return tuple(version for version, _ in self._index_keys()) if self.field.indexes else ()

    def _encrypt_for_subjects(
        self, values: list[tuple[object, object]], tenant: str | None, subject: object
    ) -> list[bytes | None]:
        of_subject: dict[str, list[int]] = {}
        for position, (value, record) in enumerate(values):
            if value is not None or self.field.encrypt_null:
                of_subject.setdefault(self.field.subject_name(record, subject) or "", []).append(position)
        rings, context = self.rings_of(of_subject.keys(), tenant), self.contexts_of(tenant)
        sealed: list[bytes | None] = [None] * len(values)
        for name, positions in of_subject.items():
            messages = [(self._encode(values[at][0]), context(values[at][1])) for at in positions]
            for at, ciphertext in zip(positions, seal_all(rings[name], messages), strict=True):
                sealed[at] = ciphertext
        return sealed

    def _missing(self, key_id: int) -> DataKeyNotLoadedError:
        return DataKeyNotLoadedError(
            key_id,
            f"data key {key_id} of field {self.field.id} is not loaded in this process; "
            "`await km.prefetch(rows)` fetches what rows need from the store",
        )

    def _open(self, ring: Keyring, ciphertext: bytes, context: bytes) -> bytes:
        try:
            return open_one(ring, ciphertext, context)
        except DataKeyNotLoadedError as exc:
            if not self.keyrings.fetch(ring, exc.data_key_id):
                raise self._missing(exc.data_key_id) from None
            return open_one(ring, ciphertext, context)

    def _index_keys(self) -> list[tuple[int, bytes]]:
        ring = self.keyrings.find_index(self.field.index_keyring)
        if ring is None:
            raise _not_loaded(self.field.index_keyring, self.field)
        return ring.copy_all()

    @property
    def _expected(self) -> ValueType | None:
        return None if self.field.encrypt_null else self._type

    def _encoder(self) -> Callable[[object], bytes]:
        """Return what makes the typed plaintext of a value of this field's type."""
        kind, refuses_sealed = self._type, not self.field.allow_envelopes

        def encode(value: object) -> bytes:
            if value is None:
                return encode_value(None)
            if refuses_sealed and isinstance(value, bytes | bytearray | memoryview) and bytes(value[:1]) == _MAGIC:
                self._refuse_sealed(bytes(value))
            return encode_value(value, kind)

        def encode_text(value: object) -> bytes:
            if value.__class__ is not str:
                return encode(value)
            text: str = value
            if refuses_sealed and text.startswith(TEXT_PREFIX):
                self._refuse_sealed(text)
            try:
                return _TEXT + text.encode()
            except UnicodeEncodeError:
                return encode_value(value, kind)  # which says what is wrong

        return encode_text if kind is ValueType.TEXT else encode

    def _refuse_sealed(self, content: bytes | str) -> None:
        """Refuse a value that is a ciphertext of a keyring of this process: it would be encrypted twice."""
        try:
            key_id = parse_header(as_binary(content)).key_id
        except InvalidCiphertextError:
            return
        if self.keyrings.owner_of(key_id) is not None:
            raise InvalidInputError(
                f"the value for field {self.field.id} is a ciphertext of this store already; decrypt it first, or "
                "declare the field with allow_envelopes=True"
            )


def _record(record: object) -> bytes:
    """Return the encoded record, with its length in front."""
    try:
        name = b"%d" % record if record.__class__ is int else record_text(record).encode()
    except UnicodeEncodeError:
        raise InvalidInputError("a record's name has a lone surrogate, which UTF-8 cannot encode") from None
    except InvalidInputError:
        raise
    except ValueError:
        raise too_many_digits() from None
    return (_LENGTHS[len(name)] if len(name) < 256 else _u32(len(name))) + name


def _tail(tenant: str | None) -> bytes:
    return b"" if tenant is None else encode_context({"keystead.tenant": tenant})


def _not_loaded(name: str, field: Field) -> KeyringNotLoadedError:
    return KeyringNotLoadedError(
        f"keyring {name!r} of field {field.id} is not loaded in this process; `await km.load_fields(field)` loads it"
        + (", with tenants=[...] the ones of tenants" if field.tenant else "")
    )
