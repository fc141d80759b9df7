"""An application in the middle of its conversion: some rows in clear, one encrypted, one with nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, Connection, MetaData, Table, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from keystead.integrations.sqlalchemy import Encrypted, EncryptedBytes, Exact, Normalised, Prefix, Tokens, encrypted


class Base(DeclarativeBase):
    """Its classes."""


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    email: Mapped[str] = encrypted(
        plaintext="email_plain", indexes=[Exact(unique=True), Normalised(as_="email"), Prefix()]
    )
    email_plain: Mapped[str | None] = mapped_column(index=True)
    note: Mapped[str | None] = encrypted(plaintext="note_plain", indexes=[Tokens()])
    note_plain: Mapped[str | None]
    born: Mapped[date | None] = encrypted(plaintext="born_plain", indexes=[Exact()])
    born_plain: Mapped[date | None]
    seen: Mapped[datetime | None] = encrypted(plaintext="seen_plain", indexes=[Exact()])
    seen_plain: Mapped[datetime | None]
    level: Mapped[Encrypted[int] | None] = encrypted(plaintext="level_plain")
    level_plain: Mapped[int | None]


class Seat(Base):
    __tablename__ = "seats"

    number: Mapped[str] = mapped_column(primary_key=True)
    org: Mapped[UUID]
    holder: Mapped[str] = encrypted(
        tenant="org", keyring="seats-{tenant}", plaintext="holder_plain", indexes=[Exact(unique=True)]
    )
    holder_plain: Mapped[str | None]


ADA, BOB, CYD = "ada@example.org", "bob@example.org", "cyd@example.org"
SEEN = datetime(2020, 5, 4, 3, 2, 1, tzinfo=UTC)
NORTH, SOUTH = UUID(int=1), UUID(int=2)
ACCOUNTS: Any = Account.__table__
SEATS: Any = Seat.__table__


def before(table: Table) -> Table:
    """Return a table as the application knew it, when nothing was encrypted."""
    plain = [each for each in table.c if not isinstance(each.type, EncryptedBytes)]
    return Table(
        table.name, MetaData(), *(Column(each.name, each.type, primary_key=each.primary_key) for each in plain)
    )


def fill(connection: Connection) -> None:
    """Insert two accounts in clear, as the application did before, and one with nothing."""
    row: dict[str, Any] = {
        "keystead_row": None,
        "note_plain": None,
        "born_plain": None,
        "seen_plain": None,
        "level_plain": None,
    }
    ada = {"note_plain": "green tea", "born_plain": date(1815, 12, 10), "seen_plain": SEEN.replace(tzinfo=None)}
    rows = [
        row | {"name": "ada", "email_plain": ADA, "level_plain": 7} | ada,
        row | {"name": "bob", "email_plain": BOB},
        row | {"name": "dan", "email_plain": None},
    ]
    connection.execute(insert(before(ACCOUNTS)), [each | {"keystead_row": uuid4()} for each in rows])


def fill_seats(connection: Connection) -> None:
    """Insert a seat of each of two tenants in clear."""
    rows = [{"number": f"s{org.int}", "org": org, "holder_plain": "eve"} for org in (NORTH, SOUTH)]
    connection.execute(insert(before(SEATS)), rows)


def add_cyd(session: Session) -> None:
    """Add an account that is encrypted."""
    session.add(Account(name="cyd", email=CYD))
    session.commit()
