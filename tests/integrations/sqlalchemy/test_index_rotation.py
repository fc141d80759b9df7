"""Two nodes on one table: searches are right and values unique at each step of a rotation of the index key."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Engine, create_engine, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from keystead import blocking
from keystead.blocking import reencrypt
from keystead.fields import ReencryptProgress
from keystead.integrations.sqlalchemy import Binding, bind
from keystead.runtime.loop import background_loop
from tests.fakes.world import KEY_ID, World, polled
from tests.integrations.sqlalchemy.models import Base, Person
from tests.integrations.sqlalchemy.test_search import plan

FILLED = ["ada", "adam", "bob", "bobby", "cyd", "dan"]


class KilledError(Exception):
    """What ends a job midway."""


def found(session: Session, condition: ColumnElement[bool]) -> list[str]:
    """Return the names of the people whom a search finds."""
    return sorted(session.scalars(select(Person.name).where(condition)))


@dataclass
class Node:
    """One process of the application: its engine and its manager."""

    engine: Engine
    km: blocking.KeyManager
    binding: Binding

    def add(self, name: str) -> None:
        """Insert a person."""
        with Session(self.engine) as session:
            session.add(Person(name=name, email=f"{name}@example.org", note=f"word{name} tea"))
            session.commit()

    def poll(self) -> None:
        """Learn what happened in the store."""
        background_loop.run(polled(self.km._manager))

    def versions(self) -> tuple[int, ...]:
        """Return the index versions that it writes and looks for."""
        return self.binding.cipher(Person.email).index_versions


@dataclass
class Installation:
    """Two nodes, the URL of their database, and the names of the people in it."""

    url: str
    nodes: list[Node]
    names: list[str] = field(default_factory=list)

    def reencrypt(self, *columns: Any, killed_after: int | None = None) -> bool:
        """Run the job over fields, from the second node; return whether it ended a rotation."""

        def watch(progress: ReencryptProgress) -> None:
            if killed_after is not None and progress.read >= killed_after:
                raise KilledError

        second, ended = self.nodes[1], False
        for column in columns or (Person.email, Person.note):
            report = reencrypt(
                second.km, self.url, second.binding.cipher(column).field, batch_rows=2, on_progress=watch
            )
            assert report.failed == 0
            ended = ended or report.finished_rotation
        return ended

    def killed(self) -> None:
        """Begin the backfill of both fields, and end it with some rows filled."""
        for column in (Person.email, Person.note):
            with pytest.raises(KilledError):
                self.reencrypt(column, killed_after=3)

    def add(self, step: str) -> None:
        """Insert a person from each node, and one from both at once."""
        for number, node in enumerate(self.nodes):
            name = f"{step}{number}"
            node.add(name)
            self.names.append(name)
        outcomes: list[str] = []
        together = threading.Barrier(2)

        def insert(node: Node) -> None:
            together.wait()
            try:
                node.add(f"{step}both")
                outcomes.append("won")
            except IntegrityError:
                outcomes.append("lost")

        threads = [threading.Thread(target=insert, args=(node,)) for node in self.nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["lost", "won"]
        self.names.append(f"{step}both")

    def check(self) -> None:
        """See that both nodes find all and only the right people, and refuse each address that there is."""
        for node in self.nodes:
            for name in (self.names[0], self.names[-1]):
                with pytest.raises(IntegrityError):
                    node.add(name)
            with Session(node.engine) as session:
                for name in self.names:
                    address = f"{name}@example.org"
                    assert found(session, Person.email == address) == [name]
                    assert found(session, Person.email.matches_normalised(address.upper())) == [name]
                    assert found(session, Person.note.has_token(f"WORD{name}")) == [name]
                for start in {name[:3] for name in self.names}:
                    expected = sorted(name for name in self.names if name.startswith(start))
                    assert found(session, Person.email.starts_with(start)) == expected
                assert found(session, Person.note.has_token("tea")) == sorted(self.names)
                assert found(session, Person.email == "nobody@example.org") == []
                assert sorted(each.email for each in session.scalars(select(Person))) == sorted(
                    f"{name}@example.org" for name in self.names
                )
            for condition, index in {
                Person.email == "ada@example.org": "ix_people_email_exact_",
                Person.email.matches_normalised("ada@example.org"): "ix_people_email_like_email_",
                Person.email.starts_with("ada"): "ix_people_email_prefix3_",
                Person.note.has_token("tea"): "people_note_tokens",
            }.items():
                answer = plan(node.engine, condition)
                assert index in answer
                assert "SCAN" not in answer
                assert "Seq Scan" not in answer

    def columns(self) -> tuple[int, int]:
        """Return how many rows have a hash in each column of the exact index."""
        with self.nodes[0].engine.connect() as connection:
            found = connection.execute(text("SELECT count(email_exact_0), count(email_exact_1) FROM people")).one()
        return found[0], found[1]


@pytest.fixture(params=["sqlite", "postgresql"])
def installed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """Two nodes on each database, with some people."""
    monkeypatch.setattr(sys.modules["keystead.fields.reencrypt"], "READY_WITHIN_S", 0.0)
    url = f"sqlite:///{tmp_path}/app.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    engine_url = make_url(url)
    if request.param == "postgresql":
        engine_url = engine_url.set(drivername="postgresql+psycopg")
    world = World()
    made: Installation = Installation(url, [])
    for _ in range(2):
        engine = create_engine(engine_url)
        Base.metadata.create_all(engine)
        km = blocking.KeyManager(
            {"cloud": world.kms}, default_key_id=KEY_ID, store=world.store, clock=world.clock, background=False
        )
        km.initialize()
        made.nodes.append(Node(engine, km, bind(engine, km, Person)))
    for name in FILLED:
        made.nodes[0].add(name)
        made.names.append(name)
    yield made
    for node in made.nodes:
        node.engine.dispose()
        node.km.close()


def test_searches_and_uniqueness_hold_at_each_step_of_a_rotation(installed: Installation) -> None:
    first, second = installed.nodes
    second.poll()

    def rotate_data_keys() -> None:
        first.km.keyring("people").rotate(promote="now")
        first.km.rotate_data_key(promote="now")

    def end() -> None:
        assert installed.reencrypt()

    def clear() -> None:
        installed.reencrypt()
        assert installed.columns() == (len(installed.names), 0)

    steps: dict[str, tuple[Callable[[], object], tuple[tuple[int, ...], tuple[int, ...]]]] = {
        "before": (lambda: None, ((1,), (1,))),
        "begun": (first.km.rotate_index_key, ((1, 2), (1,))),
        "heard": (second.poll, ((1, 2), (1, 2))),
        "said": (first.poll, ((1, 2), (1, 2))),
        "killed": (installed.killed, ((1, 2), (1, 2))),
        "keyed": (rotate_data_keys, ((1, 2), (1, 2))),
        "filled": (end, ((1, 2), (2,))),
        "polled": (first.poll, ((2,), (2,))),
        "cleared": (clear, ((2,), (2,))),
    }
    for step, (action, versions) in steps.items():
        action()
        assert (first.versions(), second.versions()) == versions, step
        installed.check()
        installed.add(step)
        installed.check()
    assert installed.columns() == (len(installed.names), 0)


def test_a_second_rotation_finds_the_other_columns_empty(installed: Installation) -> None:
    first, second = installed.nodes
    for versions in ((2,), (3,)):
        first.km.rotate_index_key()
        first.poll()
        second.poll()
        assert installed.reencrypt()
        first.poll()
        installed.add(f"turn{versions[0]}")
        installed.check()
        assert first.versions() == second.versions() == versions
