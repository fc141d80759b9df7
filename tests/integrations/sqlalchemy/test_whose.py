"""No statement writes a ciphertext into a row that it does not open in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, LargeBinary, bindparam, create_engine, event, insert, literal, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from keystead import blocking
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.integrations.sqlalchemy import Encrypted, bind, encrypted, sealed_rows, sealed_updates
from tests.integrations.sqlalchemy.conftest import Application
from tests.integrations.sqlalchemy.models import Base, Letter, Order, Person

LETTERS: Any = Letter.__table__


class Own(DeclarativeBase):
    pass


class Paper(Own):
    """Of a record with another name in Python, and a tenant; a listener may change either."""

    __tablename__ = "papers"

    key: Mapped[UUID] = mapped_column("id", primary_key=True, default=uuid4)
    org: Mapped[str]
    title: Mapped[str] = mapped_column(default="")
    body: Mapped[str] = encrypted(tenant="org")
    pin: Mapped[Encrypted[str] | None] = encrypted(tenant="org")


PAPERS: Any = Paper.__table__


class Interference:
    """What a listener of the application does to an object in the flush."""

    def __init__(self) -> None:
        self.act: Callable[[Any], None] = lambda paper: None

    def __call__(self, mapper: object, connection: object, target: object) -> None:
        self.act(target)


@pytest.fixture(params=[False, True], ids=["late", "early"])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[Interference, bool]]:
    """A listener that comes after the sealing, or before it."""
    made = Interference()
    for name in ("before_insert", "before_update"):
        event.listen(Paper, name, made, insert=request.param)
    yield made, request.param
    for name in ("before_insert", "before_update"):
        event.remove(Paper, name, made)


@pytest.fixture
def papers(engine: Engine, km: blocking.KeyManager) -> Engine:
    """A database of papers, bound."""
    Own.metadata.create_all(engine)
    bind(engine, km, Own)
    return engine


def change_org(paper: Paper) -> None:
    paper.org = "umbra"


def change_key(paper: Paper) -> None:
    paper.key = UUID(int=7)


@pytest.mark.parametrize("change", [change_org, change_key])
def test_a_listener_moves_no_row_away_from_what_was_sealed_for_it(
    papers: Engine, listener: tuple[Interference, bool], change: Callable[[Any], None]
) -> None:
    interference, is_early = listener
    interference.act = change
    with Session(papers) as session:
        session.add(Paper(org="acme", body="secret"))
        if is_early:
            session.commit()
            assert session.scalars(select(Paper)).one().body == "secret"
            return
        with pytest.raises(InvalidInputError, match=r"sealed for another row .*event\.listen\(\.\.\., insert=True\)"):
            session.flush()
        session.rollback()
        assert session.execute(text("SELECT count(*) FROM papers")).scalar() == 0


@pytest.mark.parametrize("change", [change_org, change_key])
@pytest.mark.parametrize("is_written", [True, False])
def test_a_listener_moves_no_row_that_is_updated(
    papers: Engine, listener: tuple[Interference, bool], change: Callable[[Any], None], is_written: bool
) -> None:
    interference, is_early = listener
    with Session(papers) as session:
        session.add(paper := Paper(org="acme", body="secret"))
        session.commit()
        interference.act = change
        if is_written:
            paper.body = paper.pin = "other"  # type: ignore[assignment]  # a plain value is assigned as ever
        else:
            paper.title = "a"
        if is_early:
            session.commit()
            assert session.scalars(select(Paper)).one().body == ("other" if is_written else "secret")
            return
        with pytest.raises(InvalidInputError, match=r"another row|changes alone"):
            session.flush()
        session.rollback()
        interference.act = lambda paper: None
        assert session.scalars(select(Paper)).one().body == "secret"


@pytest.mark.parametrize("is_read", [True, False])
def test_a_tenant_that_is_assigned_to_an_expired_object_is_sealed_for(papers: Engine, is_read: bool) -> None:
    with Session(papers) as session:
        session.add(paper := Paper(org="acme", body="secret"))
        session.commit()
        paper.org = "umbra"
        if is_read:
            assert paper.body == "secret"
        session.commit()
        box, key = session.execute(select(PAPERS.c.body, PAPERS.c.id)).one()
        assert box.decrypt(record=key, tenant="umbra") == paper.body == "secret"


Write = Callable[[Session, Any, Any], Any]
TAKEN: dict[str, Write] = {
    "update": lambda s, a, b: s.execute(update(Paper).where(Paper.key == b.key).values(pin=a.pin)),
    "update of all": lambda s, a, b: s.execute(update(Paper).values(pin=a.pin)),
    "update of many": lambda s, a, b: s.execute(update(Paper), [{"key": b.key, "pin": a.pin}]),
    "table's update": lambda s, a, b: s.execute(update(PAPERS).where(PAPERS.c.id == b.key).values(pin=a.pin)),
    "insert": lambda s, a, b: s.execute(insert(Paper).values(org="acme", pin=a.pin)),
    "insert of several": lambda s, a, b: s.execute(insert(Paper).values([{"org": "acme", "pin": a.pin}])),
    "insert of many": lambda s, a, b: s.execute(insert(Paper), [{"org": "acme", "pin": a.pin}] * 2),
    "a box that was selected": lambda s, a, b: s.execute(
        update(PAPERS).values(body=s.execute(select(PAPERS.c.body)).scalars().first())
    ),
    "bulk_update_mappings": lambda s, a, b: s.bulk_update_mappings(Paper.__mapper__, [{"key": b.key, "pin": a.pin}]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_value_out_of_a_row_is_not_written_by_a_statement(papers: Engine, name: str) -> None:
    with Session(papers) as session:
        session.add_all([one := Paper(org="acme", body="1", pin="1"), two := Paper(org="acme", body="2", pin="2")])
        session.commit()
        with pytest.raises(InvalidInputError, match="takes no value out of a row"):
            TAKEN[name](session, one, two)
        session.rollback()
        assert [two.body, two.pin and two.pin.decrypt()] == ["2", "2"]


def sealed(engine: Engine, paper: Paper) -> dict[str, Any]:
    """Return a row of an UPDATE, sealed for an object's row."""
    [row] = sealed_updates(engine, Paper, [{"key": paper.key, "org": paper.org, "body": "new", "pin": None}])
    return row


