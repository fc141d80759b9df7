"""Transactions end as they would without encryption, unless an index key overtook them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from keystead.errors import InvalidInputError, StaleViewError
from keystead.integrations.sqlalchemy.notes import notes_of
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Letter, Person


def rotated(app: Application) -> None:
    app.km.rotate_index_key()
    app.km.run_due()


@pytest.fixture
def two_phase(fresh: Application, monkeypatch: pytest.MonkeyPatch) -> Application:
    """An application whose database prepares transactions, by name alone: a server has to be configured for it."""
    dialect: Any = fresh.engine.dialect
    monkeypatch.setattr(dialect, "do_begin_twophase", lambda connection, xid: None)
    monkeypatch.setattr(dialect, "do_prepare_twophase", lambda connection, xid: None)
    for name, action in (("commit", dialect.do_commit), ("rollback", dialect.do_rollback)):

        def end(connection: Any, xid: object, *options: object, action: Any = action, **more: object) -> None:
            action(connection.connection)

        monkeypatch.setattr(dialect, f"do_{name}_twophase", end)
    return fresh


def test_a_transaction_that_an_index_key_overtook_is_not_prepared(two_phase: Application) -> None:
    with Session(two_phase.engine, twophase=True) as session:
        session.add(Letter(body=b"x"))
        session.flush()
        rotated(two_phase)
        with pytest.raises(StaleViewError):
            session.prepare()
        session.rollback()
        session.add(Letter(body=b"y"))
        session.commit()
        assert [letter.body for letter in session.scalars(select(Letter))] == [b"y"]


def test_a_transaction_of_two_phases_that_is_committed_at_once_is_looked_at_too(two_phase: Application) -> None:
    with two_phase.engine.connect() as connection:
        transaction = connection.begin_twophase()
        with Session(connection) as session:
            session.add(Letter(body=b"x"))
            session.flush()
            rotated(two_phase)
            with pytest.raises(StaleViewError):
                transaction.commit()
    with two_phase.session() as session:
        assert session.scalars(select(Letter)).all() == []


def test_nothing_of_a_transaction_of_two_phases_is_left_to_the_next(two_phase: Application) -> None:
    with two_phase.engine.connect() as connection:
        for end in ("rollback", "commit"):
            transaction = connection.begin_twophase()
            with Session(connection) as session:
                session.add(Letter(body=b"x"))
                session.flush()
            getattr(transaction, end)()
        rotated(two_phase)
        transaction = connection.begin_twophase()
        connection.execute(text("UPDATE letters SET person_id = NULL"))
        transaction.prepare()
        transaction.commit()


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_transaction_whose_connection_was_lost_is_rolled_back(any_app: Application, is_nested: bool) -> None:
    with any_app.engine.connect() as connection:
        outer = connection.begin()
        inner = connection.begin_nested() if is_nested else None
        connection.execute(text("SELECT 1"))
        connection.invalidate()
        if inner is not None:
            inner.rollback()
        outer.rollback()
        assert connection.execute(text("SELECT 1")).scalar() == 1


def test_a_row_is_locked_before_its_words_whether_it_is_changed_or_deleted(
    any_app: Application, statements: Callable[[Engine], list[str]]
) -> None:
    with any_app.session() as session:
        session.add(person := Person(email="ada@example.org", note="green tea"))
        session.commit()
        heard = statements(any_app.engine)
        person.note = "black tea"
        session.commit()
        person.note  # noqa: B018 -- loaded, as most objects are
        session.delete(person)
        session.commit()
    written = [each for each in heard if each.startswith(("UPDATE", "DELETE"))]
    assert ["people_note_tokens" in each for each in written] == [False, True, False, True]


def test_words_of_an_object_that_was_expired_go_with_it(app: Application) -> None:
    with app.session() as session:
        session.add(person := Person(email="ada@example.org", note="green tea"))
        session.commit()
        session.expire(person)
        session.delete(person)
        session.commit()
        assert session.execute(text("SELECT count(*) FROM people_note_tokens")).scalar() == 0


def test_a_savepoint_that_failed_lets_no_later_statement_empty_a_column(app: Application) -> None:
    with app.session() as session:
        session.add_all([Person(email="ada@example.org", note="green tea"), Person(email="bob@example.org")])
        session.flush()
        ada = session.scalars(select(Person).where(Person.note.has_token("tea"))).one()
        with pytest.raises(IntegrityError), session.begin_nested():
            ada.note, ada.email = None, "bob@example.org"
            session.flush()
        with pytest.raises(InvalidInputError, match="leaves the rows of its words"):
            session.execute(update(Person).values(note=None))


def test_nothing_is_kept_of_the_rows_that_a_flush_wrote(app: Application) -> None:
    with app.session() as session:
        session.add(letter := Letter(body=b"x"))
        session.flush()
        letter.body = b"y"
        session.flush()
        assert letter.body == b"y"
        assert notes_of(session.connection(), "sealed") == {}
