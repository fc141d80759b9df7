"""What a job refuses, or leaves and names, because a value or an index would be lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keystead.crypto.envelope import to_text
from keystead.errors import InvalidInputError
from keystead.fields import Exact, Field, Index, Prefix, Tokens, reencrypt
from tests.fakes.world import World
from tests.fields.application import Application, address
from tests.fields.test_reencrypt_passed_by import INDEXED, PLAIN, fill


async def test_a_value_in_clear_goes_where_its_ciphertext_is_there_already(world: World, app: Application) -> None:
    async with world.open() as km:
        await fill(app, km, PLAIN)
        app.fill("UPDATE people SET plain = :a WHERE row = :b", [(address(3), 3)])
        report = await reencrypt(km, app.url, PLAIN, plaintext_column="plain")
        assert (report.rewritten, report.skipped, report.is_complete) == (1, 19, True)
        ((blob, plain),) = app.rows("SELECT email, plain FROM people WHERE row = 3")
        assert (km.field(PLAIN).decrypt(blob, record=3), plain) == (address(3), None)


async def test_a_row_with_a_ciphertext_and_another_value_in_clear_is_named_and_left(
    world: World, app: Application
) -> None:
    async with world.open() as km:
        await fill(app, km, PLAIN)
        app.run("UPDATE people SET plain = 'newer or older' WHERE row = 3")
        report = await reencrypt(km, app.url, PLAIN, plaintext_column="plain")
        assert [(failure.key, failure.reason) for failure in report.failures] == [("[3]", "invalid_input")]
        assert app.rows("SELECT plain FROM people WHERE row = 3") == [("newer or older",)]


async def test_a_ciphertext_in_the_place_of_a_plaintext_is_not_encrypted_again(world: World, app: Application) -> None:
    async with world.open() as km:
        await fill(app, km, PLAIN, plaintext=True)
        sealed = to_text(km.local_encrypt(b"a value that was encrypted by hand"))
        app.fill("UPDATE people SET plain = :a WHERE row = 3", [(sealed,)])
        report = await reencrypt(km, app.url, PLAIN, plaintext_column="plain")
        assert (report.rewritten, report.failed) == (19, 1)
        assert app.rows("SELECT email, plain FROM people WHERE row = 3") == [(None, sealed)]


@pytest.mark.parametrize("column", ["id", "row", "email", *INDEXED.index_columns])
async def test_a_column_that_the_row_needs_is_not_taken_for_a_plaintext_and_emptied(
    world: World, app: Application, column: str
) -> None:
    async with world.open() as km:
        await fill(app, km, INDEXED)
        with pytest.raises(InvalidInputError, match="cannot be the plaintext column"):
            await reencrypt(km, app.url, INDEXED, plaintext_column=column)


@pytest.mark.parametrize("left_out", [Prefix(), Tokens()])
async def test_a_rotation_does_not_end_over_an_index_that_the_job_leaves_out(
    world: World, app: Application, left_out: Index
) -> None:
    whole: Field = replace(PLAIN, indexes=(Exact(), left_out))
    async with world.open() as km:
        await fill(app, km, whole)
        await reencrypt(km, app.url, whole)
        # Without a rotation nothing is ended.
        assert (await reencrypt(km, app.url, INDEXED)).is_complete
        await km.rotate_index_key()
        with pytest.raises(InvalidInputError, match="leaves out"):
            await reencrypt(km, app.url, INDEXED)
        assert (await reencrypt(km, app.url, whole)).finished_rotation


async def test_a_table_of_the_application_is_not_taken_for_an_index_by_its_name(world: World, app: Application) -> None:
    async with world.open() as km:
        await fill(app, km, INDEXED)
        await reencrypt(km, app.url, INDEXED)
        app.run(f"CREATE TABLE {INDEXED.token_table} (id BIGINT PRIMARY KEY, token TEXT, sent_at TEXT)")
        await km.rotate_index_key()
        assert (await reencrypt(km, app.url, INDEXED)).finished_rotation