PREPARED: dict[str, tuple[Write, str]] = {
    "update of another": (
        lambda s, row, b: s.execute(
            update(PAPERS).where(PAPERS.c.id == b.key, PAPERS.c.org == "acme").values(body=row["body"])
        ),
        "another row",
    ),
    "update of another tenant": (
        lambda s, row, b: s.execute(
            update(Paper).where(Paper.key == row["key"]).where(Paper.org == "umbra").values(body=row["body"])
        ),
        "another row",
    ),
    "update of all": (
        lambda s, row, b: s.execute(update(Paper).values(body=row["body"])),
        "does not name: give id, org",
    ),
    "update of no tenant": (
        lambda s, row, b: s.execute(update(Paper).where(Paper.key == row["key"]).values(body=row["body"])),
        "does not name",
    ),
    "update of a range": (
        lambda s, row, b: s.execute(
            update(Paper).where(Paper.key >= row["key"], Paper.org == "acme").values(body=row["body"])
        ),
        "does not name",
    ),
    "update of either": (
        lambda s, row, b: s.execute(
            update(Paper)
            .where((Paper.key == row["key"]) | (Paper.key == b.key), Paper.org == "acme")
            .values(body=row["body"])
        ),
        "does not name",
    ),
    "update of many": (lambda s, row, b: s.execute(update(Paper), [{**row, "key": b.key}]), "another row"),
    "update of many that move": (lambda s, row, b: s.execute(update(Paper), [{**row, "org": "umbra"}]), "another row"),
    "update by parameters": (
        lambda s, row, b: s.execute(
            update(PAPERS)
            .where(PAPERS.c.id == bindparam("k"), bindparam("o") == PAPERS.c.org)
            .values(body=bindparam("b")),
            [{"k": row["key"], "o": "acme", "b": row["body"]}, {"k": b.key, "o": "acme", "b": row["body"]}],
        ),
        "another row",
    ),
}


