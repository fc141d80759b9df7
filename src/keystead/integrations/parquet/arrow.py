"""Values of an encrypted field as columns of Arrow tables: each bound to its record, as in a database."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import pyarrow as pa

from keystead.crypto.codec import ValueType
from keystead.errors import InvalidInputError
from keystead.fields import FieldCipher

Column: TypeAlias = "pa.Array | pa.ChunkedArray"

_TYPES: Final = {
    ValueType.BYTES: pa.binary(),
    ValueType.TEXT: pa.string(),
    ValueType.INTEGER: pa.int64(),
    ValueType.DATETIME: pa.timestamp("us", tz="UTC"),
    ValueType.DATE: pa.date32(),
    ValueType.UUID: pa.uuid(),
    ValueType.BOOL: pa.bool_(),
    ValueType.FLOAT: pa.float64(),
}
"""Other types are as wide as their values, which pyarrow looks at."""


def encrypt_column(cipher: FieldCipher, values: Column, *, records: Column, tenant: str | None = None) -> pa.Array:
    """Return a column of ciphertexts, each of which opens for its record alone; nothing stays nothing.

    Args:
        cipher: of ``km.field``; its keyrings are loaded.
        records: what names the record of each value, as ``Field.record`` says; of structs their values in order.
        tenant: whose they are, where the field has tenants.

    Raises:
        InvalidInputError: columns that are not of one length, values of another type, or a record without a name.
        KMSError: as ``cipher.encrypt_many``.
    """
    pairs = zip(values.to_pylist(), _records(records, len(values)), strict=True)
    return pa.array(cipher.encrypt_many(pairs, tenant=tenant), pa.binary())


def decrypt_column(
    cipher: FieldCipher,
    ciphertexts: Column,
    *,
    records: Column,
    tenant: str | None = None,
    type: pa.DataType | None = None,
) -> pa.Array:
    """Return a column of values.

    Args:
        type: of the column; that of the field's values unless given, for decimals and JSON what pyarrow makes of them.

    Raises:
        InvalidInputError: columns that are not of one length.
        DecryptionError: a ciphertext of another record, field or tenant, or an altered one.
        KMSError: as ``cipher.decrypt_many``.
    """
    pairs = zip(ciphertexts.to_pylist(), _records(records, len(ciphertexts)), strict=True)
    return pa.array(cipher.decrypt_many(pairs, tenant=tenant), type or _TYPES.get(cipher.field.value_type))


def _records(records: Column, count: int) -> list[Any]:
    if len(records) != count:
        raise InvalidInputError(f"there are {count} values and {len(records)} records: give each value its own")
    found = records.to_pylist()
    return [tuple(each.values()) if isinstance(each, dict) else each for each in found]
