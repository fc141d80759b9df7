"""Values that are under the keys of whom they are about: they are read as all others, until somebody is forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from keystead import InvalidInputError, SubjectErasedError, blocking
from keystead.errors import ConfigurationError, DataKeyNotLoadedError, DecryptionError, KeyringNotLoadedError
from keystead.fields import Exact, Field, reencrypt
from keystead.model.patterns import OF_SUBJECTS
from tests.fields.application import Application, address
from tests.fields.people import KMS, NOTE, PERSON, emails, fill_notes, fill_people, found, make_tables, opened
from tests.fields.rings import cipher_of


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"subject": "person_id"}, "subject_kind="),
        ({"subject_kind": "people"}, "per_subject=True"),
        ({"subject_type": UUID}, "per_subject=True"),
        ({"per_subject": True, "keyring": "people"}, "leave keyring= out"),
        ({"per_subject": True, "former_keyrings": (OF_SUBJECTS,)}, "to be forgotten"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(InvalidInputError, match=cure):
        Field("notes", "text", **options)


def test_a_subject_is_named_by_its_kind_and_its_id() -> None:
    assert PERSON.subject_of(42) == NOTE.subject_of(42) == "people:42"
    assert Field("app.people", "name", per_subject=True).subject_of(42) == "people:42"
    one = UUID(int=7)
    assert replace(NOTE, subject_type=UUID).subject_of(one) == f"people:{one}"
    assert replace(PERSON, subject_kind="humans").subject_of("x") == "humans:x"
    with pytest.raises(InvalidInputError, match="person_id"):
        NOTE.subject_of(None)
    with pytest.raises(InvalidInputError, match="no subjects"):
        Field("people", "email").subject_of(42)


async def test_each_persons_values_are_under_keys_of_their_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as km:
        await km.load_fields(PERSON, NOTE, subjects=[1, 2])
        people, notes = km.field(PERSON), km.field(NOTE)
        one, two = (people.encrypt(address(n), record=n) for n in (1, 2))
        note = notes.encrypt("likes tea", record=9, subject=1)
        assert one
        assert two
        assert note
        assert one[2:10] == note[2:10] != two[2:10]
        with pytest.raises(DecryptionError):
            people.decrypt(one, record=2)
        with pytest.raises(InvalidInputError, match="person_id"):
            notes.encrypt("likes tea", record=9)
        assert not people.needs_reencrypt(one)
        assert people.reseal(one, record=1)[2:10] == one[2:10]
        assert people.encrypt_many([(None, 3), ("a", 1)])[0] is None
        [given] = people.encrypt_many([("a", 3)], subject=2)
        assert given
        assert given[2:10] == two[2:10]
    async with opened(tmp_path) as km:
        people, notes = km.field(PERSON), km.field(NOTE)
        with pytest.raises(KeyringNotLoadedError, match=r"subjects=\[\.\.\.\]") as refused:
            people.encrypt(address(1), record=1)
        assert "people:1" not in str(refused.value)
        with pytest.raises(DataKeyNotLoadedError, match="prefetch"):
            people.decrypt(one, record=1)
        await km.prefetch([one, two, note])
        assert people.decrypt_many([(one, 1), (None, 7), (two, 2)]) == [address(1), None, address(2)]
        assert notes.decrypt(note, record=9) == "likes tea"


async def test_no_subject_is_named_anywhere_in_the_store(tmp_path: Path) -> None:
    field = Field("people", "email", per_subject=True)
    async with opened(tmp_path, audit=True) as km:
        await km.load_fields(field, subjects=["ada-lovelace"])
        sealed = km.field(field).encrypt("x", record="ada-lovelace")
        assert sealed
        assert b"ada-lovelace" not in sealed
        await km.forget(field.subject_of("ada-lovelace"))
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"ada-lovelace" not in file.read_bytes(), file


async def test_who_is_forgotten_is_gone_from_every_table_and_found_by_no_search(
    tmp_path: Path, app: Application
) -> None:
    make_tables(app)
    async with opened(tmp_path) as km:
        await fill_people(km, app, range(1, 6))
        await fill_notes(km, app, [(11, 1, "likes tea"), (12, 2, "likes rum"), (13, 1, "hates rum")])
        await km.register_field(PERSON, app.url)
        await km.register_field(NOTE, app.url)
        assert found(km, app, 1) == [1]
        receipt = await km.forget(PERSON.subject_of(1))
        assert (receipt.indexes, receipt.remaining) == ("emptied", ())
        receipt.verify(await km.receipt_keys())
        assert found(km, app, 1) == []
        assert found(km, app, 2) == [2]
        assert {record for (record,) in app.rows("SELECT record FROM notes_text_tokens")} == {12}
        assert await emails(km, app) == {1: SubjectErasedError, **{n: address(n) for n in range(2, 6)}}
        cipher = km.field(NOTE)
        for note, blob in app.rows("SELECT id, text FROM notes WHERE person_id = 1"):
            with pytest.raises(SubjectErasedError):
                cipher.decrypt(blob, record=note)
    async with opened(tmp_path) as km:
        assert await emails(km, app) == {1: SubjectErasedError, **{n: address(n) for n in range(2, 6)}}


async def test_who_comes_back_has_new_keys_and_what_was_stays_gone(tmp_path: Path, sqlite_app: Application) -> None:
    make_tables(sqlite_app)
    async with opened(tmp_path) as km:
        await fill_people(km, sqlite_app, [1])
        await km.forget(PERSON.subject_of(1))
        await km.load_fields(PERSON, subjects=[1])
        cipher = km.field(PERSON)
        anew = cipher.encrypt("new@example.org", record=1)
        assert cipher.decrypt(anew, record=1) == "new@example.org"
        assert await emails(km, sqlite_app) == {1: SubjectErasedError}


async def test_indexes_that_cannot_be_reached_are_told_and_emptied_when_they_can(
    tmp_path: Path, sqlite_app: Application
) -> None:
    app = sqlite_app
    make_tables(app)
    file = Path(app.url.removeprefix("sqlite:///"))
    async with opened(tmp_path) as km:
        await fill_people(km, app, [1, 2])
        await km.register_field(PERSON, app.url)
        await km.register_field(replace(PERSON, id="elsewhere"), "app:elsewhere")
        file.rename(file.with_suffix(".away"))
        receipt = await km.forget(PERSON.subject_of(1))
        file.with_suffix(".away").rename(file)
        assert (receipt.indexes, receipt.remaining) == ("remaining", ("elsewhere", "people.email"))
        receipt.verify(await km.receipt_keys())
        assert receipt.from_json(receipt.to_json()) == receipt
        assert found(km, app, 1) == [1]
        again = await km.erasure_receipt(receipt.keyring)
        assert again.remaining == ("elsewhere",)
        assert found(km, app, 1) == []


async def test_a_re_encryption_empties_the_indexes_that_were_left(tmp_path: Path, app: Application) -> None:
    make_tables(app)
    async with opened(tmp_path) as km:
        await fill_people(km, app, range(1, 8))
        await fill_notes(km, app, [(11, 1, "likes tea"), (12, 2, "likes rum")])
        for person in (1, 4):
            await km.forget(PERSON.subject_of(person))
        report = await reencrypt(km, app.url, PERSON, batch_rows=3)
        assert (report.rewritten, report.skipped, report.failed, report.erased) == (2, 5, 0, 2)
        assert report.is_complete
        assert found(km, app, 1) == found(km, app, 4) == []
        assert found(km, app, 2) == [2]
        report = await reencrypt(km, app.url, NOTE, batch_rows=3)
        assert (report.rewritten, report.erased, report.failed) == (1, 1, 0)
        assert {record for (record,) in app.rows("SELECT record FROM notes_text_tokens")} == {12}
        again = await reencrypt(km, app.url, PERSON)
        assert (again.rewritten, again.skipped, again.erased, again.is_complete) == (0, 7, 2, True)


def test_code_that_is_not_async_loads_what_it_needs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"default_key_id": "app", "store": f"sqlite:///{tmp_path}/keys.db"}
    options |= {"erasures": tmp_path / "erasures.log", "state_dir": tmp_path / "state"}
    with blocking.KeyManager({"cloud": KMS}, **options) as km:
        people, notes = km.field(PERSON), km.field(NOTE)
        sealed = people.encrypt_many([(address(n), n) for n in range(1, 30)])
        note = notes.encrypt("likes tea", record=9, subject=1)
    with blocking.KeyManager({"cloud": KMS}, **options) as km:
        people, notes = km.field(PERSON), km.field(NOTE)
        assert people.decrypt_many(zip(sealed, range(1, 30), strict=True)) == [address(n) for n in range(1, 30)]
        assert notes.decrypt(note, record=9) == "likes tea"
        km.load_fields(PERSON, subjects=[1])
        km.forget(PERSON.subject_of(1))
        with pytest.raises(SubjectErasedError):
            people.decrypt(sealed[0], record=1)
    with blocking.KeyManager({"cloud": KMS}, **options) as km:
        with pytest.raises(SubjectErasedError):
            km.field(PERSON).decrypt(sealed[0], record=1)
        with pytest.raises(DataKeyNotLoadedError):
            km.field(PERSON).decrypt(bytes(sealed[0] or b"")[:2] + b"\1" * 8 + bytes(sealed[0] or b"")[10:], record=1)


async def test_a_manager_without_a_log_of_erasures_uses_no_keys_of_subjects(tmp_path: Path) -> None:
    async with opened(tmp_path, erasures=None) as km:
        with pytest.raises(ConfigurationError, match="erasures="):
            await km.load_fields(PERSON, subjects=[1])


def test_what_is_under_a_shared_keyring_is_read_until_it_has_moved() -> None:
    shared = cipher_of(Field("people", "email"))
    moving = cipher_of(Field("people", "email", per_subject=True, former_keyrings=("default",)))
    moving.keyrings = shared.keyrings
    old = shared.encrypt("x", record=1)
    assert old
    assert moving.decrypt(old, record=1) == "x"
    assert moving.needs_reencrypt(old)
    strict = cipher_of(Field("people", "email", per_subject=True))
    strict.keyrings = shared.keyrings
    with pytest.raises(DataKeyNotLoadedError):
        strict.decrypt(old, record=1)


def test_an_index_finds_across_subjects() -> None:
    assert Exact() in PERSON.indexes
    cipher = cipher_of(PERSON)
    assert cipher.query_values(Exact(), "x") == cipher.query_values(Exact(), "x")
