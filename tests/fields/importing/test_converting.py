"""A column of another system is converted: from a column of its own, and in place, beside an application that edits."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aws_encryption_sdk import EncryptionSDKClient
from cryptography.fernet import Fernet

from keystead.errors import ImportEndedError, SubjectErasedError
from keystead.fields import Exact, Field, Importer, Tokens, importer, plan, reencrypt, reencryptions
from keystead.manager.manager import KeyManager
from keystead.model import is_of_subject
from tests.crypto.vectors import load
from tests.fakes.clock import FakeClock
from tests.fakes.world import World
from tests.fields.application import EMAIL, Application, address, before_the_write
from tests.fields.importing.importing_process import FERNET_KEY, manager
from tests.fields.importing.test_aws_encryption_sdk import RAW, raw_key
from tests.fields.people import emails, opened
from tests.fields.test_reencrypt import values
from tests.fields.test_reencrypt_safety import take_over

ROOT = Path(__file__).resolve().parents[3]
OLD = Fernet(FERNET_KEY)
PLACES = pytest.mark.parametrize("place", ["beside", "in place"])


def fernet(clock: FakeClock, **options: Any) -> Importer:
    """Return what reads the old values, by the test's clock."""
    given: dict[str, Any] = {"until": date(2030, 6, 30), "clock": clock}
    return importer("fernet", keys=FERNET_KEY, **(given | options))


def make_old(app: Application, place: str, count: int, more: str = "") -> str | None:
    """Make the table with rows 1 to ``count`` of the old library; return the column they are in, if it is another."""
    app.run(f"CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES, old TEXT{more})")
    tokens = [(n, OLD.encrypt(address(n).encode())) for n in range(1, count + 1)]
    if place == "in place":
        app.fill("INSERT INTO people (id, email) VALUES (:a, :b)", tokens)
        return None
    app.fill("INSERT INTO people (id, old) VALUES (:a, :b)", [(n, token.decode()) for n, token in tokens])
    return "old"


def left(app: Application) -> int:
    """Return how many rows hold a token still."""
    rows = app.rows("SELECT email, old FROM people")
    return sum(1 for email, old in rows if old is not None or (email is not None and email[:1] != b"\xae"))


@PLACES
async def test_every_row_is_converted_and_counted(world: World, app: Application, clock: FakeClock, place: str) -> None:
    old, reading = make_old(app, place, 30), fernet(clock)
    async with world.open() as km:
        report = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=reading, batch_rows=8)
        assert (report.rewritten, report.imported, report.failed, report.passed_by) == (30, 30, 0, 0)
        assert report.is_complete
        assert (left(app), values(app, km)) == (0, {n: address(n) for n in range(1, 31)})
        assert reading.count == 30
        again = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=reading)
        assert (again.rewritten, again.imported, again.skipped) == (0, 0, 30)


@PLACES
async def test_rows_that_come_over_go_under_the_keys_of_whom_they_are_about(
    tmp_path: Path, app: Application, clock: FakeClock, place: str
) -> None:
    old, reading, field = make_old(app, place, 12), fernet(clock), replace(EMAIL, per_subject=True)
    async with opened(tmp_path) as km:
        report = await reencrypt(km, app.url, field, plaintext_column=old, importer=reading, batch_rows=5)
        assert (report.imported, report.failed, left(app)) == (12, 0, 0)
        await km.forget(field.subject_of(3))
        read = await emails(km, app)
        assert read == {n: SubjectErasedError if n == 3 else address(n) for n in range(1, 13)}


@PLACES
async def test_indexes_and_words_are_made_with_the_conversion(
    world: World, app: Application, clock: FakeClock, place: str
) -> None:
    field = replace(EMAIL, indexes=(Exact(unique=True), Tokens()))
    more = "".join(f", {name} BYTES UNIQUE" for name in field.index_columns)
    old = make_old(app, place, 5, more)
    app.run("CREATE TABLE people_email_tokens (token BYTES NOT NULL, record BIGINT NOT NULL)")
    async with world.open() as km:
        report = await reencrypt(km, app.url, field, plaintext_column=old, importer=fernet(clock))
        assert (report.imported, report.indexed_version) == (5, 1)
        cipher = km.field(field)
        for n in range(1, 6):
            [row] = app.rows(f"SELECT {', '.join(field.index_columns)} FROM people WHERE id = {n}")
            assert row == tuple(cipher.index_values(address(n)).values())
            assert app.rows(f"SELECT count(*) FROM people_email_tokens WHERE record = {n}")[0][0] >= 1


