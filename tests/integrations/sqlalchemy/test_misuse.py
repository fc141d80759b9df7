"""What would work on ciphertext without anybody noticing is refused when it is executed, with what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    LargeBinary,
    String,
    and_,
    case,
    cast,
    distinct,
    exists,
    func,
    lambda_stmt,
    literal,
    nulls_last,
    select,
    tuple_,
    type_coerce,
    union,
    union_all,
    update,
)
from sqlalchemy.orm import aliased, joinedload, selectinload, subqueryload, with_polymorphic

from keystead.errors import InvalidInputError
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Animal, Cat, Dog, Letter, Person

P: Any = Person
A: Any = aliased(Person)
TABLE: Any = Person.__table__
SUB = select(P.id, P.email).subquery()
CTE = select(P.id, P.email).cte()
LABEL = P.email.label("address")

REFUSED: dict[str, Callable[[], Any]] = {
    "order": lambda: select(P).order_by(P.email),
    "order by name": lambda: select(P).order_by("email"),
    "order of an alias": lambda: select(A).order_by(A.email),
    "order of a table": lambda: select(TABLE).order_by(TABLE.c.email),
    "order of a common table": lambda: select(CTE.c.id).order_by(CTE.c.email),
    "order with a direction": lambda: select(P).order_by(nulls_last(P.email)),
    "order by a label": lambda: select(LABEL).order_by(LABEL),
    "order by the label's name": lambda: select(LABEL).order_by("address"),
    "order of a union": lambda: union_all(select(P.email), select(A.email)).order_by("email"),
    "order of a lambda": lambda: lambda_stmt(lambda: select(P).order_by(P.email)),
    "order around joins": lambda: select(P).options(joinedload(P.letters)).order_by(P.email).limit(1),
    "group": lambda: select(func.count()).group_by(P.email),
    "distinct": lambda: select(P.email).distinct(),
    "distinct count": lambda: select(func.count(distinct(P.email))),
    "union": lambda: union(select(P.email), select(A.email)),
    "function": lambda: select(P).where(func.lower(P.email) == "x"),
    "selected function": lambda: select(func.coalesce(P.email, "x")),
    "function of a subquery": lambda: select(func.max(SUB.c.email)),
    "function in exists": lambda: select(P.id).where(exists().where(func.length(P.email) == 3)),
    "function in an update": lambda: update(P).values(name="x").where(func.lower(P.email) == "x"),
    "window order": lambda: select(func.row_number().over(order_by=P.email)),
    "window partition": lambda: select(func.row_number().over(partition_by=P.email)),
    "join": lambda: select(P).join(A, A.name == P.email),
    "comparison from the left": lambda: select(P).where(literal("x") == P.email),
    "comparison with itself": lambda: select(P).where(P.email == P.email),
    "comparison of a table's columns": lambda: select(TABLE).where(TABLE.c.email == TABLE.c.note),
    "difference of a table's columns": lambda: select(TABLE).where(TABLE.c.email != TABLE.c.name),
    "membership": lambda: select(P).where(P.name.in_(select(A.email))),
    "tuple": lambda: select(P.id).where(tuple_(P.email, P.name) == tuple_(A.name, A.name)),
    "truth": lambda: select(P).where(TABLE.c.email),
    "conjunction": lambda: select(P).where(and_(TABLE.c.email, P.id == 1)),
    "case": lambda: select(case((P.name == "x", P.email), else_=None)),
    "cast": lambda: select(cast(P.email, String)),
    "concatenation": lambda: select(literal("x").concat(P.email)),
}
ALLOWED: dict[str, Callable[[], Any]] = {
    "distinct entities": lambda: select(P).distinct(),
    "distinct rows by their key": lambda: select(P.id, P.email).distinct(),
    "distinct rows by their record": lambda: select(P.keystead_row, P.email).distinct(),
    "distinct around joins": lambda: select(P).options(joinedload(P.letters)).order_by(P.name).distinct().limit(2),
    "distinct subclasses": lambda: select(with_polymorphic(Animal, [Dog, Cat], flat=True)).distinct(),
    "distinct in a count": lambda: select(func.count()).select_from(select(P).distinct().subquery()),
    "union of entities": lambda: select(P).from_statement(union(select(P), select(P))),
    "union of everything": lambda: union_all(select(P.email), select(P.email)),
    "count": lambda: select(P.name, func.count(P.email)).group_by(P.name).order_by(func.count(P.email)),
    "null": lambda: select(P).where(P.note.is_(None), P.email.is_not(None)).order_by(P.id),
    "exists": lambda: select(exists(select(P.email))),
    "not exists": lambda: select(P).where(~exists(select(A.email).where(A.id > P.id))),
    "subquery": lambda: select(P.id, select(A.email).where(A.id == P.id).scalar_subquery()),
    "loading": lambda: select(P).options(selectinload(P.letters)).order_by(P.id),
    "loading by a subquery": lambda: select(P).options(subqueryload(P.letters)).order_by(P.id),
    "join": lambda: select(P).join(Letter, P.letters),
    "bytes": lambda: select(func.length(type_coerce(P.email, LargeBinary))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_work_on_ciphertext_is_refused_each_time(app: Application, name: str) -> None:
    for _ in range(2):
        with (
            app.session() as session,
            pytest.raises(InvalidInputError, match=r"^field people\.email is (encrypted, and|compared with plain)"),
        ):
            session.execute(REFUSED[name]()).all()


@pytest.mark.parametrize("name", ALLOWED)
def test_what_leaves_the_ciphertext_alone_works(any_app: Application, name: str) -> None:
    with any_app.session() as session:
        session.add(Person(name="Ada", email="ada@example.org"))
        session.flush()
        session.execute(ALLOWED[name]()).unique().all()


def test_the_cure_is_named(app: Application) -> None:
    for name, cure in {
        "order": "sort the loaded values",
        "group": "group the loaded",
        "function": "type_coerce",
    }.items():
        with app.session() as session, pytest.raises(InvalidInputError, match=cure):
            session.execute(REFUSED[name]())


def test_a_column_is_found_in_a_dictionary_by_its_annotated_form() -> None:
    assert {TABLE.c.email: 1}[P.email.__clause_element__()] == 1


def test_a_column_is_found_in_a_list_and_another_one_is_not() -> None:
    assert TABLE.c.email in [TABLE.c.note, TABLE.c.email]
    assert TABLE.c.email not in [TABLE.c.note, TABLE.c.name]
