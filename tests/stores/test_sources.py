"""A destroy looks through every declared source, sees every ciphertext there, and takes no failure for "none"."""

from __future__ import annotations

import base64
import os
import sqlite3
from pathlib import Path

import psycopg
import pytest

from keystead.errors import InvalidInputError, KMSError, StorageOperationError
from keystead.stores import sources
from keystead.stores.sources import scan
from tests.fakes.prepared import prepared

KEY, OTHER, ABSENT = 0x1122334455667788, 2**63 - 1, 7


def envelope(key_id: int, suite: int = 1, body: bytes = b"\x00" * 60) -> bytes:
    return bytes((0xAE, suite)) + key_id.to_bytes(8, "big") + os.urandom(28) + body


def token(key_id: int, suite: int = 1) -> str:
    return "ks1." + base64.urlsafe_b64encode(envelope(key_id, suite)).rstrip(b"=").decode()


async def hits(locator: str) -> dict[int, int]:
    return await scan(locator, [KEY, OTHER, ABSENT])


@pytest.mark.parametrize("suite", [0x01, 0x04, 0x05, 0x10])
async def test_a_file_that_is_an_envelope_is_a_hit(tmp_path: Path, suite: int) -> None:
    (tmp_path / "a.bin").write_bytes(envelope(KEY, suite))
    assert await hits(f"file:{tmp_path}/a.bin") == {KEY: 1, OTHER: 0, ABSENT: 0}


async def test_every_token_of_a_text_file_is_a_hit(tmp_path: Path) -> None:
    rows = [f"{n},{token(KEY)},{token(OTHER, 0x10)}" for n in range(500)]
    (tmp_path / "people.csv").write_text("id,name,mail\n" + "\n".join(rows))
    assert await hits(f"file:{tmp_path}/*.csv") == {KEY: 500, OTHER: 500, ABSENT: 0}


async def test_envelopes_inside_a_file_of_another_format_are_hits(tmp_path: Path) -> None:
    (tmp_path / "rows.db").write_bytes(b"\xae\x01" + envelope(KEY) + b"padding" + envelope(KEY) + envelope(OTHER))
    assert await hits(f"file:{tmp_path}/rows.db") == {KEY: 2, OTHER: 1, ABSENT: 0}


@pytest.mark.parametrize("offset", range(-20, 4))
async def test_a_hit_across_two_reads_counts_once(tmp_path: Path, offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CHUNK_BYTES", 64)
    (tmp_path / "a").write_bytes(b"." * (64 + offset) + envelope(KEY) + b"." * 70 + token(OTHER).encode())
    assert await hits(f"file:{tmp_path}/a") == {KEY: 1, OTHER: 1, ABSENT: 0}


async def test_a_pattern_reaches_hidden_and_nested_files(tmp_path: Path) -> None:
    for name in ("a.bin", ".hidden.bin", "x/b.bin", "x/.y/c.bin", "x/other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(envelope(KEY))
    (tmp_path / "x" / "again").symlink_to(tmp_path)
    assert (await hits(f"file:{tmp_path}/**/*.bin"))[KEY] == 4
    assert (await hits(f"file:{tmp_path}/*/*.bin"))[KEY] == 1
    assert (await hits(f"file:{tmp_path}/x/**"))[KEY] >= 3


async def test_a_relative_pattern_begins_at_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.bin").write_bytes(envelope(KEY))
    assert (await hits("file:*.bin"))[KEY] == 1


@pytest.mark.parametrize("pattern", ["absent.bin", "absent/*.bin", "*.bin", "**/*.bin", "broken"])
async def test_a_source_that_is_not_there_is_an_error(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageOperationError):
        await hits(f"file:{tmp_path}/{pattern}")


async def test_a_pipe_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageOperationError, match="regular"):
        await hits(f"file:{tmp_path}/*")


async def test_a_folder_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageOperationError, match="names no file"):
        await hits(f"file:{tmp_path}")


async def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.bin").write_bytes(envelope(KEY))
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageOperationError, match="cannot be read"):
        await hits(f"file:{tmp_path}/**/*.bin")


