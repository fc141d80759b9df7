"""A record or tenant is named by what its column holds; a column or value of which that is not known is refused."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    CHAR,
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    DateTime,
    Engine,
    Enum,
    FetchedValue,
    ForeignKey,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Text,
    TypeDecorator,
    Uuid,
    create_engine,
    func,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session

from keystead import blocking
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.integrations.sqlalchemy import bind, encrypted, sealed_rows

UPPER = "550E8400-E29B-41D4-A716-446655440000"


class Org(enum.StrEnum):
    ACME = "acme"
    UMBRA = "umbra"


class Size(enum.Enum):
    SMALL = 1


class Prefixed(TypeDecorator[str]):
    """Holds a number and gives a text."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> int | None:
        return None if value is None else int(value[1:])

    def process_result_value(self, value: int | None, dialect: object) -> str | None:
        return None if value is None else f"u{value}"


class Named(TypeDecorator[str]):
    """Holds what it is given."""

    impl = String
    cache_ok = True


def values_of(members: type[enum.Enum]) -> list[str]:
    return [each.value for each in members]


def mapped(record: Any = None, tenant: Any = None) -> Any:
    """Return a class whose record or tenant is of a type, or in a column."""

    class Base(DeclarativeBase):
        pass

    class Paper(Base):
        __tablename__ = "papers"
        key = record if isinstance(record, Column) else Column(record or String, primary_key=True, autoincrement=False)
        org = tenant if isinstance(tenant, Column) else Column(tenant or String)
        body: Mapped[str] = encrypted(record="key", tenant="org")

    return Paper


def started(engine: Engine, km: blocking.KeyManager, model: Any) -> Session:
    model.metadata.create_all(engine)
    bind(engine, km, model)
    return Session(engine)


@pytest.mark.parametrize(
    ("sqltype", "trouble"),
    [
        (CHAR(8), "padded with spaces"),
        (Prefixed, "a Python value does not tell"),
        (DateTime, "a Python value does not tell"),
        (Numeric, "a Python value does not tell"),
        (Boolean, "a Python value does not tell"),
        (Enum(Org), "holds the names of an enumeration's members"),
        (Enum(Size), "holds the names of an enumeration's members"),
    ],
    ids=str,
)
def test_a_column_that_holds_another_form_than_it_is_given_names_no_record_and_no_tenant(
    sqltype: Any, trouble: str
) -> None:
    for given in ({"record": sqltype}, {"tenant": sqltype}):
        with pytest.raises(ConfigurationError, match=trouble):
            mapped(**given)


def test_a_column_whose_type_is_not_known_yet_names_no_tenant() -> None:
    with pytest.raises(ConfigurationError, match="declare the type beside its foreign key"):
        mapped(tenant=Column(ForeignKey("orgs.name")))


@pytest.mark.parametrize(
    "options",
    [
        {"onupdate": lambda: "umbra"},
        {"onupdate": func.lower("UMBRA")},
        {"server_onupdate": FetchedValue()},
    ],
    ids=["function", "expression", "server"],
)
def test_a_column_that_an_update_changes_by_itself_names_no_record_and_no_tenant(options: dict[str, Any]) -> None:
    for given in ({"record": Column(String, primary_key=True, **options)}, {"tenant": Column(String, **options)}):
        with pytest.raises(ConfigurationError, match="whose onupdate changes that under the ciphertexts"):
            mapped(**given)
    with pytest.raises(ConfigurationError, match="whose onupdate"):
        mapped(tenant=Column(String, Computed("upper(key)")))


