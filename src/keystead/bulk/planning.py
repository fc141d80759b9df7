"""What a job has before it, and how long that may take here."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from keystead import blocking
from keystead.bulk.beginning import Beginning, Folder
from keystead.bulk.datasets import FoundFile
from keystead.bulk.engines import BulkEngine
from keystead.bulk.rewriting import is_encrypted, sample_anew
from keystead.bulk.tasks import KeyRules, Operation
from keystead.errors import InvalidInputError
from keystead.parquet.keys import ParquetKeys, material_of

SAMPLE_FILES: Final = 3
SAMPLE_BYTES: Final = 32 * 1024 * 1024
"""How much of each of them is read at most, as it is encoded and not compressed; at least one row group."""


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """What a job would find, over every file, also those that an earlier run has done.

    Attributes:
        rows: by the files' footers.
        keys_beside: files whose keys are rotated without touching the data.
        largest_bytes: of one file; a dataset that is written in its place needs room for one of them for each worker.
        sample_rows: how many rows were done to estimate ``seconds``; nothing of that was kept.
        seconds: by that sample, on this machine, shared by as many workers as the engine has; a disk or network that
            is slower than the processors makes it longer.
    """

    operation: Operation
    files: int
    rows: int
    bytes: int
    keys_beside: int
    largest_bytes: int
    sample_rows: int
    seconds: float
    workers: int


def plan(
    km: blocking.KeyManager,
    operation: Operation,
    source: Folder,
    rules: KeyRules | None = None,
    *,
    engine: BulkEngine | None = None,
) -> BulkPlan:
    """Return what a job would find. The dataset is only read; a sample of it is done, in a folder that goes away.

    Args:
        operation: ``ENCRYPT`` reads plain files, every other encrypted ones.
        rules: by which a sample is written; needed to encrypt, and else the plainest that fit.
        engine: whose workers share the work.

    Raises:
        InvalidInputError: no folder of Parquet files, or a file that is encrypted and should not be, or the reverse.
        ConfigurationError: rules that do not fit the columns.
        KMSError: keys that cannot be used.
    """
    begun = Beginning.of(km, source, engine, None)
    keys = ParquetKeys(km, **(rules or KeyRules()).arguments())
    rows, beside = 0, 0
    for each in begun.files:
        with _open(begun.folder / each.name, operation, keys) as file:
            rows += file.metadata.num_rows
        beside += material_of(begun.folder / each.name).exists()
    sampled, seconds = 0, 0.0
    for each in _spread(begun.files):
        with _open(begun.folder / each.name, operation, keys) as file:
            done, took = _timed(file, operation, keys)
        sampled, seconds = sampled + done, seconds + took
    to_do = rows
    if operation is Operation.ROTATE and beside:
        to_do = rows * (len(begun.files) - beside) // len(begun.files)
    workers = begun.engine.workers
    return BulkPlan(
        operation=operation,
        files=len(begun.files),
        rows=rows,
        bytes=sum(each.size for each in begun.files),
        keys_beside=beside,
        largest_bytes=max(each.size for each in begun.files),
        sample_rows=sampled,
        seconds=seconds * to_do / sampled / workers if sampled else 0.0,
        workers=workers,
    )


def _open(path: Path, operation: Operation, keys: ParquetKeys) -> pq.ParquetFile:
    expected = operation is not Operation.ENCRYPT
    if is_encrypted(path) is not expected:
        raise InvalidInputError(f"{path} is {'not encrypted' if expected else 'encrypted already'}")
    return keys.open(path) if expected else pq.ParquetFile(path)


def _spread(files: Sequence[FoundFile]) -> Iterator[FoundFile]:
    """Yield a few files, of all sizes."""
    by_size = sorted(files, key=lambda each: each.size)
    step = max(1, len(by_size) // SAMPLE_FILES)
    yield from by_size[step // 2 :: step][:SAMPLE_FILES]


def _timed(file: pq.ParquetFile, operation: Operation, keys: ParquetKeys) -> tuple[int, float]:
    """Do a part of a file; return how many rows, and the seconds that took."""
    with tempfile.TemporaryDirectory(prefix="keystead-") as folder:
        target = None if operation is Operation.VERIFY else Path(folder, "sample.parquet")
        started = time.perf_counter()
        rows = sample_anew(file, keys, target, SAMPLE_BYTES)
        return rows, time.perf_counter() - started
