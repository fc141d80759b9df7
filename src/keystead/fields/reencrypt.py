"""Re-encryption of a field's rows while the application goes on using them.

One road for everything that changes what a row should hold: another version of its key, another keyring, another KMS,
an index that is new or whose key is rotated, and the first encryption of a plaintext column.
Decision: docs/adr/0021-re-encryption-is-compare-and-swap.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from keystead.crypto.keyring import Keyring
from keystead.errors import DataKeyNotLoadedError, InvalidInputError, KeyStateError, KMSError
from keystead.fields.cipher import FieldCipher
from keystead.fields.field import Field
from keystead.fields.importing.reading import Importer
from keystead.fields.importing.rows import ForeignValues
from keystead.fields.indexes import hash_columns
from keystead.fields.job_records import Target, begin_job, end_job, target_of
from keystead.fields.passed_by import look, stale_rows
from keystead.fields.places import locate, registration_of
from keystead.fields.progress import ReencryptProgress, ReencryptReport, failures_of, is_worked_off, total_of
from keystead.fields.sealing import RowSealer
from keystead.fields.shift import Bridge, Pace, Shift
from keystead.fields.surroundings import Manager, Session
from keystead.fields.worker import Worker
from keystead.ports import FieldRecord, ReencryptionRecord, ReencryptionState
from keystead.ports.rows import ApplicationRows

BATCH_ROWS: Final = 2000
POLL_S: Final = 10.0
READY_WITHIN_S: Final = 180.0
"""How long a new index key may take to reach every node."""
STEP_S: Final = 5.0
"""With a limit on rows a second, a batch is at most what that lets through in this time."""

OnProgress = Callable[[ReencryptProgress], None]


async def reencrypt(
    km: Manager,
    url: str,
    field: Field,
    *,
    key_column: str | tuple[str, ...] | None = None,
    batch_rows: int = BATCH_ROWS,
    workers: int = 1,
    rows_per_s: float | None = None,
    dry_run: bool = False,
    plaintext_column: str | None = None,
    importer: Importer | None = None,
    resume: bool = True,
    on_progress: OnProgress | None = None,
) -> ReencryptReport:
    """Bring every row of a field to the active data key and the live index keys, and return what was done.

    A row is written only if its ciphertext is still the one that was read, so that an edit by the application always
    wins; no other column is touched. Call it again after any crash: it goes on where it stopped. Call it in several
    processes at once: they share the work. The field is registered, and with it the scan that a destroy makes.

    Args:
        km: an initialised manager.
        url: the application's database, SQLite or PostgreSQL, in the form of a store URL.
        field: as the application declares it.
        key_column: columns by which rows are read in order, kept apart by a unique constraint and never NULL; the
            primary key if none is given.
        batch_rows: rows read and written at once.
        workers: threads here.
        rows_per_s: at most so many rows a second are read, over all workers here.
        dry_run: read and decrypt everything, and write nothing.
        plaintext_column: holds values in clear; where there is no ciphertext yet they are encrypted, and the column is
            set to NULL with it.
        importer: reads values that another system encrypted, in ``plaintext_column``, or without one in the field's own
            column: see docs/guides/coming-over.md.
        resume: go on with an unfinished job of this field; False cancels it and begins again.
        on_progress: called on the event loop after each batch.

    Raises:
        InvalidInputError: a table, column or option that cannot be, or a field without indexes that is registered with
            some.
        KeyStateError: the index key is being rotated, and some node has not loaded the new one yet.
        StorageOperationError: the database or the store cannot be read or written. The job can be gone on with.
        ImportEndedError: the importer's end has come.
        KMSError: keys that cannot be used now; so can it then.
    """
    require_pace(batch_rows, rows_per_s, workers)
    if importer is not None:
        importer.require_open()
    started = time.monotonic()
    place = Place(url, field, key_column, plaintext_column)
    key = await asyncio.to_thread(place.check)
    cipher, registered, session = await opened(km, field, url)
    if len(cipher.index_versions) > 1:
        await asyncio.to_thread(place.require_indexes)
    await _wait_for_nodes(session, cipher)
    target = target_of(cipher, registered, plaintext_column, key, None if importer is None else importer.name)
    store = session.surroundings.store
    job, before = await begin_job(
        session.surroundings, registered, target, place.counted, batch_rows=batch_rows, dry_run=dry_run, resume=resume
    )
    loads = ManagerLoads(km, field, Bridge())
    told = {**before, "imported": 0}
    shift = Shift(
        job=job,
        batch_rows=paced(batch_rows, rows_per_s, workers),
        store=store,
        bridge=loads.bridge,
        rows=place.table,
        sealer=lambda table: sealer_of(cipher, table, loads, importer, verify=target.verify),
        pace=Pace(rows_per_s),
        told=teller(job, before, told, started, on_progress),
    )
    await work_off(shift, session, workers)
    return replace(await _ended(shift, session, target, cipher, started), imported=told["imported"])


def require_pace(batch_rows: int, rows_per_s: float | None, workers: int) -> None:
    """Raise ``InvalidInputError`` for a pace at which nothing would be done."""
    if batch_rows < 1 or workers < 1 or (rows_per_s is not None and rows_per_s <= 0):
        raise InvalidInputError("batch_rows, workers and rows_per_s are above zero")


def paced(batch_rows: int, rows_per_s: float | None, workers: int) -> int:
    """Return how many rows a batch has, with a limit on rows a second over all workers or without."""
    return batch_rows if rows_per_s is None else max(1, min(batch_rows, int(rows_per_s * STEP_S / workers)))


def sealer_of(
    cipher: FieldCipher, table: ApplicationRows, loads: ManagerLoads, importer: Importer | None, *, verify: bool
) -> RowSealer:
    """Return what decides about a table's rows, with an importer or without."""
    foreign = None if importer is None else ForeignValues(importer, cipher.field.value_type, loads.bridge.ask)
    return RowSealer(cipher, table.layout, loads, verify=verify, foreign=foreign)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field's rows are."""

    url: str
    field: Field
    key_column: str | tuple[str, ...] | None
    plaintext: str | None

    def table(self) -> ApplicationRows:
        """Return the rows over a connection of their own."""
        from keystead.stores.rows import RowTable

        field, key = self.field, self.key_column
        return RowTable(
            self.url,
            field.table,
            field.column,
            key=() if key is None else (key,) if isinstance(key, str) else tuple(key),
            record=field.record_columns,
            tenant=field.tenant,
            subject=field.subject,
            plaintext=self.plaintext,
            indexes=field.index_columns,
            tokens=field.token_table if field.token_index is not None else None,
        )

    def counted(self) -> int:
        """Return how many rows there are; blocks."""
        with contextlib.closing(self.table()) as table:
            return table.count()

    def check(self) -> tuple[str, ...]:
        """Return the columns rows are read by; blocks.

        Raises:
            InvalidInputError: a table or column is missing, or rows cannot be read for sure.
        """
        with contextlib.closing(self.table()) as table:
            layout = table.layout
            table.require_key()
        field = self.field
        taken = (field.column, *layout.key_columns, *field.owner_columns, *field.index_columns)
        if self.plaintext in taken and self.plaintext is not None:
            raise InvalidInputError(
                f"column {self.plaintext!r} is a part of what a row is, and cannot be the plaintext column, which is "
                "emptied"
            )
        declared = [*zip(field.record_columns, field.record_types, strict=True)]
        owners = ((field.tenant, field.tenant_type), (field.subject, field.subject_type))
        declared += [(name, kind) for name, kind in owners if name is not None]
        for column, kind in declared:
            # A wrong guess would bind every row to a record that the application does not know.
            if kind is None and column in layout.perhaps_uuids:
                raise InvalidInputError(
                    f"column {column!r} may hold UUIDs or texts, and the database does not tell which; declare "
                    "record_type, tenant_type or subject_type of the field as UUID or str (--uuid or --no-uuid)"
                )
        return layout.key_columns

    def require_indexes(self) -> None:
        """Raise ``InvalidInputError`` where the table has columns or token rows of an index that is not declared.

        Blocks. A rotation of the index key would end over them, and what is searched by them would be found no more.
        """
        field = self.field
        with contextlib.closing(self.table()) as table:
            found = hash_columns(field.column, table.layout.columns) - {*field.index_columns}
            if field.token_index is None and table.has_tokens(field.token_table):
                found.add(field.token_table)
        if found:
            raise InvalidInputError(
                f"the index key of field {field.id} is being rotated, and the table has an index that this declaration "
                f"leaves out: declare it, or drop what is left of it ({', '.join(sorted(found))})"
            )