@pytest.mark.parametrize(
    ("sqltype", "given", "held"),
    [
        (Integer, "7", 7),
        (BigInteger, -12, -12),
        (String(8), 7, "7"),
        (Text, Org.ACME, "acme"),
        (Named, "acme", "acme"),
        (Enum("acme", "umbra", name="names"), "acme", "acme"),
        (Enum(Org, values_callable=values_of, name="orgs"), Org.ACME, "acme"),
        (LargeBinary, b"\x01\xff", b"\x01\xff"),
        (Date, date(2030, 1, 1), date(2030, 1, 1)),
        (Uuid, UUID(UPPER), UUID(UPPER)),
        (Uuid(as_uuid=False), UPPER, UUID(UPPER)),
    ],
    ids=str,
)
def test_a_value_is_bound_to_what_its_columns_hold(
    engine: Engine, km: blocking.KeyManager, sqltype: Any, given: Any, held: Any
) -> None:
    for at, options in enumerate(({"record": sqltype}, {"tenant": sqltype})):
        model = mapped(**options)
        with started(engine, km, model) as session:
            session.add(model(**({"key": "k", "org": "o"} | {"key" if at == 0 else "org": given}), body="secret"))
            session.commit()
            box = session.execute(select(model.body)).scalar_one()
            whose = (held, "o") if at == 0 else ("k", model.body.type.field.read_tenant(held))
            assert box.decrypt(record=whose[0], tenant=whose[1]) == "secret"
            assert session.scalars(select(model)).one().body == "secret"
        model.metadata.drop_all(engine)


def test_a_uuid_is_the_same_record_in_any_spelling(postgres_url: str, km: blocking.KeyManager) -> None:
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    model = mapped(record=Uuid)
    with started(engine, km, model) as session:
        session.add(model(key=UPPER, org="o", body="secret"))
        session.commit()
        assert session.scalars(select(model)).one().body == "secret"
    engine.dispose()


@pytest.mark.parametrize(
    ("sqltype", "given"),
    [
        (Integer, "007"),
        (Integer, "+7"),
        (Integer, "7 "),
        (Integer, "-"),
        (Integer, "--1"),
        (Integer, "\u0667"),
        (Integer, True),
        (Integer, Decimal(7)),
        (String, b"acme"),
        (String, date(2030, 1, 1)),
        (Date, "2030-1-1"),
        (Date, datetime(2030, 1, 1, tzinfo=UTC)),
        (LargeBinary, "acme"),
        (Uuid(as_uuid=False), "acme"),
    ],
    ids=str,
)
def test_a_value_that_its_column_would_hold_in_another_form_names_no_record_and_no_tenant(
    sqlite: Engine, km: blocking.KeyManager, sqltype: Any, given: Any
) -> None:
    for name in ("record", "tenant"):
        model = mapped(**{name: sqltype})
        row = {"key": "k", "org": "o"} | {"key" if name == "record" else "org": given}
        with started(sqlite, km, model) as session:
            session.add(model(**row, body="secret"))
            with pytest.raises(InvalidInputError, match="as the column holds it"):
                session.flush()
            session.rollback()
            with pytest.raises(InvalidInputError, match="as the column holds it"):
                sealed_rows(sqlite, model, [{**row, "body": "secret"}])
            assert session.execute(text("SELECT count(*) FROM papers")).scalar() == 0
        model.metadata.drop_all(sqlite)


def test_a_row_key_stands_in_for_a_primary_key_that_names_no_record(engine: Engine, km: blocking.KeyManager) -> None:
    class Base(DeclarativeBase):
        pass

    class Paper(Base):
        __tablename__ = "papers"
        key = Column(Prefixed, primary_key=True, autoincrement=False)
        body: Mapped[str] = encrypted(record="keystead_row")
        note: Mapped[str] = encrypted(record="keystead_row")

    with pytest.raises(ConfigurationError, match="record='keystead_row' adds one"):
        mapped(record=Prefixed)
    with started(engine, km, Paper) as session:
        session.add(paper := Paper(key="u1", body="secret", note="other"))
        session.commit()
        assert (paper.body, paper.note) == ("secret", "other")
        found: Any = session.execute(select(Paper.body, Paper.keystead_row)).one()  # type: ignore[attr-defined]
        assert isinstance(found.keystead_row, UUID)
        assert found.body.decrypt(record=found.keystead_row) == "secret"
