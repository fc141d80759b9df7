"""The job that encrypts a column runs beside an application that reads, searches and writes it in its window."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from keystead import KeyManager, blocking, fields
from keystead.blocking import reencrypt
from keystead.integrations.sqlalchemy import bind
from keystead.testing import FakeKMS
from tests.integrations.sqlalchemy.living import Living, engine_on
from tests.integrations.sqlalchemy.windowed import ACCOUNTS, Account, Base, before

ROWS: Final = 80
EDITORS: Final = 3
STILL: Final = range(0, ROWS, 4)
"""Rows that nobody edits, so that what each holds is known at any moment."""


def address(number: int) -> str:
    return f"person{number}@example.org"


def word(number: int) -> str:
    return f"word{number}"


@dataclass
class Live(Living):
    """An application that is being converted, and what its rows hold as far as its threads wrote it."""

    emails: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def editor(self, own: int) -> Callable[[random.Random], None]:
        """Return turns of one who edits rows that no other thread edits."""

        def turn(draw: random.Random) -> None:
            number = draw.choice([n for n in range(ROWS) if n % 4 == own])
            name = f"p{number}"
            with Session(self.engine) as session:
                account = session.scalars(select(Account).where(Account.name == name)).one()
                assert (account.email, account.note) == (self.emails[name], self.notes[name])
                sought = select(Account.name).where(Account.email == account.email)
                assert session.scalars(sought).all() == [name]
                email, note = self.emails[name], self.notes[name]
                change = draw.choice(["email", "note", "both", "same", "other", "rolled back"])
                if change in ("email", "both", "rolled back"):
                    email = account.email = f"{uuid4()}@example.org"
                if change in ("note", "both"):
                    note = account.note = f"word{number} {uuid4().hex}"
                if change == "same":
                    account.email = str(account.email)
                if change == "other":
                    account.born = date(2000, 1, draw.randrange(1, 29))
                if change == "rolled back":
                    session.flush()
                    session.rollback()
                    return
                session.commit()
                self.emails[name], self.notes[name] = email, note

        return turn

    def insert(self, draw: random.Random) -> None:
        """Add a row of a new value, and none of a value that another row has."""
        name = f"n{uuid4().hex}"
        with Session(self.engine) as session:
            session.add(Account(name=name, email=f"{name}@example.org", note="newcomer"))
            session.commit()
        self.emails[name], self.notes[name] = f"{name}@example.org", "newcomer"
        with Session(self.engine) as session:
            session.add(Account(name="double", email=address(draw.choice(STILL))))
            with pytest.raises(IntegrityError):
                session.commit()

    def read(self, draw: random.Random) -> None:
        """See rows that nobody edits, by everything that finds them."""
        number = draw.choice(STILL)
        name, email = f"p{number}", address(number)
        with Session(self.engine) as session:
            assert session.scalars(select(Account).where(Account.name == name)).one().email == email
            for condition in (
                Account.email == email,
                Account.email.in_([email, "nobody"]),
                Account.email.matches(email),
            ):
                account = session.scalars(select(Account).where(condition)).one()
                assert (account.name, account.email, account.note) == (name, email, f"{word(number)} tea")
                session.expire_all()
            assert name not in session.scalars(select(Account.name).where(Account.email != email)).all()
            assert session.scalars(select(Account).where(Account.email.is_(None))).all() == []

    def read_all(self, draw: random.Random) -> None:
        """See that each row has a value, and no two the same."""
        with Session(self.engine) as session:
            found = [account.email for account in session.scalars(select(Account))]
            assert None not in found
            assert len(found) == len(set(found)) >= ROWS


def fill(connection: Connection) -> None:
    """Insert the rows in clear, as the application did before."""
    rows = [
        {
            "name": f"p{number}",
            "keystead_row": uuid4(),
            "email_plain": address(number),
            "note_plain": f"{word(number)} tea",
            "level_plain": number,
        }
        for number in range(ROWS)
    ]
    connection.execute(insert(before(ACCOUNTS)), rows)


@pytest.fixture(params=["sqlite", "postgresql"])
def live(request: pytest.FixtureRequest, tmp_path: Path, kms: FakeKMS) -> Iterator[Live]:
    """A table in clear on each database."""
    engine = engine_on(request.param, request, tmp_path)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        fill(connection)
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as km:
        made = Live(engine, km, bind(engine, km, Base))
        for number in range(ROWS):
            made.emails[f"p{number}"], made.notes[f"p{number}"] = address(number), f"{word(number)} tea"
        yield made
    engine.dispose()


def test_every_read_is_right_and_no_write_is_lost_while_the_column_is_encrypted(live: Live) -> None:
    threads = [live.start(f"editor {own}", live.editor(own)) for own in range(1, EDITORS + 1)]
    threads += [
        live.start("inserter", live.insert, 0.2),
        live.start("reader", live.read),
        live.start("all", live.read_all, 0.05),
    ]
    try:
        for name in ("email", "note", "level"):
            column = live.binding.cipher(getattr(Account, name)).field
            report = reencrypt(
                live.km, live.url, column, plaintext_column=f"{name}_plain", batch_rows=8, rows_per_s=120
            )
            assert (report.failed, report.is_complete) == (0, True)
    finally:
        live.is_over.set()
        for thread in threads:
            thread.join()
    assert live.failures == []
    assert len(live.turns) == len(threads)
    with live.engine.connect() as connection:
        plain = text("SELECT count(email_plain), count(note_plain), count(level_plain) FROM accounts")
        assert connection.execute(plain).one() == (0, 0, 0)
    with Session(live.engine) as session:
        accounts = {account.name: account for account in session.scalars(select(Account))}
        assert {name: account.email for name, account in accounts.items()} == live.emails
        assert {name: account.note for name, account in accounts.items()} == live.notes
        levels = {name: None if each.level is None else each.level.decrypt() for name, each in accounts.items()}
        assert levels == {name: int(name[1:]) if name[0] == "p" else None for name in accounts}
        for name, email in live.emails.items():
            assert session.scalars(select(Account.name).where(Account.email == email)).all() == [name]
        tokens = ACCOUNTS.metadata.tables["accounts_note_tokens"]
        assert session.query(tokens).count() == sum(len(set(note.split())) for note in live.notes.values())


async def test_async_sessions_read_right_and_lose_no_write_meanwhile(
    any_async_engine: AsyncEngine, async_km: KeyManager
) -> None:
    async with any_async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(fill)
    binding = await bind(any_async_engine, async_km, Base)
    emails = {f"p{number}": address(number) for number in range(ROWS)}
    is_over = False

    async def edit(own: int) -> None:
        draw, edited = random.Random(own), False
        while not (is_over and edited):
            name = f"p{draw.choice([n for n in range(ROWS) if n % 4 == own])}"
            async with AsyncSession(any_async_engine, expire_on_commit=False) as session:
                account = (await session.scalars(select(Account).where(Account.email == emails[name]))).one()
                assert (account.name, account.email) == (name, emails[name])
                account.email = f"{uuid4()}@example.org"
                await session.commit()
                emails[name], edited = account.email, True
            await asyncio.sleep(0.02)

    async def read() -> None:
        while not is_over:
            async with AsyncSession(any_async_engine) as session:
                found = [account.email for account in await session.scalars(select(Account))]
                assert None not in found
                assert len(set(found)) == ROWS
            await asyncio.sleep(0.02)

    url = any_async_engine.url.set(drivername=any_async_engine.url.get_backend_name())
    async with asyncio.TaskGroup() as tasks:
        for own in range(EDITORS):
            tasks.create_task(edit(own))
        tasks.create_task(read())
        report = await fields.reencrypt(
            async_km,
            url.render_as_string(hide_password=False),
            binding.cipher(Account.email).field,
            plaintext_column="email_plain",
            batch_rows=8,
            rows_per_s=120,
        )
        is_over = True
    assert (report.failed, report.is_complete) == (0, True)
    async with AsyncSession(any_async_engine) as session:
        assert await session.scalar(text("SELECT count(email_plain) FROM accounts")) == 0
        assert {account.name: account.email for account in await session.scalars(select(Account))} == emails
