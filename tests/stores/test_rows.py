"""Rows of the application's table: read by key, and written only where nobody else was."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from keystead.errors import ConflictError, ForeignSchemaError, InvalidInputError, StorageOperationError
from keystead.ports.rows import RowChange
from keystead.stores.rows import RowTable
from tests.fields.application import Application

COLUMNS = ("e0", "e1")


@pytest.fixture(params=["sqlite", "postgresql"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Application:
    """A table with nine rows: of each third, one has no ciphertext."""
    if request.param == "postgresql":
        made = Application(request.getfixturevalue("postgres_url"))
    else:
        (tmp_path / "app.db").touch()
        made = Application(f"sqlite:///{tmp_path}/app.db")
    made.run(
        'CREATE TABLE "the ""people%" (id BIGINT PRIMARY KEY, "e mail" BYTES, e0 BYTES UNIQUE, e1 BYTES, plain TEXT)'
    )
    rows = [(n, None if n % 3 == 0 else b"old%d" % n, str(n)) for n in range(1, 10)]
    made.fill('INSERT INTO "the ""people%" VALUES (:a, :b, NULL, NULL, :c)', rows)
    return made


@pytest.fixture
def table(app: Application) -> Iterator[RowTable]:
    """The table's e-mail column."""
    with closing(
        RowTable(app.url, 'the "people%', "e mail", record=("id",), plaintext="plain", indexes=COLUMNS)
    ) as made:
        yield made


def change(number: int, old: bytes | None = None, *, indexes: tuple[bytes | None, ...] | None = None) -> RowChange:
    return RowChange((number,), b"old%d" % number if old is None else old, b"new%d" % number, indexes)


def test_rows_come_by_key_between_two_bounds(table: RowTable) -> None:
    at = table.layout
    assert [row[:1] for row in table.read(None, None, 4)] == [(1,), (2,), (3,), (4,)]
    assert [row[at.ciphertext] for row in table.read((3,), (5,), 10)] == [b"old4", b"old5"]
    assert [row[:1] for row in table.read_keys([(7,), (2,), (99,)])] == [(2,), (7,)]


def test_chunks_are_cut_by_the_number_of_their_rows(table: RowTable) -> None:
    assert table.count() == 9
    assert table.upper_key(None, 4) == (4,)
    assert table.upper_key((4,), 5) == (9,)
    assert table.upper_key((4,), 6) is None
    assert table.versions()[None] == 3
    assert table.count_plaintext() == 3


def test_only_rows_that_are_as_they_were_read_are_written(table: RowTable, app: Application) -> None:
    written = table.swap([change(1), change(2, b"edited"), change(4), change(99)])
    assert written == {(1,), (4,)}
    found = dict(app.rows('SELECT id, "e mail" FROM "the ""people%"'))
    assert [bytes(found[n]) for n in (1, 2, 4)] == [b"new1", b"old2", b"new4"]


def test_indexes_are_written_where_they_are_given(table: RowTable, app: Application) -> None:
    table.swap([change(1, indexes=(b"a", None)), change(2)])
    assert app.rows('SELECT id, e0, e1 FROM "the ""people%" WHERE id < 3 ORDER BY id') == [
        (1, b"a", None),
        (2, None, None),
    ]


def test_a_plaintext_is_emptied_if_it_is_still_the_same(table: RowTable, app: Application) -> None:
    new = [RowChange((n,), None, b"new", guard=guard) for n, guard in ((3, "3"), (6, "another"))]
    assert table.swap(new) == {(3,)}
    assert app.rows('SELECT plain FROM "the ""people%" WHERE id IN (3, 6) ORDER BY id') == [(None,), ("6",)]


def test_a_value_that_is_taken_undoes_the_whole_batch(table: RowTable, app: Application) -> None:
    with pytest.raises(ConflictError):
        table.swap([change(1, indexes=(b"a", None)), change(2, indexes=(b"a", None))])
    assert app.rows('SELECT count(*) FROM "the ""people%" WHERE e0 IS NOT NULL') == [(0,)]
    assert table.swap([change(1)]) == {(1,)}


def test_what_is_raised_before_the_commit_undoes_the_batch(table: RowTable, app: Application) -> None:
    def refuse() -> None:
        raise ForeignSchemaError("no")

    with pytest.raises(ForeignSchemaError):
        table.swap([change(1)], before_commit=refuse)
    assert table.swap([change(1)]) == {(1,)}


def test_a_row_that_somebody_holds_is_left_out_or_waited_for(postgres_url: str) -> None:
    import psycopg

    app = Application(postgres_url)
    app.run("CREATE TABLE t (id BIGINT PRIMARY KEY, c BYTES)", "INSERT INTO t VALUES (1, 'old1'), (2, 'old2')")
    with closing(RowTable(app.url, "t", "c", record=("id",))) as table, psycopg.connect(postgres_url) as holder:
        holder.execute("SELECT * FROM t WHERE id = 1 FOR UPDATE")
        assert table.swap([change(1), change(2)]) == {(2,)}
        threading.Timer(0.1, holder.rollback).start()
        assert table.swap([change(1)], wait=True) == {(1,)}


def test_a_table_in_another_schema_is_found(postgres_url: str) -> None:
    app = Application(postgres_url)
    app.run(
        "CREATE SCHEMA other",
        "CREATE TABLE other.t (id BIGINT PRIMARY KEY, c BYTES)",
        "INSERT INTO other.t VALUES (1, 'old1')",
    )
    with closing(RowTable(app.url, "other.t", "c", record=("id",))) as table:
        assert table.swap([change(1)]) == {(1,)}


def test_a_table_without_a_primary_key_needs_a_key_column(tmp_path: Path) -> None:
    (tmp_path / "app.db").touch()
    app = Application(f"sqlite:///{tmp_path}/app.db")
    app.run("CREATE TABLE t (id BIGINT, c BLOB)")
    with pytest.raises(InvalidInputError, match="key_column"):
        _ = RowTable(app.url, "t", "c").layout
    assert RowTable(app.url, "t", "c", key=("id",)).layout.key == 1


def test_a_database_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageOperationError):
        RowTable(f"sqlite:///{tmp_path}/nowhere.db", "t", "c").count()
    with pytest.raises(InvalidInputError):
        RowTable("memory://", "t", "c")


def test_a_fork_closes_the_handle_and_the_next_use_opens_another(tmp_path: Path) -> None:
    (tmp_path / "app.db").touch()
    app = Application(f"sqlite:///{tmp_path}/app.db")
    app.run("CREATE TABLE t (id BIGINT PRIMARY KEY, c BLOB)", "INSERT INTO t VALUES (1, 'old1')")
    with closing(RowTable(app.url, "t", "c")) as table:
        assert table.count() == 1
        pid = os.fork()
        if not pid:
            os._exit(0 if table.count() == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert table.count() == 1
