"""Rows of people, each of whom is a subject: a manager with a log of erasures, and a table that is searched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from keystead import KeyManager
from keystead.fields import Exact, Field, Tokens
from keystead.testing import FakeKMS
from tests.fields.application import Application, address

PERSON = Field("people", "email", per_subject=True, indexes=(Exact(),))
NOTE = Field("notes", "text", subject="person_id", subject_kind="people", indexes=(Tokens(),))
KMS = FakeKMS()


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[KeyManager]:
    """Give an initialised manager over the store of a folder."""
    given: dict[str, Any] = {
        "default_key_id": "app",
        "store": f"sqlite:///{folder}/keys.db",
        "erasures": folder / "erasures.log",
        "state_dir": folder / "state",
        "background": False,
    }
    async with KeyManager({"cloud": KMS}, **(given | options)) as km:
        yield km


def make_tables(app: Application) -> None:
    """Make the tables of people and of notes about them."""
    hashes = ", ".join(f"{name} BYTES" for name in PERSON.index_columns)
    app.run(
        f"CREATE TABLE people (id BIGINT PRIMARY KEY, email BYTES, {hashes})",
        "CREATE TABLE notes (id BIGINT PRIMARY KEY, person_id BIGINT, text BYTES)",
        "CREATE TABLE notes_text_tokens (record BIGINT, token BYTES)",
    )


async def fill_people(km: KeyManager, app: Application, people: Sequence[int]) -> None:
    """Add people, each with an e-mail address."""
    await km.load_fields(PERSON, subjects=people)
    cipher = km.field(PERSON)
    rows = []
    for person in people:
        hashes = cipher.index_values(address(person))
        rows.append((person, cipher.encrypt(address(person), record=person), *hashes.values()))
    names = ", ".join(PERSON.index_columns)
    app.fill(f"INSERT INTO people (id, email, {names}) VALUES (:a, :b, :c, :d)", rows)


async def fill_notes(km: KeyManager, app: Application, notes: Sequence[tuple[int, int, str]]) -> None:
    """Add notes: each with its id, whom it is about, and its text."""
    await km.load_fields(NOTE, subjects=[person for _, person, _ in notes])
    cipher = km.field(NOTE)
    for note, person, text in notes:
        app.fill(
            "INSERT INTO notes VALUES (:a, :b, :c)", [(note, person, cipher.encrypt(text, record=note, subject=person))]
        )
        tokens = cipher.token_values(Tokens(), text)
        app.fill("INSERT INTO notes_text_tokens VALUES (:a, :b)", [(note, token) for token in tokens])


def found(km: KeyManager, app: Application, person: int) -> list[int]:
    """Return the people that a search for somebody's e-mail address finds."""
    wanted = km.field(PERSON).query_values(Exact(), address(person))
    rows = app.rows(f"SELECT id, {', '.join(PERSON.index_columns)} FROM people")
    return [one for one, *hashes in rows if any(hashes[parity] == digest for parity, digest in wanted.items())]


async def emails(km: KeyManager, app: Application) -> dict[int, object]:
    """Return the e-mail address of each row, or the error that reading it gives."""
    cipher, read = km.field(PERSON), dict[int, object]()
    for person, blob in app.rows("SELECT id, email FROM people ORDER BY id"):
        try:
            await km.prefetch([blob])
            read[person] = cipher.decrypt(blob, record=person)
        except Exception as exc:
            read[person] = type(exc)
    return read
