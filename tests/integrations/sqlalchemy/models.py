"""Mapped classes of an application whose columns are encrypted in every way there is."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship, validates

from keystead.integrations.sqlalchemy import Encrypted, Exact, Normalised, Prefix, Tokens, encrypted


class Base(DeclarativeBase):
    """Every class of the tests."""


class Person(Base):
    """Its key is drawn by the database, so that it has a row key."""

    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    email: Mapped[str] = encrypted(
        indexes=[Exact(unique=True), Normalised(as_="email"), Prefix(length=3)], keyring="people"
    )
    note: Mapped[str | None] = encrypted(indexes=[Tokens()])
    balance: Mapped[Encrypted[Decimal] | None] = encrypted()
    profile: Mapped[dict[str, Any] | None] = encrypted(deferred=True)
    letters: Mapped[list[Letter]] = relationship(back_populates="person", cascade="all, delete-orphan")

    @validates("email")
    def _has_a_sign(self, key: str, value: str) -> str:
        if "@" not in value:
            raise ValueError("no address")
        return value


class Letter(Base):
    """Its key is drawn by Python, so that it is the record."""

    __tablename__ = "letters"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    body: Mapped[bytes] = encrypted(name="content", indexes=[Exact()])
    mood: Mapped[str | None] = encrypted(default="calm")
    person: Mapped[Person | None] = relationship(back_populates="letters")


class Member(Base):
    """Of one tenant, and under its keyring."""

    __tablename__ = "members"

    number: Mapped[str] = mapped_column(primary_key=True)
    org_id: Mapped[int]
    email: Mapped[str] = encrypted(
        tenant="org_id", keyring="members-{tenant}", indexes=[Exact(unique=True), Normalised(), Prefix(), Tokens()]
    )


class Order(Base):
    """Of two key columns; and nobody sees which have no remark."""

    __tablename__ = "orders"

    shop: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    remark: Mapped[str | None] = encrypted(encrypt_null=True, indexes=[Exact()])


class Reachable:
    """A mixin, with a type that is declared once for several columns."""

    phone: Mapped[Annotated[str, encrypted(indexes=[Normalised(as_="phone")])]]


class Customer(Reachable, Base):
    __tablename__ = "customers"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)


class Supplier(Reachable, Base):
    __tablename__ = "suppliers"

    id: Mapped[int] = mapped_column(primary_key=True)


class Animal(Base):
    __tablename__ = "animals"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str] = encrypted(indexes=[Exact()])
    plate: Mapped[str | None]

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Dog(Animal):
    """In a table of its own."""

    __tablename__ = "dogs"

    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    chip: Mapped[str] = encrypted(indexes=[Exact(unique=True)])

    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Cat(Animal):
    """In its parent's table."""

    secret: Mapped[str | None] = encrypted(indexes=[Exact()])

    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012


class Card(MappedAsDataclass, Base):
    """A dataclass."""

    __tablename__ = "cards"

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=uuid4, kw_only=True)
    number: Mapped[str] = encrypted()
    holder: Mapped[str] = encrypted(default="unknown")