@PLACES
async def test_a_value_that_does_not_open_is_named_and_stops_nothing(
    world: World, app: Application, clock: FakeClock, place: str
) -> None:
    old = make_old(app, place, 10)
    column = old or "email"
    strange = Fernet(Fernet.generate_key()).encrypt(b"of another key")
    altered = OLD.encrypt(b"\xff is no text")
    app.fill(
        f"UPDATE people SET {column} = :b WHERE id = :a",
        [(n, value.decode() if old else value) for n, value in ((3, strange), (4, b"in clear"), (5, altered))],
    )
    async with world.open() as km:
        report = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=fernet(clock), batch_rows=3)
        assert (report.imported, report.failed) == (7, 3)
        reasons = {failure.key: failure.reason for failure in report.failures}
        assert reasons == {"[3]": "decryption", "[4]": "invalid_ciphertext", "[5]": "invalid_input"}
        assert left(app) == 3


@PLACES
async def test_a_dry_run_opens_everything_and_writes_nothing(
    world: World, app: Application, clock: FakeClock, place: str
) -> None:
    old = make_old(app, place, 10)
    async with world.open() as km:
        report = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=fernet(clock), dry_run=True)
        assert (report.rewritten, report.imported, left(app)) == (10, 10, 10)
        before = await plan(km, app.url, EMAIL, plaintext_column=old, importer=fernet(clock))
        assert (before.rows, before.sample_changes, before.plaintext) == (10, 10, 10 if old else 0)
        unknown = [(each.keyring, each.rows) for each in before.versions]
        assert unknown == ([] if old else [(None, 10)])


@PLACES
async def test_an_edit_wins_over_the_conversion(
    world: World, app: Application, clock: FakeClock, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_old(app, place, 10)
    async with world.open() as km:
        sealed = km.field(EMAIL).encrypt("edited@example.org", record=4)
        edit = "UPDATE people SET email = :a, old = NULL WHERE id = 4"
        before_the_write(monkeypatch, lambda: app.fill(edit, [(sealed,)]))
        report = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=fernet(clock))
        assert (report.rewritten, report.imported, report.contended, report.failed) == (9, 9, 1, 0)
        assert values(app, km) == {n: address(n) for n in range(1, 11)} | {4: "edited@example.org"}


async def test_a_write_of_the_old_application_is_converted_too(
    world: World, app: Application, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(app, "in place", 10)
    token = OLD.encrypt(b"edited@example.org")
    async with world.open() as km:
        edit = "UPDATE people SET email = :a WHERE id = 4"
        before_the_write(monkeypatch, lambda: app.fill(edit, [(token,)]))
        report = await reencrypt(km, app.url, EMAIL, importer=fernet(clock))
        assert (report.imported, report.contended) == (10, 1)
        assert values(app, km)[4] == "edited@example.org"


@PLACES
async def test_a_row_of_the_old_application_behind_the_job_is_told_and_comes_with_the_next(
    world: World, app: Application, clock: FakeClock, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_old(app, place, 10)
    token = OLD.encrypt(address(0).encode())
    late = f"INSERT INTO people (id, {old or 'email'}) VALUES (0, :a)"
    before_the_write(monkeypatch, lambda: app.fill(late, [(token.decode() if old else token,)]))
    async with world.open() as km:
        first = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=fernet(clock))
        assert (first.imported, first.failed, first.passed_by, first.is_complete) == (10, 0, 1, False)
        second = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=fernet(clock))
        assert (second.imported, second.passed_by, second.is_complete) == (1, 0, True)
        assert values(app, km) == {n: address(n) for n in range(11)}


