"""Rows are read by a key that passes none by, or not at all; a job goes on by the key and declaration it began with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from keystead.errors import InvalidInputError
from keystead.fields import Exact, Field, Normalised, ReencryptProgress, plan, reencrypt, reencryptions
from keystead.fields.job_records import Target
from keystead.manager.manager import KeyManager
from keystead.ports import ReencryptionState
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


@pytest.mark.parametrize(
    ("column", "index", "is_kept_apart"),
    [
        ("NOCASE", "BINARY", False),
        ("RTRIM", "BINARY", False),
        ("NOCASE", "NOCASE", True),
        ("BINARY", "NOCASE", True),
        ("BINARY", "BINARY", True),
    ],
)
@pytest.mark.parametrize("kind", ["CREATE UNIQUE INDEX", "PRIMARY KEY"])
async def test_an_index_keeps_rows_apart_if_it_compares_as_the_column_does(
    world: World, sqlite_app: Application, column: str, index: str, kind: str, *, is_kept_apart: bool
) -> None:
    apart = f"code COLLATE {index}"
    is_primary = kind == "PRIMARY KEY"
    async with world.open() as km:
        sqlite_app.run(
            f"CREATE TABLE people (id BIGINT, code TEXT NOT NULL COLLATE {column}, email BLOB"
            + (f", PRIMARY KEY ({apart}))" if is_primary else ")")
        )
        if not is_primary:
            sqlite_app.run(f"CREATE UNIQUE INDEX by_code ON people ({apart})")
        if is_kept_apart:
            assert (await reencrypt(km, sqlite_app.url, EMAIL, key_column="code")).is_complete
        else:
            with pytest.raises(InvalidInputError, match="may have the same code"):
                await reencrypt(km, sqlite_app.url, EMAIL, key_column="code")


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


async def stopped(km: KeyManager, app: Application, field: Field, **how: Any) -> str:
    """Begin a job, let it fail after a batch, and return its id."""

    def fail(progress: ReencryptProgress) -> None:
        raise RuntimeError("the caller's own failure")

    with pytest.raises(RuntimeError):
        await reencrypt(km, app.url, field, batch_rows=2, on_progress=fail, **how)
    return (await reencryptions(km))[-1].id


async def test_a_job_that_was_begun_by_another_key_is_begun_anew(world: World, app: Application) -> None:
    async with world.open() as km:
        make(app, km, KEPT_APART["a unique constraint"])
        # The first by one key are the last by the other.
        app.run("UPDATE people SET code = 'd' || (99 - id)")
        await km.rotate_data_key(promote="now")
        first = await stopped(km, app, EMAIL, key_column="code")
        report = await reencrypt(km, app.url, EMAIL, batch_rows=2)
        assert (report.job_id != first, report.read, report.is_complete) == (True, ROWS, True)
        assert len(set(app.rows("SELECT substr(email, 3, 8) FROM people"))) == 1
        states = {job.id: job.state for job in await reencryptions(km)}
        assert states == {first: ReencryptionState.CANCELLED, report.job_id: ReencryptionState.DONE}


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        ({}, False),
        ({"allow_envelopes": True}, False),
        ({"record": "code"}, True),
        ({"record_type": str}, True),
        ({"type": bytes}, True),
        ({"encrypt_null": True}, True),
        ({"former_keyrings": ("former",)}, True),
        ({"keyring": "other"}, True),
        ({"tenant": "shop"}, True),
        ({"index_keyring": "other"}, True),
        ({"indexes": (Exact(size=20),)}, True),
        ({"indexes": (Exact(), Normalised())}, True),
    ],
)
def test_a_target_is_another_where_the_declaration_treats_rows_in_another_way(
    change: dict[str, Any], is_new: bool
) -> None:
    field = replace(EMAIL, indexes=(Exact(),))
    first, second = (Target(1, (1,), False, None, ("id",), each) for each in (field, replace(field, **change)))
    assert (first.to_json() != second.to_json()) is is_new


async def test_a_job_begun_under_another_declaration_is_begun_anew(world: World, sqlite_app: Application) -> None:
    async with world.open() as km:
        make(sqlite_app, km, KEPT_APART["a primary key"])
        await km.rotate_data_key(promote="now")
        first = await stopped(km, sqlite_app, EMAIL)
        report = await reencrypt(km, sqlite_app.url, replace(EMAIL, encrypt_null=True))
        assert (report.job_id != first, report.read) == (True, ROWS)


async def test_a_job_of_a_release_that_kept_less_of_its_target_is_begun_anew(
    world: World, sqlite_app: Application
) -> None:
    async with world.open() as km:
        make(sqlite_app, km, KEPT_APART["a primary key"])
        await km.rotate_data_key(promote="now")
        first = await stopped(km, sqlite_app, EMAIL)
        surroundings = (await km.session()).surroundings
        async with surroundings.store.transaction() as work:
            (job,) = await work.reencryptions()
            kept = {name: json.loads(job.target)[name] for name in ("active", "indexes", "verify", "plaintext")}
            await work.change_reencryption(first, job.state, target=json.dumps(kept, separators=(",", ":")))
        report = await reencrypt(km, sqlite_app.url, EMAIL)
        assert (report.job_id != first, report.read, report.is_complete) == (True, ROWS, True)
