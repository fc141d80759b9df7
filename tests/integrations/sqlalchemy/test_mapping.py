"""Columns are encrypted wherever a class may declare them: inherited, mixed in, annotated, in dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    Table,
    Uuid,
    create_engine,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, composite, mapped_column, registry, with_polymorphic

from keystead import blocking
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.fields import Field
from keystead.integrations.sqlalchemy import EncryptedBytes, Exact, Normalised, Tokens, bind, encrypted
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import (
    Animal,
    Card,
    Cat,
    Customer,
    Dog,
    Letter,
    Member,
    Order,
    Person,
    Supplier,
)


def record_of(kind: type[Any], attribute: str) -> tuple[str, ...]:
    """Return the record columns of a field."""
    names: tuple[str, ...] = inspect(kind).columns[attribute].type.field.record_columns
    return names


def test_the_primary_key_is_the_record_where_it_is_known_before_the_insert() -> None:
    assert record_of(Letter, "body") == ("id",)
    assert record_of(Order, "remark") == ("shop", "number")
    assert record_of(Member, "email") == ("number",)
    assert record_of(Person, "email") == ("keystead_row",)
    assert record_of(Dog, "chip") == ("keystead_row",)


@pytest.mark.parametrize(
    ("key", "is_known"),
    [
        (lambda: mapped_column(Uuid, primary_key=True, server_default=func.gen_random_uuid()), False),
        (lambda: mapped_column(Uuid, primary_key=True, default=func.gen_random_uuid()), False),
        (lambda: mapped_column(Uuid, primary_key=True), True),
        (lambda: mapped_column(Sequence("keys"), primary_key=True), True),
        (lambda: mapped_column(Sequence("keys", optional=True), primary_key=True), False),
        (lambda: mapped_column(primary_key=True, autoincrement=False), True),
    ],
)
def test_a_row_key_is_added_where_the_database_draws_the_key(key: Any, is_known: bool) -> None:
    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[int] = key()
        secret: Mapped[str] = encrypted()

    assert ("keystead_row" not in Thing.__table__.c) == is_known


def test_inherited_columns_are_encrypted_in_either_table(any_app: Application) -> None:
    with any_app.session() as session:
        session.add_all([Dog(name="rex", chip="7"), Cat(name="tom", secret="mice"), Animal(name="doe")])
        session.commit()
        session.expunge_all()
        rex = session.scalars(select(Dog).where(Dog.chip == "7", Dog.name == "rex")).one()
        assert (rex.name, rex.chip) == ("rex", "7")
        assert session.scalars(select(Animal).where(Animal.name == "tom")).one().secret == "mice"  # type: ignore[attr-defined]
        assert session.scalars(select(Cat).where(Cat.secret == "mice")).one().name == "tom"
        every = with_polymorphic(Animal, [Dog, Cat], flat=True)
        assert session.scalars(select(every).where(every.Dog.chip == "7")).one() is rex
        rex.chip, rex.name = "8", "max"
        session.commit()
        assert session.scalars(select(Dog).where(Dog.chip == "8", Animal.name == "max")).one() is rex


def test_a_mixins_column_is_a_field_of_each_table(app: Application) -> None:
    with app.session() as session:
        session.add_all([Customer(phone="+49 (30) 1234"), Supplier(phone="+49 30 1234")])
        session.commit()
        for kind in (Customer, Supplier):
            assert len(session.scalars(select(kind).where(kind.phone.matches_normalised("+49301234"))).all()) == 1
    assert {"customers.phone", "suppliers.phone"} <= {field.id for field in app.binding.fields}


def test_a_dataclass_is_made_as_ever_and_does_not_print_the_value(app: Application) -> None:
    card = Card("4111")
    with app.session() as session:
        session.add(card)
        session.commit()
        session.refresh(card)
        assert (card.number, card.holder) == ("4111", "unknown")
        assert "4111" not in repr(card)


def test_record_names_another_column_and_id_another_name(km: blocking.KeyManager) -> None:
    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        public: Mapped[UUID] = mapped_column(default=uuid4, unique=True)
        secret: Mapped[str] = encrypted(record="public", id="former.secret", indexes=[Tokens()])

    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    [field] = bind(engine, km, Thing).fields
    with Session(engine) as session:
        session.add(Thing(secret="green tea"))
        session.commit()
        thing = session.scalars(select(Thing).where(Thing.secret.has_token("tea"))).one()
        raw = session.execute(text("SELECT secret FROM things")).scalar_one()
        assert km.field(field).decrypt(raw, record=thing.public) == "green tea"
        session.delete(thing)
        session.commit()
        assert session.execute(text("SELECT count(*) FROM things_secret_tokens")).scalar() == 0
    assert (field.id, field.record_columns) == ("former.secret", ("public",))
    engine.dispose()


def test_a_sequence_where_there_are_none_is_refused_with_the_cure(km: blocking.KeyManager) -> None:
    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(Sequence("keys"), primary_key=True)
        secret: Mapped[str] = encrypted()

    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    bind(engine, km, Base)
    with Session(engine) as session:
        session.add(Thing(secret="x"))
        with pytest.raises(ConfigurationError, match="drawn from a sequence"):
            session.flush()
    engine.dispose()


def test_a_uuid_that_python_keeps_as_text_is_one_record_however_it_is_spelt(
    engine: Engine, km: blocking.KeyManager
) -> None:
    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
        secret: Mapped[str] = encrypted(indexes=[Tokens()])

    Base.metadata.create_all(engine)
    bind(engine, km, Base)
    with Session(engine) as session:
        session.add(Thing(id="0E984725-C51C-4BF4-9960-E1C80E27ABA0", secret="x"))
        session.commit()
        session.expunge_all()
        assert session.scalars(select(Thing).where(Thing.secret.has_token("x"))).one().secret == "x"


def test_words_are_those_of_a_uuid_that_python_keeps_as_text(engine: Engine, km: blocking.KeyManager) -> None:
    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
        secret: Mapped[str] = encrypted(indexes=[Tokens()])

    Base.metadata.create_all(engine)
    bind(engine, km, Base)
    with Session(engine) as session:
        thing = Thing(id=str(uuid4()), secret="x")
        session.add(thing)
        session.commit()
        thing.secret = "y"
        session.commit()
        assert session.scalars(select(Thing).where(Thing.secret.has_token("y"))).one() is thing
        session.delete(thing)
        session.commit()
        assert session.execute(text("SELECT count(*) FROM things_secret_tokens")).scalar() == 0


def test_a_table_without_a_class_takes_ciphertext_gives_boxes_and_is_searched(km: blocking.KeyManager) -> None:
    metadata = MetaData()
    field = Field("things", "secret", indexes=(Exact(),))
    things = Table(
        "things",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("secret", EncryptedBytes(field)),
        *(Column(name, LargeBinary) for name in field.index_columns),
    )
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    cipher = bind(engine, km, metadata).cipher(field)
    with engine.begin() as connection:
        sealed = cipher.encrypt("x", record=1)
        connection.execute(insert(things), {"id": 1, "secret": sealed, **cipher.index_values("x")})
        box = connection.execute(select(things.c.secret).where(things.c.secret == "x")).scalar_one()
        assert box.decrypt(record=1) == "x"
        with pytest.raises(InvalidInputError, match="takes ciphertext"):
            connection.execute(insert(things), {"id": 2, "secret": "x"})
        with pytest.raises(InvalidInputError, match="not an SQL expression"):
            connection.execute(update(things).values(secret=func.lower("x")))
    engine.dispose()


@pytest.mark.parametrize("option", ["unique", "index", "primary_key", "server_default", "onupdate"])
def test_options_that_cannot_go_with_ciphertext_are_refused_with_the_cure(option: str) -> None:
    given: dict[str, Any] = {option: True}
    with pytest.raises(InvalidInputError, match=f"takes no {option}: "):
        encrypted(**given)


@pytest.mark.parametrize(
    "action",
    [
        {"onupdate": "CASCADE"},
        {"onupdate": "set null"},
        {"onupdate": "SET DEFAULT"},
        {"ondelete": "SET NULL"},
        {"ondelete": "set default"},
    ],
    ids=str,
)
@pytest.mark.parametrize("role", ["record", "tenant"])
def test_a_record_or_tenant_that_the_database_changes_by_itself_is_refused(action: dict[str, Any], role: str) -> None:
    class Base(DeclarativeBase):
        pass

    class Org(Base):
        __tablename__ = "orgs"
        name: Mapped[str] = mapped_column(primary_key=True)

    named: dict[str, Any] = {role: "org"}
    with pytest.raises(ConfigurationError, match=r"bound to members\.org, and on.*leave the option out"):

        class Member(Base):
            __tablename__ = "members"
            number: Mapped[str] = mapped_column(primary_key=True)
            org: Mapped[str] = mapped_column(ForeignKey("orgs.name", **action), unique=True)
            secret: Mapped[str] = encrypted(**named)


def test_a_foreign_key_that_leaves_its_own_column_as_it_is_may_be_a_record_or_a_tenant() -> None:
    class Base(DeclarativeBase):
        pass

    class Org(Base):
        __tablename__ = "orgs"
        name: Mapped[str] = mapped_column(primary_key=True)

    class Member(Base):
        __tablename__ = "members"
        org: Mapped[str] = mapped_column(
            ForeignKey("orgs.name", onupdate="RESTRICT", ondelete="CASCADE"), primary_key=True
        )
        boss: Mapped[str | None] = mapped_column(ForeignKey("orgs.name", onupdate="CASCADE", ondelete="SET NULL"))
        secret: Mapped[str] = encrypted(tenant="org")

    assert record_of(Member, "secret") == ("org",)


def test_a_declaration_that_cannot_work_is_refused_when_the_class_is_made() -> None:
    class Base(DeclarativeBase):
        pass

    with pytest.raises(ConfigurationError, match="names column 'org_id'"):

        class NoTenant(Base):
            __tablename__ = "no_tenant"
            id: Mapped[UUID] = mapped_column(primary_key=True)
            secret: Mapped[str] = encrypted(tenant="org_id")

    with pytest.raises(ConfigurationError, match="several record columns"):

        class NoRecord(Base):
            __tablename__ = "no_record"
            a: Mapped[str] = mapped_column(primary_key=True)
            b: Mapped[str] = mapped_column(primary_key=True)
            secret: Mapped[str] = encrypted(indexes=[Tokens()])

    with pytest.raises(InvalidInputError, match="cannot hold"):

        class NoType(Base):
            __tablename__ = "no_type"
            id: Mapped[UUID] = mapped_column(primary_key=True)
            secret: Mapped[complex] = encrypted()

    class User(Base):
        __tablename__ = "users"
        id: Mapped[str] = mapped_column(primary_key=True)
        profile_notes: Mapped[str] = encrypted(indexes=[Tokens()])

    # Whose words would go into one table with those of the field before.
    with pytest.raises(ConfigurationError, match="rename the table or the column"):

        class Profile(Base):
            __tablename__ = "users_profile"
            id: Mapped[str] = mapped_column(primary_key=True)
            notes: Mapped[str] = encrypted(indexes=[Tokens()])


def test_a_key_that_a_sequence_draws_is_drawn_before_the_insert(postgres_url: str, km: blocking.KeyManager) -> None:
    class Base(DeclarativeBase):
        pass

    class Parent(Base):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(Sequence("parent_keys"), primary_key=True)
        secret: Mapped[str] = encrypted(indexes=[Exact()])

    class Child(Parent):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(ForeignKey("parents.id"), primary_key=True)
        own: Mapped[str] = encrypted()

    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    Base.metadata.create_all(engine)
    bind(engine, km, Base)
    with Session(engine) as session:
        session.add_all([Parent(secret="a"), Child(secret="b", own="c")])
        session.commit()
        child = session.scalars(select(Child).where(Child.secret == "b")).one()
        assert (child.secret, child.own) == ("b", "c")
    assert "keystead_row" not in Child.__table__.c
    engine.dispose()


@dataclass
class Point:
    street: str
    town: str | None


def test_a_composite_with_encrypted_members_is_refused() -> None:
    own = registry()

    class House(own.generate_base()):  # type: ignore[misc]
        __tablename__ = "houses"
        id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
        place: Mapped[Point] = composite(encrypted(name="street"), encrypted(name="town"))

    with pytest.raises(ConfigurationError, match="make it a property"):
        own.configure()
    own.dispose()


@pytest.mark.parametrize(
    ("declared", "options", "trouble"),
    [
        (lambda: mapped_column(name="other"), {}, "has no such column"),
        (lambda: mapped_column(nullable=False), {}, "has to be nullable"),
        (lambda: mapped_column(nullable=True, default="x"), {}, "must have no default"),
        (lambda: mapped_column(nullable=True), {"type": Decimal}, "not of type decimal"),
        (lambda: mapped_column(nullable=True), {"indexes": [Normalised(unique=True)]}, "other than Exact"),
    ],
)
def test_a_plaintext_column_that_cannot_be_one_is_refused(declared: Any, options: Any, trouble: str) -> None:
    class Own(DeclarativeBase):
        pass

    with pytest.raises(ConfigurationError, match=trouble):

        class Thing(Own):
            __tablename__ = "things"
            id: Mapped[str] = mapped_column(primary_key=True)
            plain: Mapped[str | None] = declared()
            secret: Mapped[Any] = encrypted(plaintext="plain", **({"type": str} | options))
