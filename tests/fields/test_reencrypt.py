"""Re-encryption of a live table: what a row is brought to, and what is left alone."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from keystead import blocking
from keystead.crypto.envelope import parse_header
from keystead.errors import ConflictError, InvalidInputError, KeyInUseError
from keystead.fields import (
    Exact,
    Field,
    ReencryptProgress,
    cancel,
    pause,
    plan,
    reencrypt,
    reencryptions,
)
from keystead.manager import admin
from keystead.manager.manager import KeyManager
from keystead.ports import ReencryptionState
from tests.fakes.world import World
from tests.fields.application import EMAIL, Application, address


def key_ids(app: Application) -> set[int]:
    return {parse_header(blob).key_id for (blob,) in app.rows("SELECT email FROM people WHERE email IS NOT NULL")}


def values(app: Application, km: KeyManager, field: Field = EMAIL) -> dict[int, object]:
    cipher = km.field(field)
    return {n: cipher.decrypt(blob, record=n) for n, blob in app.rows("SELECT id, email FROM people")}


async def test_every_row_moves_to_the_active_version_and_keeps_its_value(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 250)
        new = await km.rotate_data_key(promote="now")
        report = await reencrypt(km, app.url, EMAIL, batch_rows=20)
        assert (report.state, report.read, report.rewritten, report.failed) == (ReencryptionState.DONE, 250, 250, 0)
        assert report.is_complete
        assert key_ids(app) == {new.id}
        assert values(app, km) == {n: address(n) for n in range(1, 251)}


async def test_a_second_run_writes_nothing(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 60)
        await km.rotate_data_key(promote="now")
        await reencrypt(km, app.url, EMAIL, batch_rows=25)
        before = app.rows("SELECT * FROM people ORDER BY id")
        again = await reencrypt(km, app.url, EMAIL, batch_rows=25)
        assert (again.read, again.rewritten, again.skipped) == (60, 0, 60)
        assert app.rows("SELECT * FROM people ORDER BY id") == before


async def test_no_other_column_is_touched(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 30)
        await km.rotate_data_key(promote="now")
        await reencrypt(km, app.url, EMAIL)
        assert app.rows("SELECT DISTINCT updated_at FROM people") == [("then",)]


async def test_a_dry_run_counts_and_writes_nothing(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 30)
        await km.rotate_data_key(promote="now")
        before = app.rows("SELECT * FROM people ORDER BY id")
        report = await reencrypt(km, app.url, EMAIL, dry_run=True, batch_rows=7)
        assert (report.dry_run, report.read, report.rewritten) == (True, 30, 30)
        assert app.rows("SELECT * FROM people ORDER BY id") == before


async def test_an_altered_row_is_reported_and_left_as_it_is(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 20)
        (stolen,) = app.rows("SELECT email FROM people WHERE id = 3")[0]
        app.fill("UPDATE people SET email = :a WHERE id = 7", [(stolen,)])
        app.fill("UPDATE people SET email = :a WHERE id = 9", [(b"no envelope",)])
        app.fill("UPDATE people SET email = :a WHERE id = 11", [(stolen[:2] + b"\x01" * 8 + stolen[10:],)])
        await km.rotate_data_key(promote="now")
        report = await reencrypt(km, app.url, EMAIL)
        assert {(failure.key, failure.reason) for failure in report.failures} == {
            ("[7]", "decryption"),
            ("[9]", "invalid_ciphertext"),
            ("[11]", "data_key_not_loaded"),
        }
        assert (report.rewritten, report.failed, report.is_complete) == (17, 3, False)
        assert app.rows("SELECT email FROM people WHERE id = 7") == [(stolen,)]


async def test_rows_without_a_value_stay_without(world: World, app: Application) -> None:
    async with world.open() as km:
        app.make_people(km, 3)
        app.run("UPDATE people SET email = NULL WHERE id = 2")
        await km.rotate_data_key(promote="now")
        report = await reencrypt(km, app.url, EMAIL)
        assert (report.rewritten, report.skipped) == (2, 1)
        assert values(app, km)[2] is None


async def test_a_table_without_rows_is_done_at_once(world: World, app: Application) -> None:
    async with world.open() as km:
        app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES)")
        report = await reencrypt(km, app.url, EMAIL)
        assert (report.state, report.read) == (ReencryptionState.DONE, 0)


async def test_values_move_from_a_former_keyring(world: World, app: Application) -> None:
    moved = replace(EMAIL, keyring="people", former_keyrings=("default",))
    async with world.open() as km:
        app.make_people(km, 12)
        report = await reencrypt(km, app.url, moved)
        assert report.rewritten == 12
        people = (await km.keyring("people")).ring
        assert key_ids(app) == {people.snapshot.active}
        assert values(app, km, replace(moved, former_keyrings=())) == {n: address(n) for n in range(1, 13)}


@pytest.mark.parametrize("kind", ["TEXT", "UUID"])
async def test_rows_are_found_by_keys_of_text_and_of_uuids(world: World, app: Application, kind: str) -> None:
    field = replace(EMAIL, record_type=UUID if kind == "UUID" else None)
    async with world.open() as km:
        cipher = km.field(field)
        records: list[str | UUID] = [str(n) for n in range(50)] if kind == "TEXT" else [uuid4() for _ in range(50)]
        app.run(f"CREATE TABLE people (id {kind} PRIMARY KEY, email BYTES)")
        stored = [record.hex if isinstance(record, UUID) and app.is_sqlite else record for record in records]
        app.fill(
            "INSERT INTO people VALUES (:a, :b)",
            [(at, cipher.encrypt("x", record=record)) for at, record in zip(stored, records, strict=True)],
        )
        await km.rotate_data_key(promote="now")
        report = await reencrypt(km, app.url, field, batch_rows=7)
        assert (report.rewritten, report.failed) == (50, 0)
        found = dict(app.rows("SELECT id, email FROM people"))
        assert [cipher.decrypt(found[at], record=record) for at, record in zip(stored, records, strict=True)] == [
            "x"
        ] * 50


async def test_uuids_that_are_kept_as_text_are_records_and_tenants_where_the_field_says_so(
    world: World, sqlite_app: Application
) -> None:
    field = Field("people", "email", record_type=UUID, tenant="org", tenant_type=UUID)
    async with world.open() as km:
        cipher, org, records = km.field(field), uuid4(), [uuid4() for _ in range(5)]
        sqlite_app.run("CREATE TABLE people (id TEXT PRIMARY KEY, org CHAR(32), email BYTES)")
        sqlite_app.fill(
            "INSERT INTO people VALUES (:a, :b, :c)",
            [(one.hex, org.hex, cipher.encrypt("x", record=one, tenant=str(org))) for one in records],
        )
        await km.rotate_data_key(promote="now")
        assert (await reencrypt(km, sqlite_app.url, field)).rewritten == 5
        with pytest.raises(InvalidInputError, match="tenant_type"):
            await reencrypt(km, sqlite_app.url, replace(field, tenant_type=None))


async def test_a_text_key_that_looks_like_a_uuid_is_never_taken_for_one(world: World, sqlite_app: Application) -> None:
    records = [uuid4().hex for _ in range(5)]
    sqlite_app.run("CREATE TABLE people (id CHAR(32) PRIMARY KEY, email BYTES, plain TEXT)")
    sqlite_app.fill("INSERT INTO people VALUES (:a, NULL, :b)", [(one, "x") for one in records])
    async with world.open() as km:
        with pytest.raises(InvalidInputError, match="record_type"):
            await reencrypt(km, sqlite_app.url, EMAIL, plaintext_column="plain")
        assert sqlite_app.rows("SELECT count(*) FROM people WHERE plain = 'x'") == [(5,)]
        field = replace(EMAIL, record_type=str)
        assert (await reencrypt(km, sqlite_app.url, field, plaintext_column="plain")).rewritten == 5
        sealed = dict(sqlite_app.rows("SELECT id, email FROM people"))
        assert [km.field(field).decrypt(sealed[one], record=one) for one in records] == ["x"] * 5


async def test_rows_are_found_by_a_key_of_several_columns(world: World, app: Application) -> None:
    field = Field("people", "email", record=("org", "number"))
    async with world.open() as km:
        cipher = km.field(field)
        app.run("CREATE TABLE people (org TEXT, number BIGINT, email BYTES, PRIMARY KEY (org, number))")
        records = [(org, n) for org in ("a", "b") for n in range(15)]
        app.fill(
            "INSERT INTO people VALUES (:a, :b, :c)", [(*each, cipher.encrypt("x", record=each)) for each in records]
        )
        await km.rotate_data_key(promote="now")
        assert (await reencrypt(km, app.url, field, batch_rows=4)).rewritten == 30
        assert (await reencrypt(km, app.url, field, batch_rows=4)).skipped == 30


@pytest.mark.parametrize("field", [EMAIL, replace(EMAIL, indexes=(Exact(),))], ids=["plain", "indexed"])
@pytest.mark.parametrize("cell", [5, 1.5, "text"])
async def test_a_cell_that_holds_something_else_than_bytes_is_named_and_does_not_stop_the_job(
    world: World, sqlite_app: Application, field: Field, cell: object
) -> None:
    async with world.open() as km:
        await km.load_fields(field)
        sqlite_app.make_people(km, 5, field)
        sqlite_app.fill("UPDATE people SET email = :a WHERE id = 3", [(cell,)])
        await km.rotate_data_key(promote="now")
        report = await reencrypt(km, sqlite_app.url, field)
        assert [(failure.key, failure.reason) for failure in report.failures] == [("[3]", "invalid_ciphertext")]
        assert (report.rewritten, report.failed) == (4, 1)


async def test_a_version_is_destroyed_only_once_no_row_is_under_it(world: World, app: Application) -> None:
    async with world.open() as km:
        old = (await km.get_active_data_key()).id
        app.make_people(km, 10)
        await km.register_field(EMAIL, app.url)
        await km.rotate_data_key(promote="now")
        with pytest.raises(KeyInUseError):
            await admin.schedule_destroy(km, old)
        await reencrypt(km, app.url, EMAIL)
        await admin.schedule_destroy(km, old)


async def test_a_paused_job_goes_on_where_it_stopped(world: World, sqlite_app: Application) -> None:
    async with world.open() as km:
        sqlite_app.make_people(km, 200)
        await km.rotate_data_key(promote="now")
        asked: list[asyncio.Task[object]] = []

        def stop_early(progress: ReencryptProgress) -> None:
            if not asked:
                asked.append(asyncio.ensure_future(pause(km, progress.job_id)))

        first = await reencrypt(km, sqlite_app.url, EMAIL, batch_rows=5, rows_per_s=400, on_progress=stop_early)
        assert first.state is ReencryptionState.PAUSED
        assert 0 < first.rewritten < 200
        second = await reencrypt(km, sqlite_app.url, EMAIL, batch_rows=5)
        assert (second.job_id, second.read, second.rewritten) == (first.job_id, 200, 200)
        with pytest.raises(ConflictError):
            await pause(km, first.job_id)


async def test_a_rotation_makes_an_unfinished_job_begin_again(world: World, sqlite_app: Application) -> None:
    async with world.open() as km:
        sqlite_app.make_people(km, 40)
        await km.rotate_data_key(promote="now")

        def fail(progress: ReencryptProgress) -> None:
            raise RuntimeError("the caller's own failure")

        with pytest.raises(RuntimeError):
            await reencrypt(km, sqlite_app.url, EMAIL, batch_rows=1, on_progress=fail)
        new = await km.rotate_data_key(promote="now")
        report = await reencrypt(km, sqlite_app.url, EMAIL, batch_rows=10)
        assert report.rewritten == 40
        assert key_ids(sqlite_app) == {new.id}
        assert {job.state for job in await reencryptions(km, EMAIL.id)} == {
            ReencryptionState.CANCELLED,
            ReencryptionState.DONE,
        }


async def test_a_caller_that_is_cancelled_leaves_no_thread_and_a_job_to_go_on_with(
    world: World, sqlite_app: Application
) -> None:
    async with world.open() as km:
        sqlite_app.make_people(km, 200)
        await km.rotate_data_key(promote="now")
        is_under_way = asyncio.Event()
        running = asyncio.create_task(
            reencrypt(
                km, sqlite_app.url, EMAIL, batch_rows=5, rows_per_s=400, on_progress=lambda told: is_under_way.set()
            )
        )
        await is_under_way.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("keystead-reencrypt")]
        (job,) = await reencryptions(km)
        report = await reencrypt(km, sqlite_app.url, EMAIL)
        assert (report.job_id, report.rewritten) == (job.id, 200)


async def test_a_cancelled_job_is_over(world: World, sqlite_app: Application) -> None:
    async with world.open() as km:
        sqlite_app.make_people(km, 40)
        await km.rotate_data_key(promote="now")
        tasks: list[asyncio.Task[object]] = []

        def end(progress: ReencryptProgress) -> None:
            if not tasks:
                tasks.append(asyncio.ensure_future(cancel(km, progress.job_id)))

        report = await reencrypt(km, sqlite_app.url, EMAIL, batch_rows=1, rows_per_s=100, on_progress=end)
        assert report.state is ReencryptionState.CANCELLED
        assert not report.is_complete


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (Field("nobody", "email"), "no table"),
        (Field("people", "mail"), "no column 'mail'"),
        (Field("people", "email", tenant="org"), "no column 'org'"),
    ],
)
async def test_what_the_table_lacks_is_named(world: World, app: Application, field: Field, message: str) -> None:
    async with world.open() as km:
        app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES)")
        with pytest.raises(InvalidInputError, match=message):
            await reencrypt(km, app.url, field)
        assert await km.fields() == []


async def test_a_field_without_its_indexes_is_refused(world: World, sqlite_app: Application) -> None:
    field = replace(EMAIL, indexes=(Exact(),))
    async with world.open() as km:
        sqlite_app.make_people(km, 3, field)
        await reencrypt(km, sqlite_app.url, field)
        with pytest.raises(InvalidInputError, match="field forget"):
            await reencrypt(km, sqlite_app.url, EMAIL)


async def test_a_plan_counts_rows_by_version_and_writes_nothing(world: World, app: Application) -> None:
    async with world.open() as km:
        old = await km.get_active_data_key()
        app.make_people(km, 10)
        await km.rotate_data_key(promote="now")
        app.run("UPDATE people SET email = NULL WHERE id = 2")
        found = await plan(km, app.url, EMAIL)
        assert [(each.data_key_id, each.keyring, each.version, each.rows) for each in found.versions] == [
            (old.id, "default", 1, 9)
        ]
        assert (found.rows, found.empty, found.sample_rows, found.sample_changes) == (10, 1, 10, 9)
        assert found.seconds > 0
        assert await km.fields() == []


async def test_progress_is_told_after_each_batch(world: World, sqlite_app: Application) -> None:
    async with world.open() as km:
        sqlite_app.make_people(km, 25)
        await km.rotate_data_key(promote="now")
        told: list[ReencryptProgress] = []
        await reencrypt(km, sqlite_app.url, EMAIL, batch_rows=10, on_progress=told.append)
        assert [(each.read, each.total, each.rewritten) for each in told] == [(10, 25, 10), (20, 25, 20), (25, 25, 25)]
        assert told[-1].seconds_left == 0


def test_code_that_is_not_async_has_the_same(sqlite_app: Application, tmp_path: Path) -> None:
    with blocking.KeyManager.open("local:", store=f"sqlite:///{tmp_path}/keys.db", background=False) as km:
        cipher = km.field(EMAIL)
        sqlite_app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES)")
        sqlite_app.fill("INSERT INTO people VALUES (:a, :b)", [(n, cipher.encrypt("x", record=n)) for n in range(5)])
        km.rotate_data_key(promote="now")
        assert blocking.plan(km, sqlite_app.url, EMAIL).sample_changes == 5
        assert blocking.reencrypt(km, sqlite_app.url, EMAIL).rewritten == 5
