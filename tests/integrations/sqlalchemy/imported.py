"""An application that comes over from sqlalchemy-utils and Fernet: its table before, and its class now."""

from __future__ import annotations

from datetime import date
from typing import Any, Final
from uuid import uuid4

import sqlalchemy as sa
from cryptography.fernet import Fernet
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy_utils import StringEncryptedType

from keystead.fields import importer
from keystead.integrations.sqlalchemy import Encrypted, Exact, encrypted

UNTIL: Final = date(2099, 12, 31)
COLUMN_KEY: Final = "the key of sqlalchemy-utils"
FERNET_KEY: Final = Fernet.generate_key()
FERNET: Final = Fernet(FERNET_KEY)
AES: Final = importer("sqlalchemy-utils", keys=COLUMN_KEY, until=UNTIL)
READS_TOKENS: Final = importer("fernet", keys=FERNET_KEY, until=UNTIL)


class Base(DeclarativeBase):
    """Its classes."""


class Person(Base):
    """Three columns that are converted: found meanwhile, in place, and of another type."""

    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    ssn: Mapped[str] = encrypted(plaintext="ssn_old", importer=AES, indexes=[Exact(unique=True)])
    ssn_old: Mapped[str | None] = mapped_column(index=True)
    phone: Mapped[str | None] = encrypted(importer=READS_TOKENS, indexes=[Exact()])
    level: Mapped[Encrypted[int] | None] = encrypted(plaintext="level_old", importer=READS_TOKENS)
    level_old: Mapped[str | None]


PEOPLE: Any = Person.__table__


def old_table() -> sa.Table:
    """Return the table as the old code declares it, under the names that columns have now."""
    return sa.Table(
        "people",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String),
        sa.Column("keystead_row", sa.Uuid),
        sa.Column("ssn_old", StringEncryptedType(sa.String, COLUMN_KEY)),
        sa.Column("phone", sa.LargeBinary),
        sa.Column("level_old", sa.String),
    )


def fill(connection: sa.Connection, count: int) -> None:
    """Insert rows as the old code did."""
    rows = [
        {
            "name": f"p{number}",
            "keystead_row": uuid4(),
            "ssn_old": ssn(number),
            "phone": FERNET.encrypt(phone(number).encode()),
            "level_old": FERNET.encrypt(str(number).encode()).decode(),
        }
        for number in range(count)
    ]
    connection.execute(sa.insert(old_table()), rows)


def ssn(number: int) -> str:
    """Return a row's number of social security."""
    return f"078-05-{number:04}"


def phone(number: int) -> str:
    """Return a row's telephone number."""
    return f"+49 30 {number:06}"
