"""An application whose columns hold another library's values reads, finds and writes them while it is converted."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from keystead import KeyManager, blocking
from keystead.blocking import reencrypt
from keystead.crypto.envelope import is_envelope
from keystead.errors import ConfigurationError, DecryptionError, ImportEndedError, InvalidInputError
from keystead.fields import Importer, importer
from keystead.integrations.sqlalchemy import Encrypted, Exact, Normalised, Prefix, bind, encrypted
from keystead.testing import FakeKMS
from tests.fakes.clock import START, FakeClock
from tests.integrations.sqlalchemy.imported import (
    AES,
    FERNET,
    FERNET_KEY,
    PEOPLE,
    READS_TOKENS,
    UNTIL,
    Base,
    Person,
    fill,
    phone,
    ssn,
)
from tests.integrations.sqlalchemy.living import Living, engine_on

ROWS: Final = 60
EDITORS: Final = 3
STILL: Final = range(0, ROWS, 4)
"""Rows that nobody edits."""


@dataclass
class Live(Living):
    """An application that is being converted, and what its rows hold as far as its threads wrote it."""

    held: dict[str, tuple[str, str, int]] = field(default_factory=dict)

    def convert(self, name: str, reading: Importer, **more: Any) -> Any:
        """Run the job for one column."""
        found = self.binding.cipher(getattr(Person, name)).field
        return reencrypt(self.km, self.url, found, importer=reading, **more)

    def editor(self, own: int) -> Callable[[random.Random], None]:
        """Return turns of one who edits rows that no other thread edits."""

        def turn(draw: random.Random) -> None:
            name = f"p{draw.choice([n for n in range(ROWS) if n % 4 == own])}"
            with Session(self.engine) as session:
                person = session.scalars(select(Person).where(Person.name == name)).one()
                number, dialled, level = self.held[name]
                assert (person.ssn, person.phone, person.level and person.level.decrypt()) == (number, dialled, level)
                assert session.scalars(select(Person.name).where(Person.ssn == number)).all() == [name]
                change = draw.choice(["ssn", "phone", "level", "same", "rolled back"])
                if change in ("ssn", "rolled back"):
                    number = person.ssn = uuid4().hex
                elif change == "phone":
                    dialled = person.phone = f"+1 {draw.randrange(10**9)}"
                elif change == "level":
                    level = draw.randrange(10**6)
                    plain: Any = level
                    person.level = plain
                else:
                    person.ssn = str(person.ssn)
                if change == "rolled back":
                    session.flush()
                    session.rollback()
                    return
                session.commit()
                self.held[name] = (number, dialled, level)

        return turn

    def read(self, draw: random.Random) -> None:
        """See rows that nobody edits, by what finds them; and that no value is there twice."""
        number = draw.choice(STILL)
        with Session(self.engine) as session:
            for condition in (Person.ssn == ssn(number), Person.ssn.in_([ssn(number), "nobody"])):
                person = session.scalars(select(Person).where(condition)).one()
                assert (person.name, person.ssn, person.phone) == (f"p{number}", ssn(number), phone(number))
                session.expire_all()
            others = session.scalars(select(Person.name).where(Person.ssn != ssn(number))).all()
            assert f"p{number}" not in others
            assert len(others) == ROWS - 1
            session.add(Person(name="double", ssn=ssn(draw.choice(STILL))))
            with pytest.raises(IntegrityError):
                session.flush()

    def read_all(self, draw: random.Random) -> None:
        """See that each row has its values."""
        with Session(self.engine) as session:
            found = session.scalars(select(Person)).all()
            assert len(found) == ROWS
            for person in found:
                assert None not in (person.ssn, person.phone, person.level)


@pytest.fixture(params=["sqlite", "postgresql"])
def live(request: pytest.FixtureRequest, tmp_path: Path, kms: FakeKMS) -> Iterator[Live]:
    """A table of the old library's on each database."""
    engine = engine_on(request.param, request, tmp_path)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        fill(connection, ROWS)
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as km:
        made = Live(engine, km, bind(engine, km, Base))
        made.held = {f"p{number}": (ssn(number), phone(number), number) for number in range(ROWS)}
        yield made
    engine.dispose()


def test_every_read_is_right_and_no_write_is_lost_while_columns_are_converted(live: Live) -> None:
    threads = [live.start(f"editor {own}", live.editor(own)) for own in range(1, EDITORS + 1)]
    threads += [live.start("reader", live.read), live.start("all", live.read_all, 0.05)]
    slowly: dict[str, Any] = {"batch_rows": 8, "rows_per_s": 60}
    try:
        reports = [
            live.convert("ssn", AES, plaintext_column="ssn_old", **slowly),
            live.convert("phone", READS_TOKENS, **slowly),
            live.convert("level", READS_TOKENS, plaintext_column="level_old", **slowly),
        ]
    finally:
        live.is_over.set()
        for thread in threads:
            thread.join()
    assert live.failures == []
    assert len(live.turns) == len(threads)
    for report in reports:
        assert (report.failed, report.is_complete) == (0, True)
        assert len(STILL) <= report.imported <= ROWS
    with live.engine.connect() as connection:
        assert connection.execute(text("SELECT count(ssn_old), count(level_old) FROM people")).one() == (0, 0)
        sealed = connection.execute(text("SELECT ssn, phone, level FROM people")).all()
        assert all(is_envelope(bytes(each)) for row in sealed for each in row)
    with Session(live.engine) as session:
        for person in session.scalars(select(Person)):
            assert person.level is not None
            assert live.held[person.name] == (person.ssn, person.phone, person.level.decrypt())
        for name, (number, _, _) in live.held.items():
            assert session.scalars(select(Person.name).where(Person.ssn == number)).all() == [name]