@pytest.mark.parametrize("name", PREPARED)
def test_a_row_that_was_sealed_for_an_update_goes_into_its_own_row_alone(papers: Engine, name: str) -> None:
    write, trouble = PREPARED[name]
    with Session(papers) as session:
        session.add_all([one := Paper(org="acme", body="1"), two := Paper(org="acme", body="2")])
        session.commit()
        with pytest.raises(InvalidInputError, match=trouble):
            write(session, sealed(papers, one), two)
        session.rollback()
        assert [one.body, two.body] == ["1", "2"]


OF_ITS_ROW: dict[str, Write] = {
    "update": lambda s, row, b: s.execute(
        update(Paper).where(Paper.key == row["key"], Paper.org == "acme").values(body=row["body"])
    ),
    "update of many": lambda s, row, b: s.execute(update(Paper), [row]),
    "update by parameters": lambda s, row, b: s.execute(
        update(PAPERS).where(PAPERS.c.id == bindparam("k"), bindparam("o") == PAPERS.c.org).values(body=bindparam("b")),
        [{"k": row["key"], "o": "acme", "b": row["body"]}],
    ),
}


@pytest.mark.parametrize("name", OF_ITS_ROW)
def test_a_statement_that_names_the_row_writes_what_was_sealed_for_it(papers: Engine, name: str) -> None:
    with Session(papers) as session:
        session.add_all([one := Paper(org="acme", body="1"), two := Paper(org="acme", body="2")])
        session.commit()
        OF_ITS_ROW[name](session, sealed(papers, one), two)
        session.expire_all()
        assert [one.body, two.body] == ["new", "2"]


@pytest.mark.parametrize("how", ["auto", "evaluate", "fetch", "of many"])
def test_a_loaded_object_shows_the_value_and_not_the_ciphertext_that_a_statement_wrote(
    papers: Engine, how: Any
) -> None:
    with Session(papers) as session:
        session.add(paper := Paper(org="acme", body="1", pin="1"))
        session.commit()
        assert paper.body == "1"
        [row] = sealed_updates(papers, Paper, [{"key": paper.key, "org": "acme", "body": "2", "pin": "2"}])
        if how == "of many":
            session.execute(update(Paper), [row])
        else:
            session.execute(
                update(Paper)
                .where(Paper.key == row["key"], Paper.org == "acme")
                .values(body=row["body"], pin=bytes(row["pin"])),
                execution_options={"synchronize_session": how},
            )
        assert [paper.body, paper.pin and paper.pin.decrypt()] == ["2", "2"]
        paper.org = "umbra"
        session.commit()
        assert [paper.body, paper.pin and paper.pin.decrypt()] == ["2", "2"]


@pytest.mark.parametrize("changed", [{"key": uuid4()}, {"org": "umbra"}, {"key": None}, {}])
def test_a_row_that_was_sealed_for_an_insert_keeps_its_record_and_tenant(
    papers: Engine, changed: dict[str, Any]
) -> None:
    [row] = sealed_rows(papers, Paper, [{"org": "acme", "body": "secret"}])
    for statement, rows in (
        (insert(Paper).values([{**row, **changed}]), None),
        (insert(Paper).values(**{**row, **changed}), None),
        (insert(Paper), [{**row, **changed}]),
    ):
        with Session(papers) as session:
            if not changed:
                session.execute(statement, rows)
                assert session.scalars(select(Paper)).one().body == "secret"
                continue
            with pytest.raises(InvalidInputError, match=r"another row|does not name"):
                session.execute(statement, rows)


def test_a_record_of_several_columns_is_compared_by_each(app: Application) -> None:
    with app.session() as session:
        session.add_all([Order(shop="s", number=1, remark="1"), Order(shop="s", number=2, remark="2")])
        session.commit()
        [row] = sealed_updates(app.engine, Order, [{"shop": "s", "number": 1, "remark": "x"}])
        with pytest.raises(InvalidInputError, match="another row"):
            session.execute(update(Order), [{**row, "number": 2}])
        session.execute(update(Order), [row])
        session.expire_all()
        assert session.get_one(Order, ("s", 1)).remark == "x"


