"""Columns and files of ``vault:vN:`` texts, moved between keys of this store and of another Transit engine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from keystead.errors import InvalidInputError
from keystead.fields import Field, ReencryptReport
from keystead.fields.job_records import begin_job, end_job
from keystead.fields.places import locate
from keystead.fields.progress import failures_of, is_worked_off, total_of
from keystead.fields.reencrypt import BATCH_ROWS, OnProgress, paced, require_pace, teller, work_off
from keystead.fields.shift import Bridge, Pace, Shift
from keystead.manager import transit_keys
from keystead.manager.manager import KeyManager
from keystead.manager.session import Session
from keystead.manager.transit import TransitEngine, transit
from keystead.ports import FieldRecord, ReencryptionRecord, ReencryptionState
from keystead.ports.rows import ApplicationRows
from keystead.providers.vault.remote import RemoteKey
from keystead.transit.moving import Move, OwnKey, RowMover, moved_lines
from keystead.transit.opened import OpenKey


class Direction(StrEnum):
    """Where ciphertexts go."""

    FROM = "from"
    TO = "to"
    REWRAP = "rewrap"


@dataclass(frozen=True, slots=True)
class MoveWish:
    """What is moved to where.

    Attributes:
        key, tenant: of this store.
        other: the key of the other engine; None where ciphertexts go to the latest version of their own key.
        place: of that key, for telling one move from another; empty without.
        context, associated_data: bound to every ciphertext.
    """

    direction: Direction
    key: str
    tenant: str = ""
    other: RemoteKey | None = None
    place: str = ""
    context: bytes = b""
    associated_data: bytes = b""


@dataclass(frozen=True, slots=True)
class ColumnOfTexts:
    """A column of an application's table.

    Attributes:
        context, associated_data: columns that hold each row's own.
        key: columns by which rows are read; the primary key if none is named.
    """

    url: str
    table: str
    column: str
    context: str | None = None
    associated_data: str | None = None
    key: tuple[str, ...] = ()

    @property
    def by_row(self) -> dict[str, str]:
        """What each row has of its own, and in which column."""
        named = {"context": self.context, "associated_data": self.associated_data}
        return {name: column for name, column in named.items() if column is not None}

    def rows(self) -> ApplicationRows:
        """Return the rows over a connection of their own."""
        from keystead.stores.rows import RowTable  # a database is loaded when it is used

        return RowTable(self.url, self.table, self.column, key=self.key, record=tuple(self.by_row.values()))

    def check(self) -> tuple[str, ...]:
        """Return the columns rows are read by; blocks.

        Raises:
            InvalidInputError: a table or column is missing, or rows cannot be read for sure.
        """
        with contextlib.closing(self.rows()) as table:
            layout = table.layout
            table.require_key()
        if self.column in (*layout.key_columns, *self.by_row.values()):
            raise InvalidInputError(f"column {self.column!r} says which row it is, or what is bound to it")
        return layout.key_columns

    def counted(self) -> int:
        """Return how many rows there are; blocks."""
        with contextlib.closing(self.rows()) as table:
            return table.count()


@dataclass(frozen=True, slots=True)
class _Aim:
    """A job with another one cannot be gone on with."""

    told: Mapping[str, object]

    def to_json(self) -> str:
        return json.dumps(self.told, separators=(",", ":"))


async def move_column(
    km: KeyManager,
    column: ColumnOfTexts,
    wish: MoveWish,
    *,
    batch_rows: int = BATCH_ROWS,
    workers: int = 1,
    rows_per_s: float | None = None,
    dry_run: bool = False,
    resume: bool = True,
    on_progress: OnProgress | None = None,
) -> ReencryptReport:
    """Move every ciphertext of a column while the application goes on using it, and return what was done.

    A row is written only if it still holds the text that was read; it stays a ``vault:vN:`` text. A crash, several
    processes and options are as in ``keystead.fields.reencrypt``, whose jobs these are.

    Raises:
        InvalidInputError: a table, column or option that cannot be, or a key that does not encrypt.
        KeyNotFoundError: no such key.
        StorageOperationError: the database or the store cannot be read or written. The job can be gone on with.
        KMSError: a key or server that cannot be used now; so can it then.
    """
    require_pace(batch_rows, rows_per_s, workers)
    started = time.monotonic()
    session, engine = await km.session(), await transit(km)
    key = await _suited(engine, wish, has_context=column.context is not None)
    columns = await asyncio.to_thread(column.check)
    name = f"transit:{column.table}.{column.column}"
    place = FieldRecord(name, key.record.keyring, None, locate(Field(column.table, column.column), column.url))
    aim = _Aim(_told(wish, column, key, columns))
    job, before = await begin_job(
        session.surroundings, place, aim, column.counted, batch_rows=batch_rows, dry_run=dry_run, resume=resume
    )
    bridge = Bridge()
    own, move = _ends(engine, wish, bridge)
    shift = Shift(
        job=job,
        batch_rows=paced(batch_rows, rows_per_s, workers),
        store=session.surroundings.store,
        bridge=bridge,
        rows=column.rows,
        sealer=lambda table: RowMover(move, table.layout, (*column.by_row,)),
        pace=Pace(rows_per_s),
        told=teller(job, before, {**before, "imported": 0}, started, on_progress),
    )
    try:
        await work_off(shift, session, workers)
    finally:
        await _note(engine, key, own)
    return await _ended(session, job, started)


async def move_lines(km: KeyManager, lines: Iterable[bytes], wish: MoveWish) -> Iterator[tuple[bytes, int]]:
    """Return lines with every ``vault:vN:`` text in them moved, each with how many were.

    They are read here, and not before they are asked for; ask in a thread, where the loop goes on.

    Raises:
        KeyNotFoundError: no such key.
        InvalidInputError: a key that does not encrypt; later, a text that cannot be moved.
        KMSError: a key or server that cannot be used now.
    """
    engine = await transit(km)
    await _suited(engine, wish, has_context=False)
    _, move = _ends(engine, wish, Bridge())
    return moved_lines(move, iter(lines))


def _ends(engine: TransitEngine, wish: MoveWish, bridge: Bridge) -> tuple[OwnKey, Move]:
    def look(again: bool) -> OpenKey:
        find = engine.keys.look_again if again else engine.keys.open
        return bridge.ask(find(wish.tenant, wish.key))

    own = OwnKey(look, has_all=wish.other is None)
    other = wish.other or own
    source, target = (own, other) if wish.direction is Direction.TO else (other, own)
    return own, Move(source, target, wish.context, wish.associated_data)


async def _suited(engine: TransitEngine, wish: MoveWish, *, has_context: bool) -> OpenKey:
    """Return the key of this store, if the move can be.

    Raises:
        InvalidInputError: one of the keys does not encrypt, or derives and is given no context.
    """
    key = await transit_keys.get(engine, wish.tenant, wish.key)
    key.require_usable()
    if not key.record.type.encrypts:
        raise InvalidInputError(f"Transit key {wish.key!r} is of type {key.record.type}, and encrypts nothing")
    is_derived = key.record.derived or (wish.other is not None and wish.other.is_derived)
    if is_derived and not has_context and not wish.context:
        raise InvalidInputError("one of the keys derives a key for each context: name the context, or its column")
    return key


def _told(wish: MoveWish, column: ColumnOfTexts, key: OpenKey, columns: tuple[str, ...]) -> dict[str, object]:
    # What is bound may be confidential, and the store's jobs are no place for it.
    bound = hashlib.sha256(json.dumps([wish.context.hex(), wish.associated_data.hex()]).encode()).hexdigest()
    return {
        "transit": wish.direction.value,
        "keyring": key.record.keyring,
        "latest": None if wish.direction is Direction.TO else key.latest,
        "place": wish.place,
        "bound": bound,
        "by_row": column.by_row,
        "key": columns,
    }


async def _note(engine: TransitEngine, key: OpenKey, own: OwnKey) -> None:
    """Tell the audit trail of what was done with the key of this store, whatever became of the job."""
    for operation, count in (("decrypt", own.opened), ("encrypt", own.sealed)):
        if count:
            await engine.uses.record(key.record, operation, count=count)


async def _ended(session: Session, job: ReencryptionRecord, started: float) -> ReencryptReport:
    """Mark a job done whose chunks all are, and report."""
    async with session.surroundings.store.reading() as work:
        found = await work.find_reencryption(job.id) or job
        chunks = await work.chunks(job.id)
    totals, state = total_of(chunks), found.state
    if is_worked_off(found, chunks):
        await end_job(session.surroundings, found, **totals)
        state = ReencryptionState.DONE
    return ReencryptReport(
        job_id=job.id,
        state=state,
        dry_run=found.dry_run,
        failures=failures_of(chunks),
        indexed_version=None,
        finished_rotation=False,
        seconds=time.monotonic() - started,
        **totals,
    )