def test_old_values_are_counted_by_their_importer(live: Live) -> None:
    before = AES.count
    with Session(live.engine) as session:
        assert [person.ssn for person in session.scalars(select(Person).limit(2).order_by(Person.id))] == [
            ssn(0),
            ssn(1),
        ]
    assert AES.count == before + 2
    with Session(live.engine) as session:
        person = session.scalars(select(Person).limit(1)).one()
        person.ssn = "new"
        session.commit()
        count = AES.count
        assert person.ssn == "new"
        assert AES.count == count


def test_a_write_is_keysteads_alone_and_leaves_no_old_value(live: Live) -> None:
    with Session(live.engine) as session:
        person = session.scalars(select(Person).where(Person.name == "p7")).one()
        person.ssn, person.phone = "new", "+1 555"
        session.commit()
        session.add(Person(name="newcomer", ssn="another", phone="+1 556"))
        session.commit()
        for name in ("p7", "newcomer"):
            row = session.execute(
                text("SELECT ssn, ssn_old, phone FROM people WHERE name = :name"), {"name": name}
            ).one()
            assert is_envelope(bytes(row[0]))
            assert (row[1], is_envelope(bytes(row[2]))) == (None, True)


def test_an_old_value_goes_into_no_other_row(live: Live) -> None:
    with live.engine.connect() as connection:
        box = connection.execute(select(PEOPLE.c.phone).limit(1)).scalar_one()
        with pytest.raises(InvalidInputError):
            connection.execute(sa.update(PEOPLE).where(PEOPLE.c.name == "p3").values(phone=box))
        with pytest.raises(InvalidInputError):
            connection.execute(sa.insert(PEOPLE).values(name="x", phone=FERNET.encrypt(b"x")))


def test_an_old_value_passes_no_column_type(live: Live) -> None:
    box: Any = Encrypted(FERNET.encrypt(b"x"), live.binding.cipher(Person.phone))
    assert box.needs_reencrypt()
    checked = PEOPLE.c.phone.type.bind_processor(live.engine.dialect)
    with pytest.raises(InvalidInputError, match="takes ciphertext here"):
        checked(box)


def test_what_an_index_would_not_find_is_not_searched_until_all_are_converted(live: Live) -> None:
    with pytest.raises(InvalidInputError, match=r"drop importer= from the declaration"):
        _ = Person.phone == phone(1)
    with Session(live.engine) as session:
        assert session.scalars(select(Person).where(Person.phone.is_(None))).all() == []


@pytest.mark.parametrize("where", [{}, {"plaintext": "old"}])
def test_no_search_passes_old_values_by(where: dict[str, Any]) -> None:
    class Own(DeclarativeBase):
        pass

    class Card(Own):
        __tablename__ = "cards"

        number: Mapped[str] = mapped_column(primary_key=True)
        pin: Mapped[str] = encrypted(importer=READS_TOKENS, indexes=[Exact(), Normalised(), Prefix()], **where)
        old: Mapped[str | None]

    sa.orm.configure_mappers()
    searches: list[Callable[[], object]] = [
        lambda: Card.pin == "1",
        lambda: Card.pin != "1",
        lambda: Card.pin.in_(["1"]),
        lambda: Card.pin.matches_normalised("1"),
        lambda: Card.pin.starts_with("123"),
    ]
    for search in searches:
        with pytest.raises(InvalidInputError, match="drop importer= from the declaration"):
            search()


def test_a_value_that_does_not_open_is_an_error_and_nothing_else(live: Live) -> None:
    strange = Fernet(Fernet.generate_key()).encrypt(b"strange")
    with live.engine.begin() as connection:
        connection.execute(text("UPDATE people SET phone = :it WHERE name = 'p5'"), {"it": strange})
        connection.execute(text("UPDATE people SET phone = :it WHERE name = 'p6'"), {"it": b"in clear"})
    with Session(live.engine) as session:
        for name in ("p5", "p6"):
            person = session.scalars(select(Person).where(Person.name == name)).one()
            with pytest.raises(DecryptionError):
                _ = person.phone
    report = live.convert("phone", READS_TOKENS)
    assert (report.imported, report.failed) == (ROWS - 2, 2)


