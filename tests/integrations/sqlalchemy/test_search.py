"""Queries find all and only the right rows, through an index; what no index answers is refused with the cure."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, Engine, and_, delete, not_, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from keystead.errors import InvalidInputError
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Letter, Member, Order, Person

PEOPLE = {
    "ada": ("ada@example.org", "likes green tea"),
    "bob": ("Bob@Example.org", "likes coffee"),
    "cyd": ("cyd@example.net", None),
}


@pytest.fixture
def people(any_app: Application) -> Application:
    return filled(any_app)


@pytest.fixture
def few(app: Application) -> Application:
    return filled(app)


def filled(app: Application) -> Application:
    with app.session() as session:
        session.add_all(Person(name=name, email=email, note=note) for name, (email, note) in PEOPLE.items())
        session.commit()
    return app


def names(app: Application, condition: ColumnElement[bool]) -> list[str]:
    with app.session() as session:
        return sorted(session.scalars(select(Person.name).where(condition)))


def test_each_index_finds_all_and_only_the_right_rows(people: Application) -> None:
    assert names(people, Person.email == "ada@example.org") == ["ada"]
    assert names(people, Person.email == "ADA@example.org") == []
    assert names(people, Person.email.matches("Bob@Example.org")) == ["bob"]
    assert names(people, Person.email.in_(["ada@example.org", "cyd@example.net", "x"])) == ["ada", "cyd"]
    assert names(people, Person.email.in_([])) == []
    assert names(people, Person.email.matches_normalised("BOB@example.ORG")) == ["bob"]
    assert names(people, Person.email.starts_with("BOB")) == ["bob"]
    assert names(people, Person.note.has_token("Likes")) == ["ada", "bob"]
    assert names(people, Person.note.has_token("tea")) == ["ada"]
    assert names(people, Person.note.is_(None)) == ["cyd"]
    assert names(people, Person.note == None) == ["cyd"]  # noqa: E711
    assert names(people, Person.note.is_not(None)) == ["ada", "bob"]


def test_a_negation_finds_the_others(people: Application) -> None:
    assert names(people, Person.email != "ada@example.org") == ["bob", "cyd"]
    assert names(people, Person.email.not_in(["ada@example.org"])) == ["bob", "cyd"]
    assert names(people, not_(or_(Person.email == "ada@example.org", Person.name == "bob"))) == ["cyd"]
    assert names(people, and_(Person.name != "bob", ~Person.note.has_token("tea"))) == ["cyd"]


def test_a_search_works_through_aliases_joins_subqueries_and_the_table(people: Application) -> None:
    other = aliased(Person)
    inner = select(Person).where(Person.email == "ada@example.org").subquery()
    table = Person.__table__
    with people.session() as session:
        ada = session.scalars(select(Person).where(Person.email == "ada@example.org")).one()
        session.add(Letter(body=b"hello", person=ada))
        session.commit()
        assert session.scalars(select(other).where(other.email == "ada@example.org")).one() is ada
        joined = select(Letter).join(Letter.person.of_type(other)).where(other.email == "ada@example.org")
        assert session.scalars(joined).one().person is ada
        assert session.scalars(select(Letter).where(Letter.person.has(Person.email == "ada@example.org"))).one()
        assert session.scalars(select(aliased(Person, inner))).one() is ada
        assert session.execute(select(table.c.name).where(table.c.email == "ada@example.org")).scalar_one() == "ada"
        assert session.scalars(select(Person).where(Person.letters.any(Letter.body == b"hello"))).one() is ada


def test_a_subquery_without_the_index_columns_is_named_as_the_trouble(few: Application) -> None:
    inner = select(Person.email).subquery()
    with pytest.raises(InvalidInputError, match="search before making the subquery"):
        inner.c.email == "ada@example.org"  # noqa: B015


@pytest.mark.parametrize(
    ("ask", "cure"),
    [
        (lambda: Person.email.like("a%"), r"\.starts_with \(Prefix\)"),
        (lambda: Person.email > "a", "loaded values"),
        (Person.email.desc, "loaded values"),
        (lambda: Person.email + "x", "loaded values"),
        (lambda: "x" + Person.email, "loaded values"),
        (lambda: Person.note == "x", r"indexes=\[Exact\(\)\]"),
        (lambda: Person.note.matches_normalised("x"), r"indexes=\[Normalised\(\)\]"),
        (lambda: Person.email.has_token("x"), r"indexes=\[Tokens\(\)\]"),
        (lambda: Person.email.starts_with("ab"), r"Prefix\(length=2\)"),
        (lambda: Person.email.starts_with("abcd"), r"Prefix\(length=4\)"),
        (lambda: Person.note.has_token("two words"), "takes one word"),
        (lambda: Person.email == Person.name, "plain values"),
        (lambda: Person.email.in_(select(Person.name)), "takes a list"),
        (lambda: Person.email.in_("abc"), "takes a list"),
        (lambda: Member.email == "x", r"\.matches\(value, tenant=\.\.\.\)"),
        (lambda: Person.email.matches("x", tenant="t"), "has no tenants"),
    ],
)
def test_what_no_index_answers_is_refused_with_the_cure(ask: Any, cure: str) -> None:
    with pytest.raises(InvalidInputError, match=cure):
        ask()


def test_a_value_of_another_type_is_refused_when_the_query_is_built() -> None:
    with pytest.raises(InvalidInputError):
        Person.email == 7  # noqa: B015


def test_each_tenants_values_are_found_for_that_tenant_alone(app: Application) -> None:
    with app.session() as session:
        session.add_all(Member(number=f"m{org}", org_id=org, email="eve@example.org") for org in (1, 2))
        session.commit()
        for ask in (Member.email.matches, Member.email.matches_normalised, Member.email.has_token):
            word = "eve" if ask == Member.email.has_token else "eve@example.org"
            assert session.scalars(select(Member.number).where(ask(word, tenant="2"))).all() == ["m2"]
        found = select(Member.number).where(Member.email.matches_any(["eve@example.org"], tenant="1"))
        assert session.scalars(found).all() == ["m1"]


def test_the_values_of_a_statement_change_while_its_compiled_form_is_kept(few: Application) -> None:
    assert names(few, Person.email == "ada@example.org") == ["ada"]
    assert names(few, Person.email == "cyd@example.net") == ["cyd"]
    first, second = ((Person.email == each)._generate_cache_key() for each in ("a", "b"))
    assert first is not None
    assert first == second


def test_a_bulk_delete_by_an_encrypted_value_forgets_the_objects_of_the_session(few: Application) -> None:
    with few.session() as session:
        ada = session.scalars(select(Person).where(Person.email == "ada@example.org")).one()
        session.execute(delete(Person).where(Person.email == "ada@example.org"))
        assert ada not in session
        session.execute(update(Person).where(Person.email == "Bob@Example.org").values(name="robert"))
        assert session.scalars(select(Person.name).where(Person.email == "Bob@Example.org")).one() == "robert"


def test_two_rows_cannot_have_one_value_of_a_unique_index(people: Application) -> None:
    with people.session() as session:
        session.add(Person(email="ada@example.org"))
        with pytest.raises(IntegrityError) as caught:
            session.flush()
    assert "ada@" not in str(caught.value)


def test_of_two_concurrent_inserts_of_one_value_exactly_one_wins(fresh: Application) -> None:
    together, outcomes = threading.Barrier(2), []

    def insert() -> None:
        with fresh.session() as session:
            session.add(Person(email="new@example.org"))
            together.wait()
            try:
                session.commit()
                outcomes.append("won")
            except IntegrityError:
                outcomes.append("lost")

    threads = [threading.Thread(target=insert) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost", "won"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(remarks=st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "A"]), st.text(max_size=3)), max_size=6))
def test_an_exact_index_answers_as_python_does(app: Application, remarks: list[str | None]) -> None:
    with app.session() as session:
        session.add_all(Order(shop="s", number=at, remark=remark) for at, remark in enumerate(remarks))
        session.flush()
        for wanted in {"a", *filter(None, remarks)}:
            found = session.scalars(select(Order.number).where(Order.remark == wanted)).all()
            assert sorted(found) == [at for at, remark in enumerate(remarks) if remark == wanted]


def plan(engine: Engine, condition: ColumnElement[bool], of: Any = Person.id) -> str:
    """Return how a database means to answer a query, its settings such that only an index can be the reason for one."""
    statement = select(of).where(condition)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET enable_seqscan = off"))
        compiled = statement.compile(engine)
        explain = "EXPLAIN " if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        context = connection.execute(statement).context
        found = connection.exec_driver_sql(explain + context.statement, context.parameters[0])
        assert compiled.params
        return "\n".join(str(row) for row in found)


def test_every_search_uses_an_index(people: Application) -> None:
    for condition, index in {
        Person.email == "ada@example.org": "ix_people_email_exact_",
        Person.email.in_(["ada@example.org", "x"]): "ix_people_email_exact_",
        Person.email.matches_normalised("ada@example.org"): "ix_people_email_like_email_",
        Person.email.starts_with("ada"): "ix_people_email_prefix3_",
    }.items():
        found = plan(people.engine, condition)
        assert index in found
        assert "SCAN people" not in found
        assert "Seq Scan" not in found
    by_word = plan(people.engine, Person.note.has_token("tea"))
    assert "people_note_tokens" in by_word
    assert "SCAN" not in by_word
    assert "Seq Scan" not in by_word
