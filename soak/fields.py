"""Re-encryption of a table that many writers go on editing, killed again and again."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from keystead.errors import KMSError
from keystead.fields import Field, ReencryptReport, reencrypt, reencryptions, worker
from keystead.ports.rows import RowChange, RowKey
from keystead.stores import rows
from keystead.stores.engines import sync_engine
from keystead.stores.rows import RowTable
from keystead.stores.urls import parse_url
from soak.figures import Figure, Figures, Setting
from soak.harness import Child, fork, in_child, results, wait_for
from soak.places import POSTGRESQL, Databases, Place

TIMEOUT_S: Final = 12 * 3600.0
FILL_ROWS: Final = 50_000
EMAIL: Final = Field("people", "email")
_EDIT: Final = text("UPDATE people SET email = :blob, touched = :turn WHERE id = :number")
_BYTES: Final = {True: "BYTEA", False: "BLOB"}


class Fields:
    """See the module."""

    name = "fields"
    claim = (
        "Rows that writers edit while they are re-encrypted, and while the re-encryption is killed again and again, "
        "keep every edit and stay readable; a restart does at most one batch again, and a second run writes nothing."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Do it on each database, side by side."""
        lanes = [fork(_lane, setting, kind) for kind in setting.databases.kinds]
        return [figure for lane in results(lanes, TIMEOUT_S) for figure in lane]


def _lane(setting: Setting, kind: str) -> list[Figure]:
    rows = setting.choose(short=10_000, full=10_000_000)
    wanted = setting.choose(short=4, full=100)
    batch_rows = setting.choose(short=100, full=1000)
    longest_s = setting.choose(short=0.6, full=6.0)
    writers = setting.choose(short=8, full=50)
    place, app = _application(setting.databases, kind, setting.folder / f"fields {kind}".lower().replace(" ", "-"))
    fork(_fill, place, app, rows).result(TIMEOUT_S)
    stop = place.folder / "stop"
    editing = fork(_edit, place, app, rows, writers, stop=stop, pause_s=setting.choose(short=0.01, full=0.05))
    kills = most_again = finished = 0
    draw = random.Random(1)
    in_child(_rotate, place)
    started = time.monotonic()
    while kills < wanted:
        log = place.folder / f"batches-{kills}-{finished}"
        child = fork(_reencrypt, place, app, batch_rows, log)
        wait_for(partial(_has_begun, log, child), 120, "the first batch")
        time.sleep(draw.uniform(0.0, longest_s))
        child.kill()
        # One that had ended by itself has done the whole table: there is more to do under another key.
        if not child.was_killed():
            finished += 1
            in_child(_rotate, place)
            continue
        kills += 1
        most_again = max(most_again, in_child(_unrecorded, place, app, log))
    last = fork(_reencrypt, place, app, batch_rows, place.folder / "batches-last").result(TIMEOUT_S)
    seconds = time.monotonic() - started
    stop.touch()
    edits = editing.result(TIMEOUT_S)
    # What a writer wrote under the key of before, because it had not heard of the new one, is brought over now.
    fork(_reencrypt, place, app, batch_rows, place.folder / "batches-after").result(TIMEOUT_S)
    second = fork(_reencrypt, place, app, batch_rows, place.folder / "batches-second").result(TIMEOUT_S)
    lost, unreadable, touched = fork(_check, place, app, edits).result(TIMEOUT_S)
    figures = Figures()
    figures.tell(kind, "rows, edited meanwhile by so many writers", f"{rows:,} / {writers}".replace(",", " "))
    figures.tell(kind, "edits while it ran", sum(turn for turn in edits.values()))
    figures.equal(kind, "kills survived", kills, wanted)
    figures.equal(kind, "lost updates", lost, 0)
    figures.equal(kind, "unreadable rows", unreadable, 0)
    figures.equal(kind, "rows whose time stamp was touched", touched, 0)
    figures.equal(kind, "rows that failed", last.failed, 0)
    figures.at_most(kind, "rows done again after a kill, of a batch", most_again, batch_rows)
    figures.equal(kind, "rows that a second run wrote", second.rewritten, 0)
    figures.tell(kind, "seconds", seconds)
    place.drop()
    return figures.rows


def _has_begun(log: Path, child: Child[ReencryptReport]) -> bool:
    """Return whether a re-encryption has committed a batch, or has ended without one."""
    return log.exists() or not child.is_running()


def _application(databases: Databases, kind: str, folder: Path) -> tuple[Place, str]:
    """Return a store, and the URL of the application's database beside it."""
    place = databases.place(kind, folder)
    return place, place.url if kind == POSTGRESQL else f"sqlite:///{folder / 'app.db'}"


def _value(number: int, turn: int) -> str:
    return f"row {number}, turn {turn}, " + "x" * 30


def _fill(place: Place, app: str, rows: int) -> None:
    if place.kind != POSTGRESQL:
        (place.folder / "app.db").touch()

    async def main() -> None:
        async with place.manager() as km:
            cipher = km.field(EMAIL)
            with sync_engine(parse_url(app)).connect() as connection:
                if place.kind != POSTGRESQL:
                    connection.connection.cursor().execute("PRAGMA journal_mode = WAL")
                columns = f"id BIGINT PRIMARY KEY, email {_BYTES[place.kind == POSTGRESQL]}, touched BIGINT"
                connection.execute(text(f"CREATE TABLE people ({columns})"))
                connection.commit()
                for start in range(0, rows, FILL_ROWS):
                    numbers = range(start, min(start + FILL_ROWS, rows))
                    sealed = cipher.encrypt_many((_value(number, 0), number) for number in numbers)
                    _insert(connection, [(n, blob) for n, blob in zip(numbers, sealed, strict=True)])

    asyncio.run(main())


