"""Re-encryption of rows that are under the keys of whom they are about: nobody who was forgotten is brought back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keystead import KeyManager, KMSError, SubjectErasedError
from keystead.errors import KeyInUseError
from keystead.fields import Field, plan, reencrypt
from keystead.fields.sealing import RowSealer
from keystead.manager import admin
from keystead.model.patterns import OF_SUBJECTS
from keystead.ports import KeyUse
from tests.fields.application import Application, address
from tests.fields.people import NOTE, PERSON, emails, fill_notes, fill_people, found, make_tables, opened


async def keyrings(km: KeyManager) -> int:
    """Return how many keyrings of subjects there are."""
    async with (await km.session()).surroundings.store.reading() as work:
        return len(await work.subjects())


async def test_the_rows_of_subjects_whose_keys_were_rotated_are_rewritten(tmp_path: Path, app: Application) -> None:
    make_tables(app)
    async with opened(tmp_path) as km:
        await fill_people(km, app, range(1, 11))
        before = dict(app.rows("SELECT id, email FROM people"))
        for person in (3, 7):
            await (await km.subject(PERSON.subject_of(person))).rotate(promote="now")
        report = await reencrypt(km, app.url, PERSON, batch_rows=4)
        assert (report.rewritten, report.skipped, report.failed, report.passed_by) == (2, 8, 0, 0)
        after = dict(app.rows("SELECT id, email FROM people"))
        assert {person for person in after if after[person] != before[person]} == {3, 7}
        assert await emails(km, app) == {n: address(n) for n in range(1, 11)}
        again = await reencrypt(km, app.url, PERSON)
        assert (again.rewritten, again.skipped) == (0, 10)


async def test_more_subjects_than_fit_the_cache_are_rewritten_in_a_few_reads(
    tmp_path: Path, sqlite_app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = sqlite_app
    make_tables(app)
    shared = Field("people", "email", indexes=PERSON.indexes)
    async with opened(tmp_path, keyring_cache=5) as km:
        await km.load_fields(shared)
        cipher = km.field(shared)
        sealed = cipher.encrypt_many([(address(n), n) for n in range(1, 301)])
        app.fill("INSERT INTO people (id, email) VALUES (:a, :b)", zip(range(1, 301), sealed, strict=True))
        moving = replace(PERSON, former_keyrings=("default",))
        report = await reencrypt(km, app.url, moving, batch_rows=100)
        assert (report.rewritten, report.failed, report.is_complete) == (300, 0, True)
        assert await keyrings(km) == 300
        assert await emails(km, app) == {n: address(n) for n in range(1, 301)}
        store = (await km.session()).surroundings.store
        reads: list[None] = []
        reading = store.reading

        def counted(**how: Any) -> Any:
            reads.append(None)
            return reading(**how)

        monkeypatch.setattr(store, "reading", counted)
        again = await reencrypt(km, app.url, PERSON, batch_rows=300)
        assert (again.rewritten, again.skipped) == (0, 300)
        assert len(reads) < 40


async def test_values_in_clear_are_encrypted_for_their_subjects(tmp_path: Path, app: Application) -> None:
    app.run("CREATE TABLE notes (id BIGINT PRIMARY KEY, person_id BIGINT, text BYTES, clear TEXT)")
    app.run("INSERT INTO notes VALUES (1, 5, NULL, 'tea'), (2, 6, NULL, 'rum'), (3, NULL, NULL, 'nobody')")
    app.run("INSERT INTO notes VALUES (4, NULL, NULL, NULL)")
    field = replace(NOTE, indexes=())
    async with opened(tmp_path) as km:
        report = await reencrypt(km, app.url, field, plaintext_column="clear")
        assert (report.rewritten, report.skipped, report.failed) == (2, 1, 1)
        assert [failure.reason for failure in report.failures] == ["invalid_input"]
        cipher = km.field(field)
        for note, text in ((1, "tea"), (2, "rum")):
            [(blob, clear)] = app.rows(f"SELECT text, clear FROM notes WHERE id = {note}")
            assert (cipher.decrypt(blob, record=note), clear) == (text, None)
        assert app.rows("SELECT clear FROM notes WHERE id = 3") == [("nobody",)]


async def test_a_row_goes_to_the_subject_it_names_now_and_stays_where_that_has_no_keys(
    tmp_path: Path, app: Application
) -> None:
    make_tables(app)
    async with opened(tmp_path) as km:
        await fill_notes(km, app, [(1, 5, "tea"), (2, 6, "rum"), (3, 5, "milk"), (4, 5, "wine")])
        app.run(
            "UPDATE notes SET person_id = 6 WHERE id = 1",
            "UPDATE notes SET person_id = 77 WHERE id = 3",
            "UPDATE notes SET person_id = NULL WHERE id = 4",
        )
        report = await reencrypt(km, app.url, NOTE)
        assert (report.rewritten, report.skipped, report.failed) == (1, 3, 0)
        assert await keyrings(km) == 2
        names = {note: bytes(blob)[2:10] for note, blob in app.rows("SELECT id, text FROM notes")}
        assert names[1] == names[2] != names[3] == names[4]
        await km.forget(NOTE.subject_of(6))
        cipher = km.field(NOTE)
        for note, blob in app.rows("SELECT id, text FROM notes WHERE id IN (1, 2)"):
            with pytest.raises(SubjectErasedError):
                cipher.decrypt(blob, record=note)


@pytest.mark.parametrize("when", ["before it is decided", "after its keys were loaded"])
async def test_who_is_forgotten_in_the_midst_is_not_brought_back(
    tmp_path: Path, app: Application, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    make_tables(app)
    async with opened(tmp_path) as km, opened(tmp_path, state_dir=tmp_path / "other") as other:
        await fill_people(km, app, range(1, 6))
        await km.register_field(PERSON, app.url)
        for person in range(1, 6):
            await (await km.subject(PERSON.subject_of(person))).rotate(promote="now")
        loop, waiting = asyncio.get_running_loop(), [3]
        name = "work_on" if when == "before it is decided" else "_rows"
        work_on: Callable[..., Any] = getattr(RowSealer, name)

        def forgetting(self: RowSealer, rows: Sequence[Any], *rest: Any) -> Any:
            if waiting:
                forget = other.forget(PERSON.subject_of(waiting.pop()))
                asyncio.run_coroutine_threadsafe(forget, loop).result()
            return work_on(self, rows, *rest)

        monkeypatch.setattr(RowSealer, name, forgetting)
        with contextlib.suppress(KMSError):
            await reencrypt(km, app.url, PERSON)
        monkeypatch.undo()
        report = await reencrypt(km, app.url, PERSON)
        assert (report.failed, report.erased, report.is_complete) == (0, 1, True)
        assert await keyrings(km) == 4
        assert found(km, app, 3) == []
        assert await emails(km, app) == {n: SubjectErasedError if n == 3 else address(n) for n in range(1, 6)}


async def test_a_plan_tells_rows_of_subjects_by_version_and_those_of_the_forgotten(
    tmp_path: Path, app: Application
) -> None:
    make_tables(app)
    async with opened(tmp_path) as km:
        await fill_people(km, app, range(1, 8))
        await (await km.subject(PERSON.subject_of(2))).rotate(promote="now")
        await fill_people(km, app, [8])
        await km.forget(PERSON.subject_of(5))
        planned = await plan(km, app.url, PERSON)
        assert (planned.rows, planned.erased, planned.empty) == (8, 1, 0)
        assert [(each.keyring, each.version, each.rows) for each in planned.versions] == [(OF_SUBJECTS, 1, 7)]
        assert await keyrings(km) == 7


async def test_a_row_whose_keys_were_altered_fails_alone(tmp_path: Path, sqlite_app: Application) -> None:
    app, store = sqlite_app, Application(f"sqlite:///{tmp_path}/keys.db")
    make_tables(app)
    async with opened(tmp_path) as km:
        await fill_people(km, app, range(1, 5))
        keyring = (await km.subject(PERSON.subject_of(2))).name
    store.run(f"UPDATE data_keys SET wrapped_key = zeroblob(60) WHERE keyring = '{keyring}'")
    async with opened(tmp_path) as km:
        report = await reencrypt(km, app.url, PERSON)
        assert (report.skipped, report.failed) == (3, 1)
        assert [failure.key for failure in report.failures] == ["[2]"]
        read = await emails(km, app)
        assert {n: read[n] for n in (1, 3, 4)} == {n: address(n) for n in (1, 3, 4)}


async def test_a_subjects_version_is_destroyed_only_once_no_row_is_under_it(
    tmp_path: Path, sqlite_app: Application
) -> None:
    make_tables(sqlite_app)
    async with opened(tmp_path) as km:
        await fill_people(km, sqlite_app, [1, 2])
        await km.register_field(PERSON, sqlite_app.url)
        assert await admin.list_uses(km) == [
            KeyUse("field:people.email", OF_SUBJECTS, f"sql:{sqlite_app.url}#people.email")
        ]
        ring = await km.subject(PERSON.subject_of(1))
        [old] = await ring.versions()
        await ring.rotate(promote="now")
        with pytest.raises(KeyInUseError, match=r"field:people\.email \(1\)"):
            await admin.schedule_destroy(km, old.id)
        await reencrypt(km, sqlite_app.url, PERSON)
        await admin.schedule_destroy(km, old.id)