def _columns(connection: sqlite3.Connection | psycopg.Connection, binary: str, sign: str) -> None:
    connection.execute(f"CREATE TABLE people (id INTEGER, sealed {binary}, note TEXT)")
    rows = [
        (1, envelope(KEY), token(KEY)),
        (2, envelope(KEY, 0x10), f'{{"mail": "{token(KEY, 0x05)}"}}'),
        (3, b"prefix" + envelope(OTHER), "plain"),
        (4, token(KEY).encode(), token(OTHER)),
        (5, None, None),
    ]
    for row in rows:
        connection.execute(f"INSERT INTO people VALUES ({sign}, {sign}, {sign})", row)
    connection.commit()


@pytest.fixture(params=["sqlite", "sqlite in UTF-16", "postgresql"])
def people_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of an application, with ciphertexts in a binary and in a text column."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        with psycopg.connect(url) as server:
            _columns(server, "bytea", "%s")
        return url
    file = sqlite3.connect(tmp_path / "app.db")
    if request.param == "sqlite in UTF-16":
        file.execute("PRAGMA encoding = 'UTF-16'")
    _columns(file, "BLOB", "?")
    file.close()
    return f"sqlite:///{tmp_path}/app.db"


async def test_rows_of_a_binary_column_are_hits(people_url: str) -> None:
    assert await hits(f"sql:{people_url}#people.sealed") == {KEY: 3, OTHER: 1, ABSENT: 0}


async def test_rows_of_a_text_column_are_hits(people_url: str) -> None:
    assert await hits(f"sql:{people_url}#people.note") == {KEY: 2, OTHER: 1, ABSENT: 0}


async def test_many_keys_are_looked_for_in_batches(people_url: str) -> None:
    found = await scan(f"sql:{people_url}#people.sealed", [*range(1, 50), KEY])
    assert (found[KEY], sum(found.values()), len(found)) == (3, 3, 50)


@pytest.mark.parametrize("target", ["people.absent", "absent.sealed", "nowhere.people.sealed"])
async def test_a_column_that_is_not_there_is_an_error(people_url: str, target: str) -> None:
    with pytest.raises(StorageOperationError):
        await hits(f"sql:{people_url}#{target}")


async def test_a_column_in_a_postgresql_schema_is_reached(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as server:
        server.execute("CREATE SCHEMA app")
        server.execute("SET search_path TO app")
        _columns(server, "bytea", "%s")
    assert (await hits(f"sql:{postgres_url}#app.people.sealed"))[KEY] == 3
    assert (await hits(f"sql:{postgres_url}&schema=app#people.sealed"))[KEY] == 3


async def test_a_prepared_transaction_whose_rows_nobody_sees_is_an_error(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as server:
        _columns(server, "bytea", "%s")
        server.execute("CREATE TABLE others (sealed bytea)")
    with prepared(postgres_url, "INSERT INTO people VALUES (6, %s, NULL)", (envelope(KEY),)) as commit:
        assert (await hits(f"sql:{postgres_url}#others.sealed"))[KEY] == 0
        with pytest.raises(StorageOperationError, match="pg_prepared_xacts"):
            await hits(f"sql:{postgres_url}#people.sealed")
        commit()
    assert (await hits(f"sql:{postgres_url}#people.sealed"))[KEY] == 4


async def test_a_source_file_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StorageOperationError):
        await hits(f"sql:sqlite:///{tmp_path}/absent.db#people.sealed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "locator",
    [
        "",
        "people",
        "file:",
        "ftp:people",
        "app:orders",
        "sql:sqlite:///app.db",
        "sql:sqlite:///app.db#people",
        "sql:sqlite:///app.db#people.note; DROP TABLE people",
        'sql:sqlite:///app.db#people"."note',
        "sql:memory://#people.note",
        "sql:mysql://user:test-password@host/db#people.note",
    ],
)
async def test_a_locator_that_names_no_source_is_refused(locator: str) -> None:
    with pytest.raises(KMSError) as caught:
        await hits(locator)
    assert "test-password" not in str(caught.value)
    assert not isinstance(caught.value, StorageOperationError)


async def test_a_source_of_the_application_is_left_to_it() -> None:
    with pytest.raises(InvalidInputError, match="application itself"):
        await hits("app:orders")