def test_after_the_end_old_values_are_errors_and_new_ones_are_read(tmp_path: Path, kms: FakeKMS) -> None:
    clock = FakeClock()
    reading = importer("fernet", keys=FERNET_KEY, until=START + timedelta(days=30), clock=clock)

    class Own(DeclarativeBase):
        pass

    class Card(Own):
        __tablename__ = "cards"

        number: Mapped[str] = mapped_column(primary_key=True)
        pin: Mapped[str] = encrypted(importer=reading)

    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    Own.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO cards VALUES ('old', :it)"), {"it": FERNET.encrypt(b"2718")})
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as km:
        bind(engine, km, Own)
        with Session(engine) as session:
            session.add(Card(number="new", pin="3141"))
            session.commit()
            assert {card.number: card.pin for card in session.scalars(select(Card))} == {"old": "2718", "new": "3141"}
            clock.advance(timedelta(days=30))
            assert session.get_one(Card, "new").pin == "3141"
            with pytest.raises(ImportEndedError):
                _ = session.get_one(Card, "old").pin
    engine.dispose()


def test_old_values_in_place_are_found_where_equal_ones_look_equal(tmp_path: Path, kms: FakeKMS) -> None:
    class Own(DeclarativeBase):
        pass

    class Seat(Own):
        __tablename__ = "seats"

        number: Mapped[str] = mapped_column(primary_key=True)
        org: Mapped[str]
        holder: Mapped[str] = encrypted(tenant="org", importer=AES, indexes=[Exact()])

    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    Own.metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"number": f"{org}1", "org": org, "holder": AES.form_of("ada").encode()} for org in ("north", "south")]
        connection.execute(text("INSERT INTO seats (number, org, holder) VALUES (:number, :org, :holder)"), rows)
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as km:
        found = bind(engine, km, Own).cipher(Seat.holder).field
        with Session(engine) as session:
            session.add(Seat(number="north2", org="north", holder="ada"))
            session.add(Seat(number="north3", org="north", holder="bob"))
            session.commit()
            for _ in range(2):
                matches = Seat.holder.matches("ada", tenant="north")
                assert set(session.scalars(select(Seat.number).where(matches))) == {"north1", "north2"}
                either = Seat.holder.matches_any(["ada", "bob"], tenant="south")
                assert session.scalars(select(Seat.number).where(either)).all() == ["south1"]
                others = session.scalars(select(Seat.number).where(sa.not_(matches)))
                assert set(others) == {"north3", "south1"}
                report = reencrypt(km, f"sqlite:///{tmp_path}/app.db", found, importer=AES)
                assert report.failed == 0
    engine.dispose()


async def test_async_sessions_read_old_values_too(any_async_engine: AsyncEngine, async_km: KeyManager) -> None:
    async with any_async_engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(lambda sync: fill(sync, 5))
    await bind(any_async_engine, async_km, Base)
    async with AsyncSession(any_async_engine, expire_on_commit=False) as session:
        people = (await session.scalars(select(Person).order_by(Person.id))).all()
        await async_km.prefetch(people)
        assert [(person.ssn, person.phone) for person in people] == [(ssn(n), phone(n)) for n in range(5)]
        people[0].phone = "+1 555"
        await session.commit()
        assert people[0].phone == "+1 555"


class Waits:
    """Opens Transit's texts, by asking somebody."""

    async def decrypt_texts(self, texts: Any, key_id: str, **more: Any) -> list[Any]:
        """Return the texts themselves."""
        return [text.encode() for text in texts]


async def test_an_importer_that_asks_somebody_is_refused_where_nobody_may_wait(
    any_async_engine: AsyncEngine, async_km: KeyManager
) -> None:
    class Own(DeclarativeBase):
        pass

    class Card(Own):
        __tablename__ = "remote_cards"

        number: Mapped[str] = mapped_column(primary_key=True)
        pin: Mapped[str] = encrypted(importer=importer("vault", provider=Waits(), key="k", until=UNTIL))

    with pytest.raises(ConfigurationError, match="fetch_many"):
        await bind(any_async_engine, async_km, Own)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"importer": READS_TOKENS, "indexes": [Exact(unique=True)]}, "unique index and an importer"),
        ({"importer": AES, "indexes": [Normalised(unique=True)]}, "unique index and an importer"),
        (
            {"importer": READS_TOKENS, "plaintext": "old", "indexes": [Exact(unique=True)]},
            "unique index and an importer",
        ),
        ({"importer": READS_TOKENS, "plaintext": "missing"}, "has no such column"),
    ],
)
def test_declarations_that_cannot_keep_the_promise_are_refused(options: dict[str, Any], told: str) -> None:
    class Own(DeclarativeBase):
        pass

    with pytest.raises(ConfigurationError, match=told):

        class Card(Own):
            __tablename__ = "cards"

            number: Mapped[str] = mapped_column(primary_key=True)
            pin: Mapped[str] = encrypted(**options)
            old: Mapped[str | None]
            born: Mapped[date | None]
            seen: Mapped[datetime | None]
