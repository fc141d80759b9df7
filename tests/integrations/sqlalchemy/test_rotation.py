"""Searches and uniqueness hold while keys rotate."""

from __future__ import annotations

import pytest
from sqlalchemy import not_, or_, select, text
from sqlalchemy.exc import IntegrityError

from keystead.errors import StaleViewError
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Card, Person


@pytest.fixture
def rotated(fresh: Application) -> Application:
    """One row from before the rotation of both its keys began, and one from after."""
    for name in ("before", "after"):
        with fresh.session() as session:
            session.add(Person(name=name, email=f"{name}@example.org", note=f"written {name}"))
            session.commit()
        rotate(fresh)
    return fresh


def rotate(app: Application) -> None:
    """Begin to rotate the index key, and rotate a data key."""
    app.km.rotate_index_key()
    app.km.keyring("people").rotate()
    app.km.run_due()


def test_rows_from_before_and_after_are_found_and_read(rotated: Application) -> None:
    with rotated.session() as session:
        assert session.execute(text("SELECT count(email_exact_0), count(email_exact_1) FROM people")).one() == (1, 2)
        for name in ("before", "after"):
            address = f"{name}@example.org"
            for condition in (
                Person.email == address,
                Person.email.in_([address]),
                Person.email.matches_normalised(address.upper()),
                Person.email.starts_with(name[:3]),
                Person.note.has_token(name),
            ):
                assert [each.email for each in session.scalars(select(Person).where(condition))] == [address]
            others = select(Person.name).where(not_(or_(Person.email == address, Person.name == "nobody")))
            assert session.scalars(others).all() == [{"before": "after", "after": "before"}[name]]


@pytest.mark.parametrize("name", ["before", "after"])
def test_a_unique_value_stays_unique(rotated: Application, name: str) -> None:
    with rotated.session() as session:
        session.add(Person(email=f"{name}@example.org"))
        with pytest.raises(IntegrityError):
            session.flush()


def test_a_row_that_is_changed_gets_every_live_index(rotated: Application) -> None:
    with rotated.session() as session:
        session.scalars(select(Person).where(Person.name == "before")).one().email = "changed@example.org"
        session.commit()
        assert session.execute(text("SELECT count(email_exact_0), count(email_exact_1) FROM people")).one() == (2, 2)


def test_a_transaction_that_a_rotation_overtook_is_done_again(fresh: Application) -> None:
    for outcome in ("overtaken", "committed"):
        with fresh.session() as session:
            session.add(Person(email="slow@example.org"))
            session.flush()
            if outcome == "overtaken":
                rotate(fresh)
                with pytest.raises(StaleViewError, match="do the transaction again"):
                    session.commit()
            else:
                session.commit()
    with fresh.session() as session:
        assert session.execute(text("SELECT count(email_exact_0), count(email_exact_1) FROM people")).one() == (1, 1)


def test_a_transaction_that_wrote_no_index_commits_whatever_rotates(fresh: Application) -> None:
    with fresh.session() as session:
        session.add(Person(email="first@example.org"))
        session.rollback()
        session.add(Card("4111"))
        session.flush()
        rotate(fresh)
        session.commit()
