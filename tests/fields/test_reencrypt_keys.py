"""Rows are read by a key that passes none by, or not at all."""

from __future__ import annotations

import pytest

from keystead.errors import InvalidInputError
from keystead.fields import plan, reencrypt, reencryptions
from keystead.manager.manager import KeyManager
from tests.fakes.world import World
from tests.fields.application import EMAIL, Application

ROWS = 30
KEPT_APART = {
    "a unique constraint": "CREATE TABLE people (id BIGINT PRIMARY KEY, shop TEXT, code TEXT UNIQUE, email BYTES)",
    "a primary key": "CREATE TABLE people (id BIGINT UNIQUE, shop TEXT, code TEXT PRIMARY KEY, email BYTES)",
    "a unique index": "CREATE TABLE people (id BIGINT, shop TEXT, code TEXT NOT NULL, email BYTES);"
    "CREATE UNIQUE INDEX by_code ON people (code)",
}
NOT_KEPT_APART = {
    "nothing": "CREATE TABLE people (id BIGINT PRIMARY KEY, shop TEXT, code TEXT NOT NULL, email BYTES)",
    "a column more": "CREATE TABLE people (id BIGINT PRIMARY KEY, shop TEXT, code TEXT, email BYTES, "
    "UNIQUE (shop, code))",
    "an index of some rows": "CREATE TABLE people (id BIGINT PRIMARY KEY, shop TEXT, code TEXT, email BYTES);"
    "CREATE UNIQUE INDEX by_code ON people (code) WHERE shop IS NULL",
    "an index of an expression": "CREATE TABLE people (id BIGINT PRIMARY KEY, shop TEXT, code TEXT, email BYTES);"
    "CREATE UNIQUE INDEX by_code ON people (code, lower(shop))",
    "an index that is not unique": "CREATE TABLE people (id BIGINT PRIMARY KEY, shop TEXT, code TEXT, email BYTES);"
    "CREATE INDEX by_code ON people (code)",
}


def make(app: Application, km: KeyManager, table: str) -> None:
    """Make people of two shops, each with a code of their own."""
    app.run(*table.split(";"))
    sealed = [(n, "ab"[n % 2], f"c{n:02}", km.field(EMAIL).encrypt("x", record=n)) for n in range(ROWS)]
    app.fill("INSERT INTO people (id, shop, code, email) VALUES (:a, :b, :c, :d)", sealed)


@pytest.mark.parametrize("key", ["code", ("shop", "code")])
@pytest.mark.parametrize("table", KEPT_APART.values(), ids=KEPT_APART)
async def test_rows_are_read_by_any_columns_that_are_kept_apart(
    world: World, app: Application, table: str, key: str | tuple[str, ...]
) -> None:
    async with world.open() as km:
        make(app, km, table)
        await km.rotate_data_key(promote="now")
        assert (await reencrypt(km, app.url, EMAIL, key_column=key, batch_rows=7)).rewritten == ROWS


@pytest.mark.parametrize("table", NOT_KEPT_APART.values(), ids=NOT_KEPT_APART)
async def test_a_key_that_two_rows_may_share_is_refused_before_anything_is_written(
    world: World, app: Application, table: str
) -> None:
    async with world.open() as km:
        make(app, km, table)
        for call in (plan, reencrypt):
            with pytest.raises(
                InvalidInputError, match=r"may have the same code, .*; name columns that .* key_column="
            ):
                await call(km, app.url, EMAIL, key_column="code")
        assert await reencryptions(km) == []
        assert await km.fields() == []


async def test_a_key_in_which_a_row_has_null_is_refused_before_anything_is_written(
    world: World, app: Application
) -> None:
    async with world.open() as km:
        make(app, km, KEPT_APART["a unique constraint"])
        app.run("UPDATE people SET code = NULL WHERE id < 3")
        for key in ("code", ("code", "id")):
            with pytest.raises(InvalidInputError, match=r"has NULL in its key, code.* key_column="):
                await reencrypt(km, app.url, EMAIL, key_column=key)
        assert await reencryptions(km) == []
        app.run("UPDATE people SET code = 'late' || id WHERE id < 3")
        assert (await reencrypt(km, app.url, EMAIL, key_column="code")).read == ROWS


async def test_a_primary_key_in_which_a_row_has_null_is_refused(world: World, sqlite_app: Application) -> None:
    async with world.open() as km:
        make(sqlite_app, km, KEPT_APART["a primary key"])
        sqlite_app.run("UPDATE people SET code = NULL WHERE id < 3")
        with pytest.raises(InvalidInputError, match="has NULL in its key, code"):
            await reencrypt(km, sqlite_app.url, EMAIL)