NESTED: dict[str, Callable[[], Any]] = {
    "update": lambda: update(LETTERS).values(content=literal(b"secret", LargeBinary)),
    "update of a record": lambda: update(LETTERS).values(id=uuid4()),
    "update of a hash": lambda: update(LETTERS).values(content_exact_1=b"secret"),
    "insert": lambda: insert(LETTERS).values(id=uuid4(), mood=None, content=literal(b"secret", LargeBinary)),
    "insert from a select": lambda: insert(LETTERS).from_select(
        ["id", "content"], select(literal(uuid4()), literal(b"secret", LargeBinary)), include_defaults=False
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_no_statement_within_another_writes_an_encrypted_column(app: Application, name: str) -> None:
    inner = NESTED[name]().returning(LETTERS.c.mood).cte()
    with app.session() as session:
        for statement in (
            select(inner),
            insert(PAPERS).values(id=uuid4(), org="o").add_cte(inner),
            update(Person).values(name=select(inner.c.mood).scalar_subquery()),
        ):
            with pytest.raises(InvalidInputError, match=r"by a statement within another|changes alone"):
                session.execute(statement)


def test_a_statement_within_another_may_write_what_is_not_encrypted(postgres_url: str, km: blocking.KeyManager) -> None:
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    Own.metadata.create_all(engine)
    bind(engine, km, Own)
    with Session(engine) as session:
        session.add(Paper(org="acme", body="secret"))
        session.commit()
        inner = update(PAPERS).values(title="b").returning(PAPERS.c.title).cte()
        assert session.scalars(select(inner.c.title)).all() == ["b"]
    engine.dispose()


def test_a_table_under_another_name_takes_no_expression(app: Application) -> None:
    with app.session() as session:
        for target in (LETTERS.alias("l"), aliased(Letter)):
            for value in (literal(b"secret", LargeBinary), b"secret"):
                with pytest.raises(InvalidInputError, match="sealed_rows"):
                    session.execute(update(target).values(content=value))
        joined = LETTERS.join(Person.__table__)
        with pytest.raises(InvalidInputError, match="sealed_rows"):
            session.execute(update(joined).values({LETTERS.c.content: literal(b"secret", LargeBinary)}))


@pytest.fixture
def unbound() -> Iterator[Engine]:
    """An engine that nobody gave keys."""
    made = create_engine("sqlite://")
    Base.metadata.create_all(made)
    yield made
    made.dispose()


def test_an_expression_is_refused_by_every_engine(app: Application, unbound: Engine) -> None:
    for engine in (app.engine, app.engine.execution_options(logging_token="x"), unbound):
        with engine.connect() as connection, pytest.raises(InvalidInputError, match="not an SQL expression"):
            connection.execute(update(LETTERS).values(content=literal(b"secret", LargeBinary)))


def test_binding_a_derived_engine_guards_the_one_that_it_is_derived_from(
    fresh: Application, km: blocking.KeyManager
) -> None:
    engine = create_engine(fresh.engine.url)
    bind(engine.execution_options(logging_token="x").execution_options(logging_token="y"), fresh.km, Letter)
    with Session(engine) as session:
        session.add(Letter(body=b"x"))
        session.flush()
        fresh.km.rotate_index_key()
        fresh.km.run_due()
        with pytest.raises(Exception, match="became live during the transaction"):
            session.commit()
    engine.dispose()


def test_what_was_sealed_is_not_inserted_by_an_engine_without_keys(app: Application, unbound: Engine) -> None:
    [row] = sealed_rows(app.engine, Letter, [{"body": b"x"}])
    for content in (row["body"], bytes(row["body"]), bytearray(row["body"])):
        with unbound.connect() as connection, pytest.raises(ConfigurationError, match="has no keys"):
            connection.execute(insert(LETTERS), {"id": row["id"], "content": content, "content_exact_1": b"x"})
    with Session(unbound) as session:
        session.execute(update(Person).values(name="x"))