class ManagerLoads:
    """Loads what rows need through the manager, from threads that may wait; ``sealing.Loads``."""

    def __init__(self, km: Manager, field: Field, bridge: Bridge) -> None:
        self.bridge = bridge
        self._km = km
        self._field = field

    def data_key(self, ciphertext: bytes) -> bool:
        """Load the data key a ciphertext names; False where the store has none."""
        try:
            self.bridge.ask(self._km.prefetch([ciphertext]))
        except DataKeyNotLoadedError:
            return False
        return True

    def tenants(self, names: set[str]) -> None:
        """Load the keyrings of tenants."""
        self.bridge.ask(self._km.load_fields(self._field, tenants=names))

    def holders(self, key_ids: Collection[int]) -> Mapping[int, Keyring]:
        """Return the keyrings that data keys are of, loaded; those that the store has not are left out."""
        return self.bridge.ask(self._km.keyrings.load_holders(key_ids, skip_damaged=True))

    def subjects(self, names: Collection[str], *, create: bool) -> Mapping[str, Keyring]:
        """Return the keyrings of subjects by their names, loaded; those there are none of are made or left out."""
        return self.bridge.ask(self._km.keyrings.load_subjects(names, create=create)) if names else {}


async def opened(km: Manager, field: Field, url: str) -> tuple[FieldCipher, FieldRecord, Session]:
    """Load the field's keys as they are now, and register it."""
    session = await km.session()
    if not field.indexes:
        async with session.surroundings.store.reading() as work:
            known = await work.find_field(await registration_of(work, field.id, locate(field, url)))
        if known is not None and known.index_keyring is not None:
            raise InvalidInputError(
                f"field {known.id} is registered with indexes, and this declaration has none: declare them, or "
                f"`keystead field forget {shlex.quote(known.id)}` if they are gone"
            )
    await km.load_fields(field)
    registered = await km.register_field(field, url)
    await session.poll()
    return km.field(field), registered, session


