"""Columns of Arrow tables: each value bound to its record, as in a database."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from keystead import Field, blocking
from keystead.errors import DecryptionError, InvalidInputError
from keystead.integrations.parquet import decrypt_column, encrypt_column

IDS = pa.array([1, 2, 3])
VALUES: list[tuple[Any, pa.Array]] = [
    (str, pa.array(["a", None, "zo\u00eb"])),
    (bytes, pa.array([b"a", None, b""])),
    (int, pa.array([1, None, -(2**60)])),
    (float, pa.array([1.5, None, -0.25])),
    (bool, pa.array([True, None, False])),
    (date, pa.array([date(2030, 1, 1), None, date(1970, 1, 1)])),
    (datetime, pa.array([datetime(2030, 1, 1, 12, 30, tzinfo=UTC), None, None], pa.timestamp("us", tz="UTC"))),
    (UUID, pa.array([UUID(int=1), None, UUID(int=2**127)], pa.uuid())),
    (Decimal, pa.array([Decimal("1.50"), None, Decimal("22.25")])),
    (dict, pa.array([{"a": 1}, None, {"a": 2}])),
]


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=lambda each: getattr(each, "__name__", ""))
def test_a_column_of_any_type_comes_back(km: blocking.KeyManager, kind: Any, values: pa.Array) -> None:
    cipher = km.field(Field("people", "secret", type=kind))
    sealed = encrypt_column(cipher, values, records=IDS)
    assert sealed.type == pa.binary()
    assert sealed.null_count == values.null_count
    assert decrypt_column(cipher, sealed, records=IDS).equals(values)


def test_it_is_what_a_database_has(km: blocking.KeyManager) -> None:
    cipher = km.field(Field("people", "email"))
    sealed = encrypt_column(cipher, pa.chunked_array([["a"], ["b", "c"]]), records=pa.chunked_array([[1, 2], [3]]))
    opened = [cipher.decrypt(blob, record=number) for number, blob in enumerate(sealed.to_pylist(), start=1)]
    assert opened == ["a", "b", "c"]


def test_values_that_change_places_do_not_open(km: blocking.KeyManager) -> None:
    cipher = km.field(Field("people", "email"))
    sealed = encrypt_column(cipher, pa.array(["a", "b", "c"]), records=IDS)
    with pytest.raises(DecryptionError):
        decrypt_column(cipher, sealed.take(pa.array([1, 0, 2])), records=IDS)
    with pytest.raises(DecryptionError):
        decrypt_column(km.field(Field("people", "name")), sealed, records=IDS)


def test_records_of_several_columns_and_tenants(km: blocking.KeyManager) -> None:
    field = Field("people", "email", record=("region", "number"), tenant="owner")
    records = pa.array([{"region": "n", "number": 1}, {"region": "n", "number": 2}])
    sealed = encrypt_column(km.field(field), pa.array(["a", "b"]), records=records, tenant="t")
    assert decrypt_column(km.field(field), sealed, records=records, tenant="t").to_pylist() == ["a", "b"]
    with pytest.raises(DecryptionError):
        decrypt_column(km.field(field), sealed, records=records, tenant="u")


def test_the_type_of_the_column_can_be_given(km: blocking.KeyManager) -> None:
    cipher = km.field(Field("people", "age", type=int))
    sealed = encrypt_column(cipher, pa.array([1, 2, 3]), records=IDS)
    assert decrypt_column(cipher, sealed, records=IDS, type=pa.int8()).type == pa.int8()


def test_each_value_needs_a_record_and_its_type(km: blocking.KeyManager) -> None:
    cipher = km.field(Field("people", "email"))
    with pytest.raises(InvalidInputError, match="3 values and 2 records"):
        encrypt_column(cipher, pa.array(["a", "b", "c"]), records=pa.array([1, 2]))
    with pytest.raises(InvalidInputError):
        encrypt_column(cipher, pa.array(["a", "b", "c"]), records=pa.array([1, None, 3]))
    with pytest.raises(InvalidInputError):
        encrypt_column(cipher, pa.array([1, 2, 3]), records=IDS)