async def test_without_an_importer_no_foreign_form_is_tried(world: World, app: Application) -> None:
    make_old(app, "in place", 3)
    async with world.open() as km:
        report = await reencrypt(km, app.url, EMAIL)
        assert (report.rewritten, report.failed, left(app)) == (0, 3, 3)
        assert {failure.reason for failure in report.failures} == {"invalid_ciphertext"}


async def test_tokens_are_not_encrypted_as_if_they_were_in_clear_where_the_importer_was_forgotten(
    world: World, app: Application
) -> None:
    old = make_old(app, "beside", 2)
    app.run("INSERT INTO people (id, old) VALUES (3, 'gAAAAA is no token'), (4, 'vault:v1:AAAA')")
    app.fill("INSERT INTO people (id, old) VALUES (5, :a)", [(f"vault:v1:{'A' * 40}",)])
    async with world.open() as km:
        report = await reencrypt(km, app.url, EMAIL, plaintext_column=old)
        assert (report.rewritten, report.failed) == (2, 3)
        assert {failure.reason for failure in report.failures} == {"invalid_input"}
        assert [key for (key,) in app.rows("SELECT id FROM people WHERE old IS NOT NULL ORDER BY id")] == [1, 2, 5]
        meant = replace(EMAIL, allow_envelopes=True)
        assert (await reencrypt(km, app.url, meant, plaintext_column=old)).failed == 0


@PLACES
async def test_of_two_rows_with_one_value_a_unique_index_leaves_one_and_counts_the_other(
    world: World, app: Application, clock: FakeClock, place: str
) -> None:
    field = replace(EMAIL, indexes=(Exact(unique=True),))
    old = make_old(app, place, 4, "".join(f", {name} BYTES UNIQUE" for name in field.index_columns))
    token = OLD.encrypt(address(1).encode())
    app.fill(f"UPDATE people SET {old or 'email'} = :a WHERE id = 3", [(token.decode() if old else token,)])
    async with world.open() as km:
        report = await reencrypt(km, app.url, field, plaintext_column=old, importer=fernet(clock))
        assert (report.rewritten, report.imported, report.failed) == (3, 3, 1)
        assert report.failures[0].reason == "conflict"
        assert left(app) == 1


async def test_ciphertexts_are_not_read_by_the_importer_where_old_values_have_their_own_column(
    world: World, app: Application, clock: FakeClock
) -> None:
    old = make_old(app, "beside", 2)
    app.fill("UPDATE people SET email = :a, old = NULL WHERE id = 1", [(OLD.encrypt(b"slipped in"),)])
    async with world.open() as km:
        report = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=fernet(clock))
        assert (report.imported, report.failed) == (1, 1)
        assert report.failures[0].reason == "invalid_ciphertext"


async def test_a_row_with_both_keeps_the_ciphertext_if_they_say_the_same(
    world: World, app: Application, clock: FakeClock
) -> None:
    old = make_old(app, "beside", 2)
    async with world.open() as km:
        cipher = km.field(EMAIL)
        app.fill("UPDATE people SET email = :a WHERE id = 1", [(cipher.encrypt(address(1), record=1),)])
        app.fill("UPDATE people SET email = :a WHERE id = 2", [(cipher.encrypt("newer", record=2),)])
        report = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=fernet(clock))
        assert (report.rewritten, report.imported, report.failed) == (1, 0, 1)
        assert app.rows("SELECT id FROM people WHERE old IS NOT NULL") == [(2,)]


async def test_each_value_is_bound_to_its_tenant_and_record(world: World, app: Application, clock: FakeClock) -> None:
    field = Field("people", "email", tenant="org", keyring="people-{tenant}")
    old = make_old(app, "beside", 4, ", org TEXT")
    app.run("UPDATE people SET org = CASE WHEN id < 3 THEN 'north' ELSE 'south' END")
    async with world.open() as km:
        report = await reencrypt(km, app.url, field, plaintext_column=old, importer=fernet(clock))
        assert report.imported == 4
        for n, blob in app.rows("SELECT id, email FROM people"):
            tenant = "north" if n < 3 else "south"
            assert km.field(field).decrypt(blob, record=n, tenant=tenant) == address(n)


