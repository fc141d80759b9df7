"""Rows that a job passed by are counted before anybody relies on it, and the next run finds them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keystead.fields import Exact, Field, Tokens, reencrypt
from keystead.manager.manager import KeyManager
from tests.fakes.prepared import prepared
from tests.fakes.world import World
from tests.fields.application import Application, address, before_the_write

PLAIN = Field("people", "email", record="row")
INDEXED = replace(PLAIN, indexes=(Exact(),))
MOVE = "UPDATE people SET id = 0 WHERE id = 20"


async def fill(app: Application, km: KeyManager, field: Field, *, plaintext: bool = False) -> None:
    """Make twenty rows that are read by ``id`` and bound to ``row``: encrypted and indexed, or in clear."""
    await km.load_fields(field)
    cipher = km.field(field)
    names = [*field.index_columns]

    def hashes(number: int) -> list[bytes | None]:
        return [*cipher.index_values(address(number)).values()] if names else []

    columns = "".join(f", {name} BYTES" for name in names)
    app.run(f"CREATE TABLE people (id BIGINT PRIMARY KEY, row BIGINT UNIQUE, email BYTES, plain TEXT{columns})")
    if field.token_index is not None:
        app.run(f"CREATE TABLE {field.token_table} (record BIGINT, token BYTES)")
    places = "".join(f", :{letter}" for letter, _ in zip("efgh", names, strict=False))
    app.fill(
        f"INSERT INTO people (id, row, email, plain{''.join(f', {name}' for name in names)}) "
        f"VALUES (:a, :b, :c, :d{places})",
        (
            (n, n, None, address(n)) if plaintext else (n, n, cipher.encrypt(address(n), record=n), None, *hashes(n))
            for n in range(1, 21)
        ),
    )


async def test_a_rotation_of_the_index_key_does_not_end_over_a_row_whose_key_moved(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        await fill(app, km, INDEXED)
        await km.register_field(INDEXED, app.url)
        await km.rotate_index_key()
        before_the_write(monkeypatch, lambda: app.run(MOVE))
        first = await reencrypt(km, app.url, INDEXED, batch_rows=3)
        assert (first.passed_by, first.indexed_version, first.finished_rotation) == (1, None, False)
        assert not first.is_complete
        second = await reencrypt(km, app.url, INDEXED, batch_rows=3)
        assert (second.passed_by, second.finished_rotation, second.is_complete) == (0, True, True)
        assert app.rows(f"SELECT count(*) FROM people WHERE {INDEXED.index_columns[0]} IS NULL") == [(0,)]


async def test_a_row_with_the_hash_of_the_version_before_the_last_is_not_taken_for_one_with_its_own(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        await fill(app, km, INDEXED)
        await km.register_field(INDEXED, app.url)
        await km.rotate_index_key()
        assert (await reencrypt(km, app.url, INDEXED)).finished_rotation
        # Version 3 goes into the column in which the hashes of version 1 still are.
        await km.rotate_index_key()
        before_the_write(monkeypatch, lambda: app.run(MOVE))
        first = await reencrypt(km, app.url, INDEXED, batch_rows=3)
        assert (first.passed_by, first.finished_rotation, first.is_complete) == (1, False, False)
        assert (await reencrypt(km, app.url, INDEXED, batch_rows=3)).finished_rotation
        [index] = INDEXED.indexes
        column = index.column("email", 1)
        found = {bytes(value) for (value,) in app.rows(f"SELECT {column} FROM people")}
        assert found == {km.field(INDEXED).query_values(index, address(n))[1] for n in range(1, 21)}


async def test_rows_that_have_the_hashes_of_a_rotation_are_not_written_again(world: World, app: Application) -> None:
    async with world.open() as km:
        await fill(app, km, INDEXED)
        assert (await reencrypt(km, app.url, INDEXED)).rewritten == 0
        await km.rotate_index_key()
        cipher = km.field(INDEXED)
        hashes = [(*cipher.index_values(address(n)).values(), n) for n in range(1, 11)]
        first, second = INDEXED.index_columns
        app.fill(f"UPDATE people SET {first} = :a, {second} = :b WHERE row = :c", hashes)
        report = await reencrypt(km, app.url, INDEXED)
        assert (report.rewritten, report.skipped, report.finished_rotation) == (10, 10, True)


async def test_a_row_whose_words_are_hashed_under_the_old_key_alone_is_counted(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = replace(PLAIN, indexes=(Tokens(),))
    async with world.open() as km:
        await fill(app, km, field)
        assert (await reencrypt(km, app.url, field)).is_complete
        await km.rotate_index_key()
        before_the_write(monkeypatch, lambda: app.run(MOVE))
        first = await reencrypt(km, app.url, field, batch_rows=3)
        assert (first.passed_by, first.finished_rotation) == (1, False)
        assert (await reencrypt(km, app.url, field, batch_rows=3)).finished_rotation


async def test_a_prepared_transaction_keeps_a_rotation_from_ending(world: World, postgres_url: str) -> None:
    app = Application(postgres_url)
    async with world.open() as km:
        await fill(app, km, INDEXED)
        await reencrypt(km, app.url, INDEXED)
        cipher = km.field(INDEXED)
        columns = ("email", *INDEXED.index_columns)
        values = (cipher.encrypt(address(21), record=21), *cipher.index_values(address(21)).values())
        marks = ", ".join("%s" for _ in columns)
        insert = f"INSERT INTO people (id, row, {', '.join(columns)}) VALUES (21, 21, {marks})"
        with prepared(postgres_url, insert, values) as commit:
            await km.rotate_index_key()
            first = await reencrypt(km, app.url, INDEXED)
            assert (first.passed_by, first.finished_rotation) == (1, False)
            commit()
        second = await reencrypt(km, app.url, INDEXED)
        assert (second.rewritten, second.passed_by, second.finished_rotation) == (1, 0, True)


async def test_a_row_whose_key_moved_is_not_told_to_be_under_the_active_version(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        await fill(app, km, PLAIN)
        await km.rotate_data_key(promote="now")
        before_the_write(monkeypatch, lambda: app.run(MOVE))
        first = await reencrypt(km, app.url, PLAIN, batch_rows=3)
        assert (first.rewritten, first.passed_by, first.is_complete) == (19, 1, False)
        second = await reencrypt(km, app.url, PLAIN, batch_rows=3)
        assert (second.rewritten, second.passed_by, second.is_complete) == (1, 0, True)


async def test_a_row_that_stayed_in_clear_is_counted(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        await fill(app, km, PLAIN, plaintext=True)
        before_the_write(monkeypatch, lambda: app.run(MOVE))
        first = await reencrypt(km, app.url, PLAIN, batch_rows=3, plaintext_column="plain")
        assert (first.rewritten, first.passed_by, first.is_complete) == (19, 1, False)
        assert (await reencrypt(km, app.url, PLAIN, plaintext_column="plain")).is_complete
        assert app.rows("SELECT count(*) FROM people WHERE plain IS NOT NULL") == [(0,)]


async def test_a_row_without_token_rows_is_counted(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = replace(PLAIN, indexes=(Tokens(),))
    async with world.open() as km:
        await fill(app, km, field)
        before_the_write(monkeypatch, lambda: app.run(MOVE))
        assert (await reencrypt(km, app.url, field, batch_rows=3)).passed_by == 1
        assert (await reencrypt(km, app.url, field, batch_rows=3)).is_complete


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (replace(INDEXED, encrypt_null=True), None),
        (replace(PLAIN, indexes=(Tokens(),)), ""),
    ],
)
async def test_a_value_that_has_no_hash_is_not_missed(
    world: World, app: Application, field: Field, value: object
) -> None:
    async with world.open() as km:
        await fill(app, km, field)
        sealed = km.field(field).encrypt(value, record=3)
        nothing = "".join(f", {name} = NULL" for name in field.index_columns)
        app.fill(f"UPDATE people SET email = :a{nothing} WHERE row = 3", [(sealed,)])
        report = await reencrypt(km, app.url, field, batch_rows=3)
        assert (report.passed_by, report.indexed_version, report.is_complete) == (0, 1, True)


async def test_a_none_that_is_to_be_hidden_is_counted(
    world: World, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = replace(PLAIN, encrypt_null=True)
    async with world.open() as km:
        await fill(app, km, PLAIN)
        app.run("UPDATE people SET email = NULL WHERE row IN (1, 20)")
        before_the_write(monkeypatch, lambda: app.run(MOVE))
        first = await reencrypt(km, app.url, field, batch_rows=3)
        assert (first.rewritten, first.passed_by, first.is_complete) == (1, 1, False)
        assert (await reencrypt(km, app.url, field, batch_rows=3)).is_complete
