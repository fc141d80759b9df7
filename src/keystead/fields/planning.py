"""What a re-encryption would find and how long it would take, without writing anything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from keystead.fields.field import Field
from keystead.fields.job_records import UNFINISHED
from keystead.fields.places import locate, registration_of
from keystead.fields.reencrypt import ManagerLoads, Place
from keystead.fields.sealing import RowSealer
from keystead.fields.shift import Bridge
from keystead.fields.surroundings import Manager
from keystead.model import DataKeyState, is_of_subject
from keystead.model.patterns import OF_SUBJECTS

_NAME_SIZE: Final = 8
SAMPLE_ROWS: Final = 2000
WRITING: Final = 2.0
"""Writing takes about as long as reading and cryptography."""


@dataclass(frozen=True, slots=True)
class VersionRows:
    """How many rows are under one data key, or under all of subjects' that have one version.

    ``keyring`` and ``version`` are None where the store does not know it. Its id is 0 for what names none, and for
    those of subjects, whose ``keyring`` is the pattern of theirs.
    """

    data_key_id: int
    keyring: str | None
    version: int | None
    rows: int


@dataclass(frozen=True, slots=True)
class ReencryptPlan:
    """What a re-encryption has before it.

    ``empty`` rows have no ciphertext, ``plaintext`` of them one to make. ``erased`` rows, none of which is among the
    ``versions``, are of subjects that were forgotten. ``seconds`` is an estimate from the first
    rows, for one worker; ``unfinished`` is the job that would be gone on with.
    """

    rows: int
    versions: list[VersionRows]
    empty: int
    erased: int
    plaintext: int
    sample_rows: int
    sample_changes: int
    seconds: float
    unfinished: str | None


async def plan(
    km: Manager,
    url: str,
    field: Field,
    *,
    key_column: str | tuple[str, ...] | None = None,
    plaintext_column: str | None = None,
) -> ReencryptPlan:
    """Return what ``reencrypt`` with the same arguments would find; errors as there. The field is not registered.

    Counts every row by the data key it names, which reads the column once, and decrypts the first of them.
    """
    place = Place(url, field, key_column, plaintext_column)
    await asyncio.to_thread(place.check)
    await km.load_fields(field)
    session = await km.session()
    await session.poll()
    loads = ManagerLoads(km, field, Bridge())

    def look() -> tuple[dict[bytes | None, int], int, int, int, float]:
        with contextlib.closing(place.table()) as table:
            versions, plaintext = table.versions(), table.count_plaintext()
            sealer = RowSealer(km.field(field), table.layout, loads, verify=bool(field.indexes))
            started = time.perf_counter()
            rows = table.read(None, None, SAMPLE_ROWS)
            work = sealer.work_on(rows, {} if sealer.has_tokens else None)
            return versions, plaintext, len(rows), len(work.changes), time.perf_counter() - started

    versions, plaintext, sampled, changes, seconds = await asyncio.to_thread(look)
    total = sum(versions.values())
    async with session.surroundings.store.reading() as work:
        under: Counter[int] = Counter()
        for name, rows in versions.items():
            if name is not None:
                under[int.from_bytes(name, "big") if len(name) == _NAME_SIZE else 0] += rows
        keys = {key.id: key for key in await work.find_keys(under)}
        counted: Counter[tuple[int, str | None, int | None]] = Counter()
        erased = 0
        for key_id, rows in under.items():
            key = keys.get(key_id)
            if key is None:
                counted[key_id, None, None] += rows
            elif not is_of_subject(key.keyring):
                counted[key_id, key.keyring, key.version] += rows
            elif key.state is DataKeyState.DESTROYED:
                erased += rows
            else:
                counted[0, OF_SUBJECTS, key.version] += rows
        found = [VersionRows(*which, rows) for which, rows in counted.items()]
        registered = await registration_of(work, field.id, locate(field, url))
        jobs = await work.reencryptions(registered)
        unfinished = [job.id for job in jobs if job.state in UNFINISHED and not job.dry_run]
    return ReencryptPlan(
        rows=total,
        versions=sorted(found, key=lambda each: (each.keyring or "", each.version or 0, each.data_key_id)),
        empty=versions.get(None, 0),
        erased=erased,
        plaintext=plaintext,
        sample_rows=sampled,
        sample_changes=changes,
        seconds=seconds * WRITING * total / sampled if sampled else 0.0,
        unfinished=unfinished[-1] if unfinished else None,
    )