@PLACES
async def test_a_row_that_changes_hands_meanwhile_is_bound_to_its_new_owner(
    world: World, app: Application, clock: FakeClock, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = Field("people", "email", tenant="org")
    old = make_old(app, place, 2, ", org TEXT")
    app.run("UPDATE people SET org = 'north'")
    before_the_write(monkeypatch, lambda: app.run("UPDATE people SET org = 'south' WHERE id = 2"))
    async with world.open() as km:
        report = await reencrypt(km, app.url, field, plaintext_column=old, importer=fernet(clock))
        assert (report.imported, report.contended, report.failed) == (2, 1, 0)
        found: dict[Any, Any] = dict(app.rows("SELECT org, email FROM people"))
        assert km.field(field).decrypt(found["north"], record=1, tenant="north") == address(1)
        assert km.field(field).decrypt(found["south"], record=2, tenant="south") == address(2)


@pytest.mark.parametrize("kind", ["JSON", "JSONB", "TEXT"])
async def test_records_in_a_column_of_json_are_converted(
    world: World, app: Application, clock: FakeClock, kind: str
) -> None:
    vectors = load("legacy.json")["fraiseql"]
    reading = importer("fraiseql", keys=bytes.fromhex(vectors["local"]["key"]), until=date(2030, 6, 30), clock=clock)
    records = [(n, json.dumps(case["dict"])) for n, case in enumerate(vectors["records"], 1)]
    field = Field("people", "secret", type=bytes)
    app.run(f"CREATE TABLE people (id BIGINT PRIMARY KEY, secret BYTES, old {kind})")
    app.fill(f"INSERT INTO people (id, old) VALUES (:a, CAST(:b AS {'TEXT' if app.is_sqlite else kind}))", records)
    async with world.open() as km:
        report = await reencrypt(km, app.url, field, plaintext_column="old", importer=reading)
        assert report.failures == []
        assert (report.imported, report.failed) == (len(records), 0)
        for n, blob in app.rows("SELECT id, secret FROM people"):
            expected = bytes.fromhex(vectors["records"][n - 1]["plaintext"])
            assert km.field(field).decrypt(blob, record=n) == expected
        assert app.rows("SELECT count(old) FROM people") == [(0,)]


async def test_text_among_the_bytes_of_sqlite_is_converted_in_place(
    world: World, sqlite_app: Application, clock: FakeClock
) -> None:
    make_old(sqlite_app, "in place", 2)
    sqlite_app.fill("UPDATE people SET email = :a WHERE id = 1", [(OLD.encrypt(b"as text").decode(),)])
    sqlite_app.run("INSERT INTO people (id, email) VALUES (3, 5), (4, 'in clear'), (5, NULL)")
    async with world.open() as km:
        report = await reencrypt(km, sqlite_app.url, EMAIL, importer=fernet(clock))
        assert (report.imported, report.failed, report.skipped) == (2, 2, 1)
        assert {failure.reason for failure in report.failures} == {"invalid_ciphertext"}
        (blob,) = sqlite_app.rows("SELECT email FROM people WHERE id = 1")[0]
        assert km.field(EMAIL).decrypt(blob, record=1) == "as text"


@PLACES
async def test_values_come_under_the_keys_of_whom_they_are_about(
    world: World, app: Application, clock: FakeClock, place: str
) -> None:
    field = Field("people", "email", per_subject=True, indexes=(Exact(),))
    old = make_old(app, place, 6, "".join(f", {name} BYTES" for name in field.index_columns))
    async with world.open() as km:
        app.fill(
            "INSERT INTO people (id, email) VALUES (7, NULL), (:a, :b)",
            [(8, OLD.encrypt(b"x"))] if not old else [(8, None)],
        )
        report = await reencrypt(km, app.url, field, plaintext_column=old, importer=fernet(clock), batch_rows=3)
        assert (report.imported, report.failed, left(app)) == (6 if old else 7, 0, 0)
        assert len({ring for ring in [row.keyring for row in await world.rows()] if is_of_subject(ring)}) >= 6
        rows = [row for row in app.rows("SELECT id, email FROM people") if row[1] is not None]
        await km.prefetch([blob for _, blob in rows])
        assert {n: km.field(field).decrypt(blob, record=n) for n, blob in rows if n < 7} == {
            n: address(n) for n in range(1, 7)
        }


async def test_messages_of_bytes_are_planned_and_converted_in_place(
    world: World, app: Application, clock: FakeClock
) -> None:
    app.run("CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES)")
    writer = EncryptionSDKClient()
    messages = [(n, writer.encrypt(source=address(n).encode(), key_provider=raw_key())[0]) for n in range(40)]
    app.fill("INSERT INTO people VALUES (:a, :b)", messages)
    reading = importer("aws-encryption-sdk", **{**RAW, "clock": clock})
    async with world.open() as km:
        found = await plan(km, app.url, EMAIL, importer=reading)
        assert [(each.keyring, each.rows) for each in found.versions] == [(None, 40)]
        report = await reencrypt(km, app.url, EMAIL, importer=reading)
        assert (report.imported, report.failed, report.passed_by) == (40, 0, 0)
        assert values(app, km) == {n: address(n) for n in range(40)}


async def test_after_the_end_nothing_is_converted(world: World, app: Application, clock: FakeClock) -> None:
    old, reading = make_old(app, "beside", 3), fernet(clock)
    clock.set(datetime(2030, 7, 1, tzinfo=UTC))
    async with world.open() as km:
        with pytest.raises(ImportEndedError, match="later until="):
            await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=reading)
    assert left(app) == 3


