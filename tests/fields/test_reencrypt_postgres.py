"""Tables as PostgreSQL may have them: types that only it knows, and rows that it hides from a role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from keystead.errors import StorageOperationError
from keystead.fields import Exact, Field, Tokens, plan, reencrypt
from keystead.stores.sources import scan
from tests.fakes.world import World
from tests.fields.application import EMAIL, Application, address

MOOD = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')"
ROLE = "keystead_test_reader"


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("mood", ["happy", "sad", "ok"]),
        ("number", [7, 3, 9]),
        ("code", ["b", "c", "a"]),
        ('TEXT COLLATE "C"', ["b", "B", "a"]),
        ('VARCHAR(8) COLLATE "POSIX"', ["b", "B", "a"]),
        ('"other schema".code', ["b", "c", "a"]),
        ("CHAR(3)", ["bbb", "ccc", "aaa"]),
        ("NUMERIC(6, 2)", [1, 3, 2]),
    ],
)
async def test_rows_are_read_by_keys_of_any_type(
    world: World, postgres_url: str, kind: str, names: list[int | str]
) -> None:
    app, field = Application(postgres_url), Field("people", "email", record="row", indexes=(Exact(), Tokens()))
    app.run(
        MOOD,
        "CREATE DOMAIN count AS BIGINT",
        "CREATE DOMAIN number AS count CHECK (VALUE > 0)",
        "CREATE DOMAIN code AS VARCHAR(8)",
        'CREATE SCHEMA "other schema"',
        'CREATE DOMAIN "other schema".code AS VARCHAR(4) NOT NULL',
        f"CREATE TABLE people (id {kind} PRIMARY KEY, row code UNIQUE, email BYTEA, spot POINT, feeling mood,"
        " email_exact_0 BYTEA, email_exact_1 BYTEA)",
        "CREATE TABLE people_email_tokens (record code, token BYTEA)",
    )
    async with world.open() as km:
        await km.load_fields(field)
        cipher = km.field(field)
        app.fill(
            "INSERT INTO people (id, row, email) VALUES (:a, :b, :c)",
            [(name, f"r{n}", cipher.encrypt(address(n), record=f"r{n}")) for n, name in enumerate(names)],
        )
        await km.rotate_data_key(promote="now")
        report = await reencrypt(km, app.url, field, batch_rows=1)
        assert (report.rewritten, report.failed, report.is_complete) == (3, 0, True)
        found = app.rows("SELECT row, email FROM people ORDER BY row")
        assert [cipher.decrypt(blob, record=row) for row, blob in found] == [address(n) for n in range(3)]


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMPTZ"])
@pytest.mark.parametrize("odd", ["infinity", "-infinity", "10000-01-01", "0044-03-15 BC"])
async def test_a_date_that_python_has_not_fails_its_row_alone(
    world: World, postgres_url: str, kind: str, odd: str
) -> None:
    app, field = Application(postgres_url), Field("people", "born", type="date" if kind == "DATE" else "datetime")
    app.run(f"CREATE TABLE people (id BIGINT PRIMARY KEY, born BYTEA, plain {kind})")
    app.fill("INSERT INTO people VALUES (:a, NULL, :b)", [(1, "1815-12-10"), (2, odd), (3, "1906-12-09")])
    async with world.open() as km:
        report = await reencrypt(km, app.url, field, plaintext_column="plain")
        assert [(failure.key, failure.reason) for failure in report.failures] == [("[2]", "invalid_input")]
        assert report.rewritten == 2
        assert app.rows("SELECT id, plain::text FROM people WHERE plain IS NOT NULL")[0][0] == 2


@contextmanager
def hidden_rows(app: Application) -> Iterator[Application]:
    """Give the database by the eyes of a role that a policy shows half of the rows."""
    app.run(
        f"CREATE ROLE {ROLE}",
        f"GRANT SELECT, UPDATE ON people TO {ROLE}",
        "ALTER TABLE people ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY half ON people USING (id % 2 = 0)",
    )
    try:
        yield Application(f"{app.url}{'&' if '?' in app.url else '?'}options=-c%20role%3D{ROLE}")
    finally:
        app.run(f"DROP OWNED BY {ROLE}", f"DROP ROLE {ROLE}")


async def test_rows_that_a_policy_hides_are_an_error_and_not_passed_by(world: World, postgres_url: str) -> None:
    app = Application(postgres_url)
    async with world.open() as km:
        app.make_people(km, 10)
        await km.rotate_data_key(promote="now")
        with hidden_rows(app) as seen:
            with psycopg.connect(seen.url) as connection:
                assert connection.execute("SELECT count(*) FROM people").fetchone() == (5,)
            for asked in (reencrypt, plan):
                with pytest.raises(StorageOperationError, match="BYPASSRLS"):
                    await asked(km, seen.url, EMAIL)


async def test_a_source_with_rows_that_a_policy_hides_cannot_be_looked_through(world: World, postgres_url: str) -> None:
    app = Application(postgres_url)
    async with world.open() as km:
        app.make_people(km, 10)
        key = (await km.get_active_data_key()).id
        with hidden_rows(app) as seen, pytest.raises(StorageOperationError, match="BYPASSRLS"):
            await scan(f"sql:{seen.url}#people.email", [key])
        assert await scan(f"sql:{app.url}#people.email", [key]) == {key: 10}
