"""Re-encryption fills blind indexes: of a field that gets one, and of one whose key is rotated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keystead.errors import KeyStateError
from keystead.fields import Exact, Field, FieldCipher, Normalised, Prefix, Tokens, reencrypt
from keystead.manager.manager import KeyManager
from tests.fakes.world import World
from tests.fields.application import EMAIL, Application, address

FIELD = replace(EMAIL, indexes=(Exact(unique=True), Normalised(as_="email")))
NAME = Field("people", "name", indexes=(Tokens(), Prefix(length=2)))
COLUMNS = ", ".join(FIELD.index_columns)


def indexes(app: Application) -> dict[int, tuple[bytes | None, ...]]:
    return {row[0]: row[1:] for row in app.rows(f"SELECT id, {COLUMNS} FROM people")}


def expected(cipher: FieldCipher, count: int) -> dict[int, tuple[bytes | None, ...]]:
    return {n: tuple(cipher.index_values(address(n)).values()) for n in range(1, count + 1)}


async def test_an_index_that_is_new_is_filled(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 25, FIELD)
        report = await reencrypt(km, app.url, FIELD, batch_rows=10)
        assert (report.rewritten, report.indexed_version) == (25, 1)
        assert indexes(app) == expected(km.field(FIELD), 25)
        again = await reencrypt(km, app.url, FIELD, batch_rows=10)
        assert (again.rewritten, again.skipped) == (0, 25)


async def test_a_rotated_data_key_leaves_indexes_alone(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 25, FIELD)
        await reencrypt(km, app.url, FIELD)
        before = indexes(app)
        await km.rotate_data_key(promote="now")
        assert (await reencrypt(km, app.url, FIELD)).rewritten == 25
        assert indexes(app) == before


async def test_a_row_without_a_value_has_no_index(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 3, FIELD)
        await reencrypt(km, app.url, FIELD)
        app.run("UPDATE people SET email = NULL WHERE id = 2")
        assert (await reencrypt(km, app.url, FIELD)).rewritten == 1
        assert indexes(app)[2] == (None, None, None, None)


async def test_an_index_key_is_rotated_to_the_end(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 25, FIELD)
        await reencrypt(km, app.url, FIELD)
        cipher = km.field(FIELD)
        await km.rotate_index_key()
        filled = await reencrypt(km, app.url, FIELD, batch_rows=10)
        assert (filled.rewritten, filled.indexed_version, filled.finished_rotation) == (25, 2, True)
        assert all(None not in row for row in indexes(app).values())
        await km.run_due()
        assert cipher.index_versions == (2,)
        emptied = await reencrypt(km, app.url, FIELD, batch_rows=10)
        assert (emptied.rewritten, emptied.finished_rotation) == (25, False)
        assert indexes(app) == expected(cipher, 25)
        assert (await reencrypt(km, app.url, FIELD)).rewritten == 0


async def test_a_second_rotation_overwrites_what_the_first_left_behind(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 5, FIELD)
        await reencrypt(km, app.url, FIELD)
        for _ in range(2):
            await km.rotate_index_key()
            assert (await reencrypt(km, app.url, FIELD)).finished_rotation
            await km.run_due()
        await reencrypt(km, app.url, FIELD)
        assert indexes(app) == expected(km.field(FIELD), 5)


async def test_the_backfill_waits_until_every_node_writes_the_new_version(
    world: World, sqlite_app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys.modules["keystead.fields.reencrypt"], "READY_WITHIN_S", 0.6)
    async with world.open() as km, world.open() as other:
        sqlite_app.make_people(km, 5, FIELD)
        await reencrypt(km, sqlite_app.url, FIELD)
        await other.load_fields(FIELD)
        await km.rotate_index_key()
        with pytest.raises(KeyStateError, match="run again later"):
            await reencrypt(km, sqlite_app.url, FIELD)
        await other.run_due()
        assert (await reencrypt(km, sqlite_app.url, FIELD)).finished_rotation


async def test_a_row_that_failed_keeps_the_old_index_key_live(world: World, sqlite_app: Application) -> None:
    async with world.open() as km:
        sqlite_app.make_people(km, 5, FIELD)
        await reencrypt(km, sqlite_app.url, FIELD)
        sqlite_app.fill("UPDATE people SET email = :a WHERE id = 3", [(b"no envelope",)])
        await km.rotate_index_key()
        report = await reencrypt(km, sqlite_app.url, FIELD)
        assert (report.failed, report.indexed_version, report.finished_rotation) == (1, None, False)
        sqlite_app.run("DELETE FROM people WHERE id = 3")
        assert (await reencrypt(km, sqlite_app.url, FIELD)).finished_rotation


async def test_equal_values_of_a_plaintext_column_cannot_both_enter_a_unique_index(
    world: World, app: Application
) -> None:
    async with world.open() as km:
        app.make_people(km, 0, FIELD)
        app.run("ALTER TABLE people ADD COLUMN plain TEXT")
        told = ["a@example.org", "b@example.org", "a@example.org", "c@example.org"]
        app.fill("INSERT INTO people (id, plain) VALUES (:a, :b)", list(enumerate(told, 1)))
        report = await reencrypt(km, app.url, FIELD, plaintext_column="plain")
        assert (report.rewritten, report.failed) == (3, 1)
        assert [failure.reason for failure in report.failures] == ["conflict"]
        assert app.rows("SELECT plain FROM people WHERE plain IS NOT NULL") == [("a@example.org",)]


def make_names(app: Application, km: KeyManager) -> None:
    columns = "".join(f", {name} BYTES" for name in NAME.index_columns)
    app.run(
        f"CREATE TABLE people (id BIGINT PRIMARY KEY, name BYTES{columns})",
        "CREATE TABLE people_name_tokens (record BIGINT, token BYTES, PRIMARY KEY (token, record))",
    )
    names = ["ada king lovelace", "grace hopper", "ada ada"]
    app.fill(
        "INSERT INTO people (id, name) VALUES (:a, :b)",
        [(n, km.field(NAME).encrypt(name, record=n)) for n, name in enumerate(names, 1)],
    )


async def test_token_rows_are_those_of_the_live_index_keys(world: World, app: Application) -> None:
    async with world.open() as km:
        make_names(app, km)
        cipher, (tokens, _) = km.field(NAME), NAME.indexes

        def found(word: str) -> list[int]:
            hashes = cipher.query_values(tokens, word).values()
            rows = app.rows("SELECT record, token FROM people_name_tokens")
            return sorted({record for record, token in rows if bytes(token) in hashes})

        assert (await reencrypt(km, app.url, NAME)).rewritten == 3
        assert (found("ada"), found("hopper")) == ([1, 3], [2])
        assert (await reencrypt(km, app.url, NAME)).rewritten == 0
        await km.rotate_index_key()
        assert (await reencrypt(km, app.url, NAME)).finished_rotation
        assert app.rows("SELECT count(*) FROM people_name_tokens") == [(12,)]
        await km.run_due()
        await reencrypt(km, app.url, NAME)
        assert app.rows("SELECT count(*) FROM people_name_tokens") == [(6,)]
        assert found("ada") == [1, 3]