def _insert(connection: Connection, rows: Sequence[tuple[int, bytes | None]]) -> None:
    connection.execute(
        text("INSERT INTO people VALUES (:number, :blob, 0)"), [{"number": n, "blob": blob} for n, blob in rows]
    )
    connection.commit()


def _rotate(place: Place) -> None:
    async def main() -> None:
        async with place.manager() as km:
            await km.rotate_data_key(promote="now")

    asyncio.run(main())


def _edit(place: Place, app: str, rows: int, writers: int, *, stop: Path, pause_s: float) -> dict[int, int]:
    """Edit rows until ``stop`` is there, each writer its own; return how often each was edited."""
    turns: list[dict[int, int]] = [{} for _ in range(writers)]

    async def main() -> None:
        async with place.manager(background=True, epoch_max_age_s=1.0) as km:
            cipher = km.field(EMAIL)

            def write(mine: int) -> None:
                draw, done = random.Random(mine), turns[mine]
                with sync_engine(parse_url(app)).connect() as connection:
                    while not stop.exists():
                        number = draw.randrange(mine, rows, writers)
                        turn = done.get(number, 0) + 1
                        blob = cipher.encrypt(_value(number, turn), record=number)
                        change = {"blob": blob, "turn": turn, "number": number}
                        try:
                            connection.execute(_EDIT, change)
                            connection.commit()
                        except OperationalError as exc:
                            # So many writers keep SQLite's one lock so busy that its waiting, which is not in turn,
                            # leaves one out for long. It was not told that its edit is kept, and goes on.
                            if "database is locked" not in str(exc):
                                raise
                            connection.rollback()
                        else:
                            done[number] = turn
                        time.sleep(draw.uniform(0.0, 2 * pause_s))

            with ThreadPoolExecutor(writers) as pool:
                loop = asyncio.get_running_loop()
                await asyncio.gather(*(loop.run_in_executor(pool, write, mine) for mine in range(writers)))

    asyncio.run(main())
    return {number: turn for mine in turns for number, turn in mine.items()}


class _LoggedTable(RowTable):
    """Writes down the last key of each batch once it is committed."""

    log: Path
    _lock = threading.Lock()

    def swap(
        self, changes: Sequence[RowChange], *, before_commit: Callable[[], object] | None = None, wait: bool = False
    ) -> set[RowKey]:
        """Write, and write down."""
        written = super().swap(changes, before_commit=before_commit, wait=wait)
        if changes:
            with self._lock, self.log.open("a") as file:
                file.write(f"{changes[-1].key[0]}\n")
        return written


def _reencrypt(place: Place, app: str, batch_rows: int, log: Path) -> ReencryptReport:
    """Re-encrypt to the end, unless killed before."""
    _LoggedTable.log = log
    vars(rows)["RowTable"] = _LoggedTable
    # A killed worker's chunk is free soon, or each restart would wait for it at the end.
    vars(worker)["LEASE_MS"] = 2000

    async def main() -> ReencryptReport:
        async with place.manager() as km:
            return await reencrypt(km, app, EMAIL, batch_rows=batch_rows)

    return asyncio.run(main())


def _unrecorded(place: Place, app: str, log: Path) -> int:
    """Return how many rows a killed process had committed without the store knowing."""
    ends = [int(line) for line in log.read_text().split()] if log.exists() else []

    async def main() -> list[tuple[int, int | None]]:
        async with place.manager() as km:
            job = (await reencryptions(km, EMAIL.id))[-1]
            async with (await km.session()).surroundings.store.reading() as work:
                return [_bounds(chunk) for chunk in await work.chunks(job.id) if not chunk.done]

    unfinished = asyncio.run(main())
    if not ends:
        return 0
    behind = [cursor for cursor, high in unfinished if cursor < ends[-1] and (high is None or ends[-1] <= high)]
    if not behind:
        return 0
    with sync_engine(parse_url(app)).connect() as connection:
        query = text("SELECT count(*) FROM people WHERE id > :low AND id <= :high")
        return int(connection.execute(query, {"low": max(behind), "high": ends[-1]}).scalar_one())


def _bounds(chunk: Any) -> tuple[int, int | None]:
    def number(key: str | None) -> int | None:
        return None if key is None else int(key.strip("[]"))

    low = number(chunk.cursor or chunk.low)
    return -1 if low is None else low, number(chunk.high)


def _check(place: Place, app: str, edits: dict[int, int]) -> tuple[int, int, int]:
    """Return how many updates were lost, how many rows cannot be read, and how many stamps are not the writer's."""

    async def main() -> tuple[int, int, int]:
        lost = unreadable = touched = 0
        async with place.manager() as km:
            cipher = km.field(EMAIL)
            for number, blob, stamp in _rows(app):
                turn = edits.get(number, 0)
                touched += stamp != turn
                try:
                    lost += cipher.decrypt(blob, record=number) != _value(number, turn)
                except KMSError:
                    unreadable += 1
        return lost, unreadable, touched

    return asyncio.run(main())


def _rows(app: str) -> Iterator[tuple[int, bytes, int]]:
    with sync_engine(parse_url(app)).connect() as connection:
        last = -1
        while True:
            query = text("SELECT id, email, touched FROM people WHERE id > :last ORDER BY id LIMIT :rows")
            found = connection.execute(query, {"last": last, "rows": FILL_ROWS}).all()
            if not found:
                return
            yield from ((number, blob, stamp) for number, blob, stamp in found)
            last = found[-1][0]
