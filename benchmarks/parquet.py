"""Writing and reading Parquet files that are encrypted: under keyrings, and with a key that pyarrow is given in clear.

The cipher is pyarrow's own in both. What Keystead adds is drawing and wrapping a key for each column, by pyarrow's
crypto factory and its client, and the small file of wrapped keys; of pyarrow's own there is one key for everything.
Of a whole dataset, which is read and written a row group at a time in both, there are the digest of each file, its
note and its sync besides.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time_ns
from typing import Any, Final

from benchmarks.timing import Loop, Sample, measure
from keystead.blocking import KeyManager
from keystead.testing import FakeKMS

ROWS: Final = 200_000
FILES: Final = 4
GROUPS: Final = 2
"""Of each file of the dataset."""
CELL_MS: Final = 400.0
BAR: Final = 0.8
"""How fast writing is at least, beside pyarrow's own encryption with explicit keys."""

PLAIN: Final = "pyarrow, nothing encrypted"
EXPLICIT: Final = "pyarrow, one explicit key"
OURS: Final = "Keystead, two keyrings"
_KEY: Final = bytes(range(32))
"""A test key: it protects nothing but what is thrown away."""


@dataclass(frozen=True, slots=True)
class ParquetFigures:
    """Nanoseconds a file, by what wrote or read it; ``absent`` says why nothing was measured."""

    write: dict[str, Sample]
    read: dict[str, Sample]
    dataset: dict[str, Sample]
    absent: str = ""

    def part(self) -> float:
        """Return how fast Keystead writes beside pyarrow with an explicit key."""
        return self.write[EXPLICIT].ratio_to(self.write[OURS])

    def part_of_dataset(self) -> float:
        """Return how fast Keystead encrypts a dataset beside pyarrow with an explicit key."""
        return self.dataset[EXPLICIT].ratio_to(self.dataset[OURS])


def run(folder: Path, *, rounds: int) -> ParquetFigures:
    """Measure everything of this module, in turn."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
        import pyarrow.parquet.encryption as pe
    except ImportError as exc:
        return ParquetFigures({}, {}, {}, f"not installed: no module `{exc.name}` on this Python")
    from keystead.integrations.parquet import ParquetKeys

    table = pa.table(
        {
            "id": range(ROWS),
            "email": [f"person-{number}@example.org" for number in range(ROWS)],
            "amount": [number / 7 for number in range(ROWS)],
            "note": [f"visited {number % 97} times" for number in range(ROWS)],
        }
    )
    paths = {name: str(folder / f"{number}.parquet") for number, name in enumerate((PLAIN, EXPLICIT, OURS))}
    sealing, opening = pe.create_encryption_properties(_KEY), pe.create_decryption_properties(_KEY)
    with KeyManager({"fake": FakeKMS()}, default_key_id="k", store=f"sqlite:///{folder}/parquet.db") as km:
        keys = ParquetKeys(km, columns={"pii": "email"})
        write: dict[str, Callable[[], Any]] = {
            PLAIN: lambda: pq.write_table(table, paths[PLAIN]),
            EXPLICIT: lambda: pq.write_table(table, paths[EXPLICIT], encryption_properties=sealing),
            OURS: lambda: keys.write_table(table, paths[OURS]),
        }
        read: dict[str, Callable[[], Any]] = {
            PLAIN: lambda: pq.read_table(paths[PLAIN]),
            EXPLICIT: lambda: pq.read_table(paths[EXPLICIT], decryption_properties=opening),
            OURS: lambda: keys.read_table(paths[OURS]),
        }
        for writes in write.values():
            writes()
        dataset = _Dataset(folder, km, table).calls()
        groups = [{name: _loop(call) for name, call in group.items()} for group in (write, read, dataset)]
        written, found, encrypted = measure(groups, rounds=rounds, cell_ms=CELL_MS)
    return ParquetFigures(written, found, encrypted)


class _Dataset:
    """Encrypts a plain dataset into a folder that is new each time, of which the last one goes away."""

    def __init__(self, folder: Path, km: KeyManager, table: Any) -> None:
        import pyarrow.parquet as pq

        self._km = km
        self._plain = folder / "dataset"
        self._target = folder / "dataset-encrypted"
        self._plain.mkdir()
        for number in range(FILES):
            pq.write_table(table, self._plain / f"{number}.parquet", row_group_size=ROWS // GROUPS)

    def calls(self) -> dict[str, Callable[[], Any]]:
        """Return the ways to do so."""
        return {EXPLICIT: self._by_pyarrow, OURS: self._by_keystead}

    def _by_keystead(self) -> None:
        from keystead import bulk

        shutil.rmtree(self._target, ignore_errors=True)
        bulk.encrypt(self._km, self._plain, self._target, bulk.KeyRules(columns={"pii": "email"}))

    def _by_pyarrow(self) -> None:
        import pyarrow.parquet as pq
        import pyarrow.parquet.encryption as pe

        shutil.rmtree(self._target, ignore_errors=True)
        self._target.mkdir()
        sealing = pe.create_encryption_properties(_KEY)
        for path in self._plain.iterdir():
            with (
                pq.ParquetFile(path) as file,
                pq.ParquetWriter(self._target / path.name, file.schema_arrow, encryption_properties=sealing) as writer,
            ):
                for number in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(number))


def _loop(call: Callable[[], Any]) -> Loop:
    def loop(times: int) -> int:
        start = process_time_ns()
        for _ in range(times):
            call()
        return process_time_ns() - start

    return loop