async def begin_and_end(km: KeyManager, app: Application, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> str:
    """Begin to convert a table, let the importer's end come in the middle, and return the old column."""
    old, reading = make_old(app, "beside", 30), fernet(clock, until=clock.now() + timedelta(seconds=90))
    before_the_write(monkeypatch, lambda: clock.advance(120))
    with pytest.raises(ImportEndedError):
        await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=reading, batch_rows=4)
    return old or ""


async def test_an_end_that_comes_meanwhile_stops_the_job_which_a_later_end_goes_on_with(
    world: World, app: Application, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        old = await begin_and_end(km, app, clock, monkeypatch)
        assert 0 < left(app) < 30
        later = importer("fernet", keys=FERNET_KEY, until=date(2031, 1, 1), clock=clock)
        report = await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=later, batch_rows=4)
        assert (left(app), report.failed) == (0, 0)
        assert len(await reencryptions(km)) == 1


async def test_a_job_is_not_gone_on_with_under_another_format(
    world: World, app: Application, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open() as km:
        old = await begin_and_end(km, app, clock, monkeypatch)
        other = importer("sqlalchemy-utils", keys="k", engine="fernet", until=date(2031, 1, 1), clock=clock)
        await reencrypt(km, app.url, EMAIL, plaintext_column=old, importer=other, batch_rows=4)
        assert [job.state for job in await reencryptions(km)] == ["cancelled", "done"]


@PLACES
@pytest.mark.parametrize("point", ["write", "commit", "record"])
async def test_a_killed_conversion_is_gone_on_with(
    tmp_path: Path, sqlite_app: Application, place: str, point: str
) -> None:
    store, old = str(tmp_path / "keys.db"), make_old(sqlite_app, place, 20)
    command = [sys.executable, "-m", "tests.fields.importing.importing_process", store, sqlite_app.url, old or ""]
    killed = await asyncio.to_thread(subprocess.run, [*command, point, "2"], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert 0 < left(sqlite_app) < 20
    reading = importer("fernet", keys=FERNET_KEY, until=datetime.now(UTC) + timedelta(hours=1))
    async with manager(store) as km:
        await take_over(km)
        report = await reencrypt(km, sqlite_app.url, EMAIL, plaintext_column=old, importer=reading, batch_rows=5)
        assert (report.read, report.failed, left(sqlite_app)) == (20, 0, 0)
        assert values(sqlite_app, km) == {n: address(n) for n in range(1, 21)}
        assert len(await reencryptions(km)) == 1
