"""Records of FraiseQL 1.x: the JSON of what its ``encrypt`` and ``encrypt_field`` gave, as ``to_dict()`` has it.

What its ``local_encrypt`` gave is lost with the process that made it, and is no such record. Spec:
docs/spec/legacy-forms.md, section 8.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Final, cast

from keystead.crypto.legacy import OVERHEAD, decrypt_value, fraiseql_local_aads
from keystead.errors import DecryptionError, InvalidCiphertextError, InvalidInputError, KMSError
from keystead.fields.importing.form import Keys, keys_of, not_of, not_opened
from keystead.model import EncryptedData
from keystead.ports import ReadsForeignData

_NAME: Final = "fraiseql"
_MEMBERS: Final = frozenset({"ciphertext", "key_id", "algorithm"})
_AT_ONCE: Final = 16
"""How many values a KMS is asked for at the same time."""


class _Records:
    def recognises(self, value: bytes) -> bool:
        """Return whether it is the JSON of a record that FraiseQL wrote, and not one of Keystead's."""
        return value[:1] == b"{" and _record(value) is not None


class _LocalRecords(_Records):
    """Of its local KMS, under its master key."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        if any(len(key) not in (16, 24, 32) for key in keys):
            raise InvalidInputError("keys of format fraiseql are master keys of its local KMS: 32 bytes each")
        self._keys = keys

    def open(self, value: bytes) -> object:
        """Return the text, or the bytes, of a record."""
        record = _parsed(value)
        for key in self._keys:
            for aad in fraiseql_local_aads(record.context):
                try:
                    return _typed(decrypt_value(key, record.ciphertext, aad), record)
                except DecryptionError:
                    continue
        raise not_opened()


class _KmsRecords(_Records):
    """Of a KMS, through its provider."""

    def __init__(self, providers: Mapping[str, ReadsForeignData]) -> None:
        self._providers = dict(providers)

    async def open_many(self, values: Sequence[bytes]) -> list[object | KMSError]:
        """Return the text, or the bytes, of each record, or why it does not open."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def opened(value: bytes) -> object | KMSError:
            try:
                record = _parsed(value)
                provider = self._providers.get(record.key_reference.provider)
                if provider is None:
                    return InvalidCiphertextError("a record of a provider that the importer was not given")
                async with turns:
                    return _typed(await provider.decrypt_foreign(record), record)
            except DecryptionError as exc:
                return exc

        return list(await asyncio.gather(*map(opened, values)))


def records_of(keys: Keys | None = None, providers: Mapping[str, ReadsForeignData] | None = None) -> _Records:
    """Return what opens FraiseQL's records.

    Args:
        keys: master keys of its local KMS, 32 bytes each.
        providers: Keystead's providers by the names of FraiseQL's own: ``{"vault": VaultKMSProvider(...)}``.

    Raises:
        InvalidInputError: neither, both, or something else.
    """
    if (keys is None) == (providers is None):
        raise InvalidInputError(
            "format fraiseql takes keys=, master keys of its local KMS, or providers=, such as "
            "{'vault': VaultKMSProvider(...)}"
        )
    if keys is not None:
        return _LocalRecords(keys_of(keys, _NAME))
    given = cast(Mapping[str, ReadsForeignData], providers)
    if not given or not all(isinstance(each, ReadsForeignData) for each in given.values()):
        raise InvalidInputError("providers= of format fraiseql are providers of Keystead that read FraiseQL's data")
    return _KmsRecords(given)


def _record(value: bytes) -> Mapping[str, object] | None:
    try:
        members = json.loads(value)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(members, dict) and "version" in members
    return members if isinstance(members, dict) and not is_ours and members.keys() >= _MEMBERS else None


def _parsed(value: bytes) -> EncryptedData:
    try:
        record = EncryptedData.from_dict(_record(value) or {})
    except (InvalidInputError, DecryptionError):
        raise not_of(_NAME) from None
    if len(record.ciphertext) < OVERHEAD and record.key_reference.provider == "local":
        raise not_of(_NAME)
    return record


def _typed(plaintext: bytes, record: EncryptedData) -> object:
    if record.context.get("_encoding") != "utf-8":
        return plaintext
    try:
        return plaintext.decode()
    except UnicodeDecodeError:
        raise not_opened() from None
