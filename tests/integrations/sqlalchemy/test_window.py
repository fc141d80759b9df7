"""While a column is being encrypted, rows in clear are read, found and unique, and every write encrypts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date
from typing import Any, cast
from uuid import uuid4

import pytest
from sqlalchemy import Engine, insert, not_, null, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, load_only, make_transient, mapped_column

from keystead import blocking, telemetry
from keystead.errors import ConflictError, InvalidInputError
from keystead.integrations.sqlalchemy import Encrypted, Exact, bind, encrypted, sealed_rows, sealed_updates
from tests.integrations.sqlalchemy.test_search import plan
from tests.integrations.sqlalchemy.windowed import (
    ACCOUNTS,
    ADA,
    BOB,
    CYD,
    NORTH,
    SEEN,
    SOUTH,
    Account,
    Base,
    Seat,
    add_cyd,
    fill,
    fill_seats,
)


@pytest.fixture
def window(engine: Engine, km: blocking.KeyManager) -> Engine:
    """Two accounts in clear, one that is encrypted, and one with nothing."""
    return opened(engine, km)


@pytest.fixture
def lite(sqlite: Engine, km: blocking.KeyManager) -> Engine:
    """The same on SQLite."""
    return opened(sqlite, km)


def opened(engine: Engine, km: blocking.KeyManager) -> Engine:
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        fill(connection)
    bind(engine, km, Base)
    with Session(engine) as session:
        add_cyd(session)
    return engine


@pytest.fixture
def session(window: Engine) -> Iterator[Session]:
    """A session on each database."""
    with Session(window) as made:
        yield made


@pytest.fixture
def lite_session(lite: Engine) -> Iterator[Session]:
    """A session on SQLite."""
    with Session(lite) as made:
        yield made


def account(session: Session, name: str) -> Account:
    return session.scalars(select(Account).where(Account.name == name)).one()


def names(session: Session, *conditions: Any) -> list[str]:
    return sorted(session.scalars(select(Account.name).where(*conditions)))


def left(session: Session) -> list[str]:
    """Return what is still in clear."""
    found = session.execute(text("SELECT email_plain FROM accounts WHERE email_plain IS NOT NULL ORDER BY 1"))
    return list(found.scalars())


def test_a_row_that_is_not_encrypted_gives_its_value_in_clear(session: Session) -> None:
    ada, cyd, dan = (account(session, name) for name in ("ada", "cyd", "dan"))
    assert (ada.email, ada.note, ada.born, ada.seen) == (ADA, "green tea", date(1815, 12, 10), SEEN)
    assert [cyd.email, cyd.note, dan.email] == [CYD, None, None]


def test_a_box_holds_what_is_in_clear(session: Session) -> None:
    level = account(session, "ada").level
    assert isinstance(level, Encrypted)
    assert level.decrypt() == 7
    assert account(session, "bob").level is None


def test_each_reading_in_clear_is_counted_and_the_first_is_logged(
    lite_session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(telemetry, "plaintext_read", counted.append)
    Account.__mapper__.class_manager.info["keystead.places"][0].window.was_logged = False
    ada, cyd = account(lite_session, "ada"), account(lite_session, "cyd")
    with caplog.at_level(logging.WARNING):
        assert [ada.email, ada.email, cyd.email, ada.name] == [ADA, ADA, CYD, "ada"]
    assert counted == ["accounts.email"] * 2
    assert [(each.message[:29], each.__dict__["field"]) for each in caplog.records] == [
        ("a value is still in clear, an", "accounts.email")
    ]
    assert ADA not in caplog.text


def test_a_plaintext_beside_a_ciphertext_is_never_looked_at(lite_session: Session) -> None:
    lite_session.execute(text("UPDATE accounts SET email_plain = 'liar' WHERE name = 'cyd'"))
    assert account(lite_session, "cyd").email == CYD
    assert names(lite_session, Account.email == "liar") == []
    assert names(lite_session, Account.email == CYD) == ["cyd"]


@pytest.mark.parametrize("value", ["new@example.org", ADA])
def test_assigning_a_value_encrypts_it_and_empties_the_plaintext(session: Session, value: str) -> None:
    account(session, "ada").email = value
    session.commit()
    assert left(session) == [BOB]
    assert account(session, "ada").email == value
    assert names(session, Account.email == value) == ["ada"]
    assert session.execute(text("SELECT count(*) FROM accounts WHERE email_plain = :a"), {"a": ADA}).scalar() == 0


def test_assigning_nothing_empties_the_plaintext(session: Session) -> None:
    ada = account(session, "ada")
    ada.note = None
    assert ada.note is None
    session.commit()
    assert ada.note is None
    assert session.execute(text("SELECT note, note_plain FROM accounts WHERE name = 'ada'")).one() == (None, None)
    del ada.born
    session.commit()
    assert ada.born is None


def test_words_of_an_assigned_value_are_found_when_the_window_is_closed(lite_session: Session) -> None:
    account(lite_session, "ada").note = "black coffee"
    lite_session.commit()
    assert lite_session.execute(text("SELECT count(*) FROM accounts_note_tokens")).scalar() == 2


def test_changing_another_column_leaves_a_row_in_clear(lite_session: Session) -> None:
    account(lite_session, "ada").name = "countess"
    lite_session.commit()
    assert left(lite_session) == [ADA, BOB]


def test_a_row_whose_record_changes_is_encrypted_for_the_new_one(session: Session) -> None:
    ada: Any = account(session, "ada")
    ada.keystead_row = uuid4()
    session.commit()
    assert left(session) == [BOB]
    assert (ada.email, ada.note, ada.born) == (ADA, "green tea", date(1815, 12, 10))


def test_a_new_row_is_encrypted(session: Session) -> None:
    session.add(Account(name="eve", email="eve@example.org", level=cast(Any, 3)))
    session.commit()
    assert left(session) == [ADA, BOB]
    assert account(session, "eve").email == "eve@example.org"


def test_a_copy_of_a_row_in_clear_is_encrypted(lite_session: Session) -> None:
    ada: Any = account(lite_session, "ada")
    make_transient(ada)
    lite_session.execute(text("DELETE FROM accounts WHERE name = 'ada'"))
    ada.id, ada.keystead_row = None, uuid4()
    lite_session.add(ada)
    lite_session.commit()
    assert left(lite_session) == [BOB]
    assert (ada.email, ada.note) == (ADA, "green tea")


def test_equality_finds_all_and_only_the_right_rows(session: Session) -> None:
    for address, name in {ADA: "ada", BOB: "bob", CYD: "cyd"}.items():
        assert names(session, Account.email == address) == [name]
        others = sorted({"ada", "bob", "cyd"} - {name})
        assert names(session, Account.email != address) == others
        assert names(session, not_(or_(Account.email == address, Account.name == "nobody"))) == others
    assert names(session, Account.email.in_([ADA, CYD, "x"])) == ["ada", "cyd"]
    assert names(session, Account.email.not_in([ADA, CYD])) == ["bob"]
    assert names(session, Account.email.matches(BOB)) == ["bob"]
    assert names(session, Account.email.in_([])) == []
    assert names(session, Account.email.is_(None)) == ["dan"]
    assert names(session, Account.email.is_not(None)) == ["ada", "bob", "cyd"]
    assert names(session, Account.email.matches(cast(Any, None))) == ["dan"]
    assert names(session, Account.born == date(1815, 12, 10)) == ["ada"]
    assert names(session, Account.seen == SEEN) == ["ada"]


def test_equality_uses_indexes(window: Engine) -> None:
    found = plan(window, Account.email == ADA, Account.id)
    assert "email_exact_" in found
    assert "ix_accounts_email_plain" in found
    assert "SCAN accounts" not in found
    assert "Seq Scan" not in found


@pytest.mark.parametrize(
    "search",
    [
        lambda: Account.email.matches_normalised(ADA),
        lambda: Account.email.starts_with("ada"),
        lambda: Account.note.has_token("tea"),
    ],
)
def test_other_searches_are_refused_until_the_window_is_closed(search: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"reencrypt\(\.\.\., plaintext_column='(email|note)_plain'\)"):
        search()


def test_a_value_that_a_row_has_in_clear_is_taken(session: Session) -> None:
    for is_new in (True, False):
        if is_new:
            session.add(Account(email=ADA))
        else:
            account(session, "cyd").email = ADA
        with pytest.raises(IntegrityError, match="UNIQUE constraint failed: another row") as caught:
            session.flush()
        assert isinstance(caught.value.orig, ConflictError)
        assert ADA not in str(caught.value)
        session.rollback()
    assert left(session) == [ADA, BOB]


def test_a_value_is_free_once_its_row_has_another_in_the_same_flush(session: Session) -> None:
    ada, bob = account(session, "ada"), account(session, "bob")
    ada.email, bob.email = "other@example.org", ADA
    session.commit()
    assert names(session, Account.email == ADA) == ["bob"]


def test_tenants_have_their_values_in_clear_apart(engine: Engine, km: blocking.KeyManager) -> None:
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        fill_seats(connection)
    bind(engine, km, Base)
    with Session(engine) as session:
        for org in (NORTH, SOUTH):
            for tenant in (org, str(org)):
                found = select(Seat.number).where(Seat.holder.matches("eve", tenant=tenant))
                assert session.scalars(found).all() == [f"s{org.int}"]
        session.get_one(Seat, "s1").holder = "fay"
        session.add(Seat(number="s3", org=NORTH, holder="eve"))
        session.commit()
        session.add(Seat(number="s4", org=SOUTH, holder="eve"))
        with pytest.raises(IntegrityError):
            session.flush()


def test_the_plaintext_attribute_is_written_by_nobody(lite: Engine, lite_session: Session) -> None:
    for assign in (
        lambda: setattr(account(lite_session, "ada"), "email_plain", "x"),
        lambda: setattr(account(lite_session, "ada"), "email_plain", None),
        lambda: Account(email_plain="x"),
    ):
        with pytest.raises(InvalidInputError, match="assign the encrypted attribute"):
            assign()
    sealed = {"id": 1, "note": None}
    for statement in (
        insert(Account).values(email_plain="x"),
        update(Account).values(email_plain="x"),
        update(Account).values(email_plain=Account.name),
        update(Account).values(email_plain=None),
        update(Account).values(email=null()),
    ):
        with pytest.raises(InvalidInputError, match="is being encrypted"):
            lite_session.execute(statement)
        lite_session.rollback()
    with pytest.raises(InvalidInputError, match="is being encrypted"):
        lite_session.execute(insert(Account), [sealed | {"email_plain": "x"}])
    columns = [column.name for column in Account.__table__.c if column.name.startswith("email")]
    lite_session.execute(update(Account).values(dict.fromkeys(columns, null())))


def test_bulk_rows_are_sealed_and_leave_nothing_in_clear_but_not_where_they_have_to_be_unique(
    lite: Engine, km: blocking.KeyManager
) -> None:
    class Own(DeclarativeBase):
        pass

    class Thing(Own):
        __tablename__ = "things"
        id: Mapped[str] = mapped_column(primary_key=True)
        secret: Mapped[str] = encrypted(plaintext="plain", indexes=[Exact()])
        plain: Mapped[str | None]

    with pytest.raises(InvalidInputError, match="only a session looks"):
        sealed_rows(lite, Seat, [{"number": "s9", "org": NORTH, "holder": "eve"}])
    assert sealed_updates(lite, Seat, [{"number": "s9"}]) == [{"number": "s9"}]
    Own.metadata.create_all(lite)
    with lite.begin() as connection:
        connection.execute(text("INSERT INTO things (id, plain) VALUES ('a', 'x')"))
    bind(lite, km, Own)
    with Session(lite) as session:
        session.execute(update(Thing), sealed_updates(lite, Thing, [{"id": "a", "secret": "y"}]))
        session.execute(insert(Thing), sealed_rows(lite, Thing, [{"id": "b", "secret": "z"}]))
        session.commit()
        assert session.execute(text("SELECT count(plain), count(secret) FROM things")).one() == (0, 2)
        assert [each.secret for each in session.scalars(select(Thing).order_by(Thing.id))] == ["y", "z"]


def test_a_detached_row_in_clear_is_merged_without_taking_back_an_encryption(lite: Engine) -> None:
    with Session(lite, expire_on_commit=False) as session:
        ada, bob = account(session, "ada"), account(session, "bob")
    with Session(lite) as session:
        account(session, "ada").email = ADA
        session.commit()
    with Session(lite) as session:
        merged = [session.merge(each) for each in (ada, bob)]
        session.commit()
        assert [each.email for each in merged] == [ADA, BOB]
        assert left(session) == [BOB]
    bob.email = "new@example.org"
    with Session(lite) as session:
        session.merge(bob)
        session.commit()
        assert account(session, "bob").email == "new@example.org"
        assert left(session) == []


def test_a_row_that_is_encrypted_while_its_plaintext_is_not_loaded_is_read(lite: Engine) -> None:
    with Session(lite) as session:
        ada, bob = session.scalars(
            select(Account).where(Account.name < "c").options(load_only(Account.email, raiseload=False))
        ).all()
        session.commit()
        session.refresh(ada, ["email"])
        with Session(lite) as other:
            account(other, "ada").email = ADA
            other.commit()
        assert (ada.email, bob.email) == (ADA, BOB)


@pytest.mark.parametrize("again", ["query", "refresh"])
def test_a_plaintext_that_is_loaded_after_its_row_was_encrypted_is_not_taken_for_none(
    window: Engine, again: str
) -> None:
    with Session(window) as session:
        ada = session.scalars(
            select(Account).where(Account.name == "ada").options(load_only(Account.email, raiseload=False))
        ).one()
        with Session(window) as other:
            account(other, "ada").email = ADA
            other.commit()
        if again == "query":
            assert account(session, "ada") is ada
        else:
            session.refresh(ada, ["email_plain"])
        assert ada.email == ADA


def test_an_encrypted_column_is_nullable_for_as_long_as_the_window_is_open() -> None:
    assert ACCOUNTS.c.email.nullable
