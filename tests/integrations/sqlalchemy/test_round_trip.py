"""Code written for plain values runs unchanged: the attribute gives and takes them, and the table holds ciphertext."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from decimal import Decimal
from uuid import uuid4

import pytest
from sqlalchemy import Engine, func, inspect, select, text
from sqlalchemy.orm import Session, make_transient

from keystead.errors import InvalidInputError
from keystead.integrations.sqlalchemy import Encrypted, sealed_inserts
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Letter, Member, Order, Person

Statements = Callable[[Engine], list[str]]


def add_ada(app: Application, **more: object) -> int:
    with app.session() as session:
        ada = Person(name="Ada", email="ada@example.org", **more)
        session.add(ada)
        session.commit()
        return ada.id


def test_what_was_assigned_is_read_back_and_the_table_holds_ciphertext(any_app: Application) -> None:
    number = add_ada(any_app, note="likes tea", balance=Decimal("1.50"), profile={"size": 7})
    with any_app.session() as session:
        ada = session.get_one(Person, number)
        assert (ada.email, ada.note, ada.profile) == ("ada@example.org", "likes tea", {"size": 7})
        raw = session.execute(text("SELECT email, note, profile FROM people")).one()
    assert all(b"ada" not in bytes(value) and b"tea" not in bytes(value) for value in raw)


def test_a_box_shows_its_value_only_when_it_is_asked(app: Application) -> None:
    number = add_ada(app, balance=Decimal("1.50"))
    with app.session() as session:
        balance = session.get_one(Person, number).balance
    assert isinstance(balance, Encrypted)
    assert repr(balance) == "<Encrypted people.balance, 59 bytes>"
    assert balance.decrypt() == Decimal("1.50")


def test_none_is_null_unless_the_field_hides_it(app: Application) -> None:
    add_ada(app)
    with app.session() as session:
        session.add(Order(shop="north", number=7))
        session.commit()
        assert session.scalars(select(Person).where(Person.note.is_(None))).one().note is None
        assert session.execute(text("SELECT count(remark) FROM orders")).scalar() == 1
        assert session.scalars(select(Order)).one().remark is None


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), (1, 1.0)])
def test_a_change_between_values_that_python_calls_equal_is_written(
    app: Application, before: object, after: object
) -> None:
    number = add_ada(app, profile={"on": before})
    with app.session() as session:
        ada = session.get_one(Person, number)
        assert ada.profile == {"on": before}
        ada.profile = {"on": after}
        session.commit()
    with app.session() as session:
        profile = session.get_one(Person, number).profile
        assert profile is not None
        assert type(profile["on"]) is type(after)


def test_a_change_is_written_and_its_former_value_is_history(any_app: Application) -> None:
    number = add_ada(any_app)
    with any_app.session() as session:
        ada = session.get_one(Person, number)
        assert ada.email == "ada@example.org"
        ada.email = "ada@example.net"
        assert inspect(ada).attrs.email.history.added == ["ada@example.net"]
        session.commit()
        assert ada.email == "ada@example.net"
        ada.note = "a"
        session.commit()
        ada.note = None
        session.commit()
        assert session.execute(text("SELECT note FROM people")).scalar() is None


def test_assigning_the_value_it_has_writes_nothing(app: Application, statements: Statements) -> None:
    number = add_ada(app)
    with app.session() as session:
        ada = session.get_one(Person, number)
        heard = statements(app.engine)
        ada.email = "ada@example.org"
        session.commit()
    assert not [each for each in heard if each.startswith("UPDATE")]


def test_changing_another_column_leaves_the_ciphertext_alone(app: Application, statements: Statements) -> None:
    number = add_ada(app)
    with app.session() as session:
        ada = session.get_one(Person, number)
        heard = statements(app.engine)
        ada.name = "Countess"
        session.commit()
    assert [each for each in heard if each.startswith("UPDATE")] == ["UPDATE people SET name=? WHERE people.id = ?"]


def test_rollback_expire_and_refresh_bring_the_stored_value_back(app: Application) -> None:
    number = add_ada(app)
    with app.session() as session:
        ada = session.get_one(Person, number)
        ada.email = "x@example.org"
        session.rollback()
        assert ada.email == "ada@example.org"
        ada.email = "x@example.org"
        session.expire(ada, ["email"])
        assert ada.email == "ada@example.org"
        ada.email = "x@example.org"
        session.refresh(ada)
        assert ada.email == "ada@example.org"


def test_an_object_whose_insert_failed_can_be_added_again(app: Application) -> None:
    add_ada(app)
    with app.session() as session:
        other = Person(email="ada@example.org")
        session.add(other)
        with pytest.raises(Exception, match="UNIQUE"):
            session.flush()
        session.rollback()
        assert other.email == "ada@example.org"
        other.email = "bob@example.org"
        session.add(other)
        session.commit()
        assert session.scalars(select(Person).where(Person.email == "bob@example.org")).one() is other


def test_a_detached_object_is_read_and_merged(app: Application) -> None:
    number = add_ada(app, note="first")
    with Session(app.engine, expire_on_commit=False) as session:
        ada = session.get_one(Person, number)
    assert ada.email == "ada@example.org"
    ada.note = "second"
    with app.session() as session:
        merged = session.merge(ada)
        session.commit()
        assert (merged.email, merged.note) == ("ada@example.org", "second")
        assert session.scalars(select(Person).where(Person.note.has_token("second"))).one() is merged


def test_a_merged_object_that_was_deleted_meanwhile_is_inserted_again(app: Application) -> None:
    number = add_ada(app)
    with app.session() as session:
        ada = session.get_one(Person, number)
        session.expunge(ada)
        session.execute(text("DELETE FROM people"))
        session.commit()
    with app.session() as session:
        session.merge(ada)
        session.commit()
        assert session.scalars(select(Person).where(Person.email == "ada@example.org")).one().id == number


def test_a_copy_under_another_key_is_sealed_for_its_own_record(app: Application) -> None:
    with app.session() as session:
        letter = Letter(body=b"hello")
        session.add(letter)
        session.commit()
        assert letter.body == b"hello"
        make_transient(letter)
        letter.id = uuid4()
        session.add(letter)
        session.commit()
        session.expire_all()
        assert [each.body for each in session.scalars(select(Letter))] == [b"hello", b"hello"]


def test_a_record_that_changes_takes_its_ciphertext_along(any_app: Application) -> None:
    with any_app.session() as session:
        session.add(Order(shop="north", number=7, remark="quick"))
        session.commit()
        session.scalars(select(Order)).one().number = 8
        session.commit()
        assert session.scalars(select(Order)).one().remark == "quick"


def test_a_record_that_changes_takes_its_words_along(any_app: Application) -> None:
    with any_app.session() as session:
        session.add(Member(number="m1", org_id=1, email="eve@example.org"))
        session.commit()
        session.scalars(select(Member)).one().number = "m2"
        session.commit()
        eve = session.scalars(select(Member).where(Member.email.has_token("eve", tenant="1"))).one()
        assert (eve.number, eve.email) == ("m2", "eve@example.org")
        assert session.execute(text("SELECT DISTINCT record FROM members_email_tokens")).scalars().all() == ["m2"]


def test_a_tenant_that_changes_takes_ciphertext_index_and_words_along(any_app: Application) -> None:
    with any_app.session() as session:
        session.add(Member(number="m1", org_id=1, email="eve@example.org"))
        session.commit()
        session.scalars(select(Member)).one().org_id = 2
        session.commit()
        eve = session.scalars(select(Member).where(Member.email.matches("eve@example.org", tenant="2"))).one()
        assert eve.email == "eve@example.org"
        assert session.scalars(select(Member).where(Member.email.has_token("eve", tenant="1"))).all() == []
        assert session.scalars(select(Member).where(Member.email.has_token("eve", tenant="2"))).one() is eve


def test_an_object_in_the_place_of_a_deleted_one_has_nothing_of_it(app: Application) -> None:
    number = add_ada(app, note="old words")
    with app.session() as session:
        session.delete(session.get_one(Person, number))
        session.add(Person(id=number, email="bob@example.org"))
        session.commit()
        bob = session.scalars(select(Person).where(Person.email == "bob@example.org")).one()
        assert (bob.id, bob.email, bob.note) == (number, "bob@example.org", None)
        for gone in (Person.email == "ada@example.org", Person.note.has_token("old")):
            assert session.scalars(select(Person).where(gone)).all() == []


def test_a_deleted_attribute_is_null(app: Application) -> None:
    number = add_ada(app, note="old words")
    with app.session() as session:
        ada = session.get_one(Person, number)
        assert ada.note == "old words"
        del ada.note
        session.commit()
        assert ada.note is None
        assert session.scalars(select(Person).where(Person.note.has_token("old"))).all() == []


def test_a_columns_default_is_encrypted(app: Application) -> None:
    with app.session() as session:
        session.add(Letter(body=b""))
        session.commit()
        assert session.scalars(select(Letter)).one().mood == "calm"
        assert session.execute(text("SELECT mood FROM letters")).scalar_one()[:1] != b"c"


def test_validators_see_plain_values(app: Application) -> None:
    with pytest.raises(ValueError, match="no address"):
        Person(email="nothing")


def test_a_value_of_another_type_is_refused_in_the_flush(app: Application) -> None:
    with app.session() as session:
        session.add(Person(email="ada@example.org", note=7))
        with pytest.raises(InvalidInputError):
            session.flush()


def test_an_expression_is_refused_when_it_is_assigned(app: Application) -> None:
    with pytest.raises(InvalidInputError, match="not an SQL expression"):
        Person(note=func.lower("X"))


def test_a_box_of_another_object_gives_its_content(app: Application) -> None:
    number = add_ada(app, balance=Decimal(5))
    with app.session() as session:
        ada = session.get_one(Person, number)
        session.add(Person(email="bob@example.org", balance=ada.balance))
        session.commit()
        bob = session.scalars(select(Person).where(Person.email == "bob@example.org")).one()
        assert bob.balance is not None
        assert bob.balance.decrypt() == 5


def test_a_column_selected_without_its_row_is_a_box_that_needs_the_record(app: Application) -> None:
    number = add_ada(app)
    with app.session() as session:
        ada = session.get_one(Person, number)
        box = session.scalars(select(Person.email)).one()
        row_key = ada.keystead_row  # type: ignore[attr-defined]
        assert box.decrypt(record=row_key) == "ada@example.org"  # type: ignore[attr-defined]
        with pytest.raises(InvalidInputError, match="without its row"):
            box.decrypt()  # type: ignore[attr-defined]
        with pytest.raises(InvalidInputError, match="cannot be assigned"):
            ada.note = box


def test_pickling_an_object_with_a_loaded_value_says_why_not(app: Application) -> None:
    number = add_ada(app)
    with app.session() as session:
        ada = session.get_one(Person, number)
    with pytest.raises(TypeError, match="belongs to a key manager of this process"):
        pickle.dumps(ada)


def test_listing_ten_thousand_rows_calls_no_kms_and_decrypts_nothing(
    any_app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [{"name": f"p{at}", "email": f"p{at}@example.org", "note": "likes tea"} for at in range(10_000)]
    with any_app.session() as session:
        for statement, rows in sealed_inserts(any_app.engine, Person, people):
            session.execute(statement, rows)
        session.commit()
    calls, opened = any_app.kms.calls.total(), list[object]()

    def open_one(*given: object) -> bytes:
        opened.append(given)
        return b"\x01read"

    for name in ("open_one", "open_all"):
        monkeypatch.setattr(f"keystead.fields.cipher.{name}", open_one)
    with any_app.session() as session:
        listed = session.scalars(select(Person)).all()
        assert (len(listed), opened, any_app.kms.calls.total()) == (10_000, [], calls)
        assert listed[0].email == "read"
        assert len(opened) == 1
