"""The first encryption of a column in clear, and of what stands for nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keystead.fields import Exact, Field, Index, Tokens, reencrypt
from tests.fakes.world import World
from tests.fields.application import EMAIL, Application, address
from tests.fields.test_reencrypt import values


async def test_a_plaintext_column_is_encrypted_and_emptied(world: World, app: Application) -> None:
    async with world.open() as km:
        app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES, email_plain TEXT)")
        app.fill("INSERT INTO people VALUES (:a, NULL, :b)", [(n, address(n)) for n in range(1, 31)])
        app.run("INSERT INTO people VALUES (31, NULL, NULL)")
        report = await reencrypt(km, app.url, EMAIL, plaintext_column="email_plain", batch_rows=8)
        assert (report.rewritten, report.skipped) == (30, 1)
        assert app.rows("SELECT count(*) FROM people WHERE email_plain IS NOT NULL") == [(0,)]
        assert values(app, km) == {n: address(n) for n in range(1, 31)} | {31: None}


async def test_numbers_and_times_of_a_plaintext_column_keep_their_type(world: World, app: Application) -> None:
    field = Field("people", "born", type="date")
    async with world.open() as km:
        app.run(
            "CREATE TABLE people (id BIGINT PRIMARY KEY, born BYTES, plain DATE)",
            "INSERT INTO people VALUES (1, NULL, '1815-12-10')",
        )
        assert (await reencrypt(km, app.url, field, plaintext_column="plain")).rewritten == 1
        (blob,) = app.rows("SELECT born FROM people")[0]
        assert str(km.field(field).decrypt(blob, record=1)) == "1815-12-10"


@pytest.mark.parametrize("kind", ["JSON", "JSONB", "TEXT"])
async def test_a_plaintext_column_of_json_keeps_texts_that_look_like_json(
    world: World, app: Application, kind: str
) -> None:
    field = Field("people", "doc", type=dict)
    held = {1: '{"a": [1, true]}', 2: '"123"', 3: '"abc"', 4: "123", 5: "null", 6: "[]"}
    async with world.open() as km:
        app.run(f"CREATE TABLE people (id BIGINT PRIMARY KEY, doc BYTES, plain {kind})")
        app.fill(f"INSERT INTO people VALUES (:a, NULL, CAST(:b AS {'TEXT' if app.is_sqlite else kind}))", held.items())
        assert (await reencrypt(km, app.url, field, plaintext_column="plain")).rewritten == 6
        cipher = km.field(field)
        found = {n: cipher.decrypt(blob, record=n) for n, blob in app.rows("SELECT id, doc FROM people")}
        assert found == {1: {"a": [1, True]}, 2: "123", 3: "abc", 4: 123, 5: None, 6: []}
        assert app.rows("SELECT count(*) FROM people WHERE plain IS NOT NULL") == [(0,)]


@pytest.mark.parametrize("indexes", [(), (Exact(), Tokens())])
async def test_rows_without_a_value_are_hidden_where_the_field_says_so(
    world: World, app: Application, indexes: tuple[Index, ...]
) -> None:
    field = replace(EMAIL, encrypt_null=True, indexes=indexes)
    async with world.open() as km:
        await km.load_fields(field)
        app.make_people(km, 3, field)
        app.run(
            "UPDATE people SET email = NULL WHERE id = 2",
            "CREATE TABLE people_email_tokens (record BIGINT, token BYTES)",
        )
        report = await reencrypt(km, app.url, field)
        assert report.is_complete
        assert app.rows("SELECT count(email) FROM people") == [(3,)]
        assert values(app, km, field) == {1: address(1), 2: None, 3: address(3)}
        assert (await reencrypt(km, app.url, field)).rewritten == 0
