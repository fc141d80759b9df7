"""A search names a tenant by what its column holds, or by the text of it, and finds that tenant's rows alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, Date, Engine, Integer, LargeBinary, String, Uuid, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from keystead import blocking
from keystead.errors import ConflictError, InvalidInputError
from keystead.integrations.sqlalchemy import Exact, Normalised, Prefix, Tokens, bind, encrypted
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Member, Person

NAME = "Eve Adams"
TENANTS: dict[str, tuple[Any, tuple[Any, Any], tuple[str, str]]] = {
    "text": (String, ("acme", "umbra"), ("acme", "umbra")),
    "integer": (Integer, (1, 12), ("1", "12")),
    "date": (Date, (date(2030, 1, 1), date(2031, 1, 1)), ("2030-01-01", "2031-01-01")),
    "bytes": (LargeBinary, (b"\x01", b"\x0a\xff"), ("01", "0aff")),
    "uuid": (Uuid, (UUID(int=1), UUID(int=2)), (str(UUID(int=1)), UUID(int=2).hex.upper())),
    "uuid as text": (Uuid(as_uuid=False), (str(UUID(int=1)), UUID(int=2).hex), (UUID(int=1).hex, str(UUID(int=2)))),
}
SEARCHES: dict[str, Callable[[Any, Any], Any]] = {
    "matches": lambda column, tenant: column.matches(NAME, tenant=tenant),
    "matches_any": lambda column, tenant: column.matches_any([NAME, "x"], tenant=tenant),
    "matches_normalised": lambda column, tenant: column.matches_normalised("eve  ADAMS", tenant=tenant),
    "starts_with": lambda column, tenant: column.starts_with("EVE", tenant=tenant),
    "has_token": lambda column, tenant: column.has_token("adams", tenant=tenant),
}


def desk(kind: Any) -> Any:
    """Return a class whose tenants are of a type."""

    class Base(DeclarativeBase):
        pass

    class Desk(Base):
        __tablename__ = "desks"
        number: Mapped[str] = mapped_column(primary_key=True)
        org = Column(kind)
        holder: Mapped[str] = encrypted(
            tenant="org", keyring="desks-{tenant}", indexes=[Exact(unique=True), Normalised(), Prefix(), Tokens()]
        )

    return Desk


@pytest.mark.parametrize("kind", TENANTS)
def test_each_search_finds_the_rows_of_the_tenant_that_the_column_or_its_text_names(
    engine: Engine, km: blocking.KeyManager, kind: str
) -> None:
    type_, held, texts = TENANTS[kind]
    Desk = desk(type_)  # noqa: N806 -- a class
    Desk.metadata.create_all(engine)
    bind(engine, km, Desk)
    with Session(engine) as session:
        session.add_all(Desk(number=f"d{at}", org=org, holder=NAME) for at, org in enumerate(held))
        session.commit()
        for search in SEARCHES.values():
            for at, names in enumerate(zip(held, texts, strict=True)):
                for tenant in names:
                    found = session.scalars(select(Desk.number).where(search(Desk.holder, tenant))).all()
                    assert found == [f"d{at}"], (search, tenant)
        session.add(Desk(number="d9", org=held[0], holder=NAME))
        with pytest.raises(IntegrityError):
            session.flush()


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("tenant", ["", b"", True, 1.5, ["acme"], object()])
def test_what_names_no_tenant_is_refused_by_each_search(name: str, tenant: object) -> None:
    with pytest.raises(InvalidInputError, match="a tenant is named by what its column holds"):
        SEARCHES[name](Member.email, tenant)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_text_that_is_no_uuid_names_no_tenant_that_is_one(name: str) -> None:
    with pytest.raises(InvalidInputError, match="UUIDs"):
        SEARCHES[name](desk(Uuid).holder, "acme")


@pytest.mark.parametrize("name", SEARCHES)
def test_each_search_needs_the_tenant(name: str) -> None:
    with pytest.raises(InvalidInputError, match="for each tenant"):
        SEARCHES[name](Member.email, None)


def test_an_object_whose_row_another_session_gave_another_tenant_is_not_saved(any_app: Application) -> None:
    with any_app.session() as session:
        session.add(Member(number="1", org_id=1, email="first@example.org"))
        session.commit()
    with any_app.session() as late, any_app.session() as early:
        loaded = late.get_one(Member, "1")
        early.get_one(Member, "1").org_id = 2
        early.commit()
        loaded.email = "second@example.org"
        with pytest.raises(ConflictError, match="load it again"):
            late.commit()
        late.rollback()
        assert late.get_one(Member, "1").email == "first@example.org"
        loaded.email = "second@example.org"
        late.commit()
        found = select(Member.number).where(Member.email.matches("second@example.org", tenant=2))
        assert late.scalars(found).all() == ["1"]


def test_an_object_whose_key_was_given_to_another_row_is_not_saved(any_app: Application) -> None:
    with any_app.session() as session:
        session.add(Person(id=1, email="first@example.org"))
        session.commit()
    with any_app.session() as late, any_app.session() as early:
        loaded = late.get_one(Person, 1)
        early.delete(early.get_one(Person, 1))
        early.flush()
        early.expunge_all()
        early.add(Person(id=1, email="another@example.org"))
        early.commit()
        loaded.email = "second@example.org"
        with pytest.raises(ConflictError, match="load it again"):
            late.commit()
        late.rollback()
        assert late.get_one(Person, 1).email == "another@example.org"
