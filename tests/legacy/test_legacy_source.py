from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keystead.errors import ConfigurationError, ForeignSchemaError, StorageOperationError
from keystead.stores.legacy_source import read_legacy_keys
from tests.legacy.sources import FIRST, KEY, LAYOUTS, WRAPPED, OldKey, build, old_keys


def one_row(path: Path, created: object, wrapped: object = WRAPPED) -> str:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE data_keys (version, encrypted_key, created_at)")
        db.execute("INSERT INTO data_keys VALUES ('v1', ?, ?)", (wrapped, created))
    db.close()
    return f"sqlite:///{path}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_read_oldest_first_in_every_layout(source: str, layout: str) -> None:
    keys = old_keys(3, layout)
    build(source, layout, list(reversed(keys)))

    found = read_legacy_keys(source)

    assert [(key.version, key.wrapped_key) for key in found] == [(key.version, key.wrapped) for key in keys]
    assert [key.created_at for key in found] == [key.created_at for key in keys] or layout == "data_keys"
    assert found[0].expires_at is not None


def test_a_key_in_clear_is_read_and_never_printed(source: str) -> None:
    build(source, "data_keys", [OldKey(clear=KEY)])

    (found,) = read_legacy_keys(source)

    assert found.exposed_key == KEY
    assert "exposed_key" not in repr(found)


def test_a_revoked_status_is_read(old_db: str) -> None:
    build(old_db, "kms_data_keys", [OldKey("1", status="revoked"), OldKey("2", status="expired")])

    assert [key.is_revoked for key in read_legacy_keys(old_db)] == [True, False]


def test_both_tables_are_read_where_both_exist(old_db: str) -> None:
    one, two = old_keys(2)
    build(old_db, "data_keys", [one])
    build(old_db, "guide", [two])

    assert [key.version for key in read_legacy_keys(old_db)] == [one.version, two.version]


def test_the_schema_of_a_postgresql_source_can_be_named(postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA old")
        connection.execute("CREATE TABLE old.data_keys (version text, encrypted_key bytea)")
        connection.execute("INSERT INTO old.data_keys VALUES ('v1', '\\x00')")

    assert [key.version for key in read_legacy_keys(postgres_url, schema="old")] == ["v1"]
    with pytest.raises(ConfigurationError, match="neither a table"):
        read_legacy_keys(postgres_url)


@pytest.mark.parametrize(
    "created",
    [
        "2023-11-14 22:13:20",
        "2023-11-14T22:13:20Z",
        "2023-11-14 22:13:20.000000000+00:00",
        "2023-11-14 23:13:20.000000999 +0100 CET",
        "2023-11-14 22:13:20 +0000 UTC m=+0.01",
        "2023-11-14 17:13:20-05",
    ],
)
def test_a_time_is_read_however_a_driver_wrote_it(tmp_path: Path, created: str) -> None:
    (found,) = read_legacy_keys(one_row(tmp_path / "old.db", created))

    assert found.created_at == FIRST


@pytest.mark.parametrize("created", [None, "", "yesterday", "2023-13-14 22:13:20", 1_700_000_000])
def test_a_time_that_cannot_be_read_is_none(tmp_path: Path, created: object) -> None:
    (found,) = read_legacy_keys(one_row(tmp_path / "old.db", created))

    assert found.created_at is None


def test_a_time_of_a_driver_without_zone_is_utc(postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE data_keys (version text, encrypted_key bytea, created_at timestamp)")
        connection.execute("INSERT INTO data_keys VALUES ('v1', '\\x00', '2023-11-14 22:13:20')")

    assert read_legacy_keys(postgres_url)[0].created_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (WRAPPED.hex(), WRAPPED),
        ("AAECAwQFBgcICQoLNGe4", bytes.fromhex("000102030405060708090a0b3467b8")),
        ("not either!", b"not either!"),
        (None, b""),
    ],
)
def test_a_wrapped_key_kept_as_text_is_decoded(tmp_path: Path, stored: object, read: bytes) -> None:
    (found,) = read_legacy_keys(one_row(tmp_path / "old.db", None, stored))

    assert found.wrapped_key == read


def test_versions_order_rows_without_times(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE kms_data_keys (version, encrypted_key)")
        db.executemany("INSERT INTO kms_data_keys VALUES (?, x'00')", [(10,), (9,), ("x",)])
    db.close()

    assert [key.version for key in read_legacy_keys(f"sqlite:///{path}")] == ["x", "9", "10"]


def test_the_source_file_is_opened_read_only(tmp_path: Path) -> None:
    url = one_row(tmp_path / "old.db", None)
    before = (tmp_path / "old.db").read_bytes()
    (tmp_path / "old.db").chmod(0o400)

    read_legacy_keys(url)

    assert (tmp_path / "old.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["old.db"]


def test_a_file_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageOperationError, match="cannot be opened"):
        read_legacy_keys(f"sqlite:///{tmp_path / 'none.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_a_key_table_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "old.db") as db:
        db.execute("CREATE TABLE users (id)")
    db.close()

    with pytest.raises(ConfigurationError, match="neither a table data_keys nor kms_data_keys"):
        read_legacy_keys(f"sqlite:///{tmp_path / 'old.db'}")


def test_a_table_of_the_name_without_its_columns_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "old.db") as db:
        db.execute("CREATE TABLE data_keys (id)")
    db.close()

    with pytest.raises(ForeignSchemaError, match="no columns version and encrypted_key"):
        read_legacy_keys(f"sqlite:///{tmp_path / 'old.db'}")


def test_a_memory_source_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="in memory"):
        read_legacy_keys("memory://")