async def _wait_for_nodes(session: Session, cipher: FieldCipher) -> None:
    """Wait until every node writes the index version that rows are to be filled with."""
    rotation, name = session.lifecycle.index_rotation, cipher.field.index_keyring
    until = time.monotonic() + READY_WITHIN_S
    while len(cipher.index_versions) > 1 and not await rotation.is_ready(name):
        if time.monotonic() > until:
            raise KeyStateError(
                f"some node has not loaded version {cipher.index_versions[-1]} of index keyring {name!r} yet; run "
                "again later: a node loads it within its epoch_max_age_s, and one that died is forgotten soon after"
            )
        await asyncio.sleep(0.5)
        await session.poll()


async def work_off(shift: Shift, session: Session, workers: int) -> None:
    """Run the workers to their end, and keep this process known as a node meanwhile."""
    loop = asyncio.get_running_loop()
    names = [f"{session.surroundings.node.value}/{shift.job.id}/{id(shift):x}/{number}" for number in range(workers)]
    polling = asyncio.create_task(_poll(session))
    pool = ThreadPoolExecutor(workers, "keystead-reencrypt")
    running = [loop.run_in_executor(pool, Worker(shift, name).run) for name in names]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        # Whether one failed or the caller was cancelled: each ends after the batch at hand, and its chunk is free.
        shift.stop.set()
        polling.cancel()
        await asyncio.wait(running)
        # Their work is done: this waits for no more than the threads' own end.
        pool.shutdown()
    if shift.failure is not None:
        raise shift.failure
    for each in running:
        each.result()


async def _poll(session: Session) -> None:
    while True:
        await asyncio.sleep(POLL_S)
        # What fails here is asked again; what must not go on without it asks for itself.
        with contextlib.suppress(KMSError):
            await session.poll()


def teller(
    job: ReencryptionRecord,
    before: Mapping[str, int],
    counts: dict[str, int],
    started: float,
    on_progress: OnProgress | None,
) -> Callable[[Mapping[str, int]], None]:
    """Return what is called with each batch's counts: it adds them to ``counts``, and tells how far the job is."""

    def told(batch: Mapping[str, int]) -> None:
        for name, number in batch.items():
            counts[name] += number
        if on_progress is not None:
            seconds = time.monotonic() - started
            total = max(job.rows_total or 0, counts["read"])
            on_progress(
                ReencryptProgress(
                    job.id,
                    total,
                    counts["read"],
                    counts["rewritten"],
                    counts["failed"],
                    seconds,
                    read_before=before["read"],
                )
            )

    return told


async def _ended(
    shift: Shift, session: Session, target: Target, cipher: FieldCipher, started: float
) -> ReencryptReport:
    """Mark a job done whose chunks all are, tell the rotation of the index key, and report."""
    store, rotation, job = session.surroundings.store, session.lifecycle.index_rotation, shift.job
    async with store.reading() as work:
        found = await work.find_reencryption(job.id) or job
        chunks = await work.chunks(job.id)
    totals = total_of(chunks)
    state, indexed, finished, left = found.state, None, False, 0
    if is_worked_off(found, chunks):
        if not found.dry_run and not totals["failed"]:
            left, unfinished = await _passed_by(shift, session, target)
            if target.indexes and not unfinished:
                indexed = target.indexes[-1]
                await rotation.note_indexed(job.field_id, indexed)
                finished = await rotation.finish(cipher.field.index_keyring) is not None
        # Last: a run that ends in between comes here again.
        await end_job(session.surroundings, found, **totals, passed_by=left)
        state = ReencryptionState.DONE
    return ReencryptReport(
        job_id=job.id,
        state=state,
        dry_run=found.dry_run,
        passed_by=left,
        failures=failures_of(chunks),
        indexed_version=indexed,
        finished_rotation=finished,
        seconds=time.monotonic() - started,
        **totals,
    )


async def _passed_by(shift: Shift, session: Session, target: Target) -> tuple[int, int]:
    """Return how many rows, at least, still need something, and how many are in clear or lack a hash."""
    table = shift.rows()
    unfinished, versions = await asyncio.to_thread(look, table, shift.sealer(table), target.field, target.indexes)
    async with session.surroundings.store.reading() as work:
        stale = await stale_rows(work, target.field, versions)
    return max(stale, unfinished), unfinished
