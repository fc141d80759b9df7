"""What sqlalchemy-utils wrote is read, of each engine, padding and type; the values are of the real library."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy_utils import EncryptedType, StringEncryptedType
from sqlalchemy_utils.types.encrypted.encrypted_type import AesEngine, AesGcmEngine, FernetEngine

from keystead.errors import DecryptionError, InvalidInputError
from keystead.fields import importer

UNTIL = date(2099, 12, 31)
KEY = "the key of the column"
ENGINES: list[tuple[str, Any, str | None]] = [
    ("aes", AesEngine, None),
    ("aes", AesEngine, "naive"),
    ("aes", AesEngine, "pkcs5"),
    ("aes", AesEngine, "oneandzeroes"),
    ("aes", AesEngine, "zeroes"),
    ("aes-gcm", AesGcmEngine, None),
    ("fernet", FernetEngine, None),
]
VALUES: list[tuple[Any, object]] = [
    (sa.Unicode, "Ada Lovelace, née Byron ✓"),
    (sa.Unicode, ""),
    (sa.String, "sixteen bytes ok"),
    (sa.Integer, -42),
    (sa.Float, 2.5),
    (sa.Boolean, True),
    (sa.Boolean, False),
    (sa.Date, date(1815, 12, 10)),
    (sa.DateTime, datetime(2026, 2, 1, 8, 15, 30, tzinfo=UTC).replace(tzinfo=None)),
]


def options(engine: str, padding: str | None) -> dict[str, Any]:
    """Return an importer's options for a column's."""
    return {"keys": KEY, "engine": engine, "until": UNTIL, **({"padding": padding} if padding else {})}


def stored(column: Any, value: object) -> Any:
    """Return what a real table holds for a value."""
    engine = sa.create_engine("sqlite://")
    table = sa.Table("t", sa.MetaData(), sa.Column("value", column))
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(table.insert().values(value=value))
        found = connection.execute(sa.text("SELECT value FROM t")).scalar_one()
    engine.dispose()
    return found


@pytest.mark.parametrize(("engine", "kind", "padding"), ENGINES)
def test_every_type_is_read_from_a_table(engine: str, kind: Any, padding: str | None) -> None:
    for sqltype, value in VALUES:
        found = stored(StringEncryptedType(sqltype, KEY, kind, padding), value)
        reading = importer("sqlalchemy-utils", **options(engine, padding), type=type(value))
        expected = value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
        assert reading.recognises(found)
        assert reading.read(found) == expected
        assert reading.read(found.encode()) == expected


def test_the_binary_type_is_read_as_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = stored(EncryptedType(sa.Unicode, KEY), "value")
    assert isinstance(found, bytes)
    assert importer("sqlalchemy-utils", **options("aes", None)).read(found) == "value"


@pytest.mark.parametrize("padding", ["naive", "pkcs5", "oneandzeroes", "zeroes"])
def test_old_values_can_be_looked_for_where_equal_ones_look_equal(padding: str) -> None:
    reading = importer("sqlalchemy-utils", **options("aes", padding))
    assert reading.finds_equal
    for value in ("", "a", "sixteen bytes ok", "né✓" * 20):
        assert reading.form_of(value) == stored(StringEncryptedType(sa.Unicode, KEY, AesEngine, padding), value)
    with pytest.raises(InvalidInputError, match="cannot be looked for by int"):
        reading.form_of(5)


@pytest.mark.parametrize("engine", ["aes-gcm", "fernet"])
def test_values_of_the_other_engines_cannot_be_looked_for(engine: str) -> None:
    reading = importer("sqlalchemy-utils", **options(engine, None))
    assert not reading.finds_equal
    with pytest.raises(InvalidInputError, match="search by an index"):
        reading.form_of("value")


@pytest.mark.parametrize("engine", ["aes-gcm", "fernet"])
def test_an_authenticated_engine_tells_another_key(engine: str) -> None:
    kind = {"aes-gcm": AesGcmEngine, "fernet": FernetEngine}[engine]
    found = stored(StringEncryptedType(sa.Unicode, "another key", kind), "value")
    with pytest.raises(DecryptionError):
        importer("sqlalchemy-utils", **options(engine, None)).read(found)
    both = importer("sqlalchemy-utils", keys=[KEY, "another key"], engine=engine, until=UNTIL)
    assert both.read(found) == "value"


def test_asterisks_at_the_end_are_lost_as_they_were_to_the_library() -> None:
    reading = importer("sqlalchemy-utils", **options("aes", None))
    for value in ("abc*", "fifteen bytes..*"):
        assert reading.read(stored(StringEncryptedType(sa.Unicode, KEY), value)) == value.rstrip("*")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"keys": ["a", "b"]}, "takes one key"),
        ({"keys": "a", "engine": "des"}, "aes, aes-gcm or fernet"),
        ({"keys": "a", "padding": "iso"}, "padding= of format"),
        ({"keys": "a", "engine": "fernet", "padding": "pkcs5"}, "for engine aes alone"),
        ({"keys": ""}, "number 1 is no text"),
        ({"keys": []}, "1 to 64 keys"),
        ({}, "needs keys="),
        ({"keys": "a", "kye": "b"}, "no option 'kye'"),
    ],
)
def test_what_cannot_be_is_refused_when_the_importer_is_made(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        importer("sqlalchemy-utils", until=UNTIL, **given)
