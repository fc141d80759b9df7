"""No plain value of an encrypted column is in the database's files, in a log, in an error or in a cache key."""

from __future__ import annotations

import logging
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from keystead import blocking
from keystead.errors import InvalidInputError
from keystead.testing import FakeKMS
from tests.integrations.sqlalchemy.conftest import started
from tests.integrations.sqlalchemy.models import Letter, Member, Person

CANARY = "xylophone"


def test_a_plain_value_is_seen_nowhere(
    tmp_path: Path, km: blocking.KeyManager, kms: FakeKMS, caplog: pytest.LogCaptureFixture
) -> None:
    app = started(create_engine(f"sqlite:///{tmp_path}/app.db", echo="debug"), km, kms)
    said: list[str] = []
    with caplog.at_level(logging.DEBUG), app.session() as session:
        session.add(Person(email=f"{CANARY}@example.org", note=f"{CANARY} {CANARY}", profile={CANARY: CANARY}))
        session.add(Letter(body=CANARY.encode(), mood=CANARY))
        session.add(Member(number="m1", org_id=1, email=f"{CANARY}@example.org"))
        session.commit()
        for condition in (
            Person.email == f"{CANARY}@example.org",
            Person.email.in_([CANARY]),
            Person.note.has_token(CANARY),
        ):
            person = session.scalars(select(Person).where(condition)).first()
        assert CANARY not in repr(person)
        person = session.scalars(select(Person)).one()
        person.note, person.balance = f"{CANARY} again", Decimal(5)  # type: ignore[assignment]
        session.commit()
        for refused in (
            lambda: session.execute(insert(Letter).values(body=CANARY.encode())),
            lambda: session.scalars(select(Person.no_column).where(Person.email == CANARY)),  # type: ignore[attr-defined]
            lambda: session.execute(select(Person).where(Person.email == CANARY).with_for_update().suffix_with("!")),
        ):
            with pytest.raises((InvalidInputError, OperationalError, AttributeError)) as caught:
                refused()
            said += [str(caught.value), repr(caught.value)]
            session.rollback()
        session.add(Person(email=f"{CANARY}@example.org"))
        with pytest.raises(IntegrityError) as lost:
            session.flush()
        said += [str(lost.value), repr(lost.value.params)]
    app.engine.dispose()
    assert "BEGIN" in caplog.text
    assert CANARY not in caplog.text
    assert CANARY not in "".join(said)
    assert CANARY.encode() not in (tmp_path / "app.db").read_bytes()


def test_a_statements_cache_key_holds_no_value() -> None:
    key = (Person.email == CANARY)._generate_cache_key()
    assert key is not None
    assert CANARY not in repr(key.key)
    assert CANARY not in repr(key.bindparams)
