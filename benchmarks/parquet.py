"""Writing and reading Parquet files that are encrypted: under keyrings, and with a key that pyarrow is given in clear.

The cipher is pyarrow's own in both. What Keystead adds is drawing and wrapping a key for each column, by pyarrow's
crypto factory and its client, and the small file of wrapped keys; of pyarrow's own there is one key for everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time_ns
from typing import Any, Final

from benchmarks.timing import Loop, Sample, measure
from keystead.blocking import KeyManager
from keystead.testing import FakeKMS

ROWS: Final = 200_000
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
    absent: str = ""

    def part(self) -> float:
        """Return how fast Keystead writes beside pyarrow with an explicit key."""
        return self.write[EXPLICIT].ratio_to(self.write[OURS])


def run(folder: Path, *, rounds: int) -> ParquetFigures:
    """Measure everything of this module, in turn."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
        import pyarrow.parquet.encryption as pe
    except ImportError as exc:
        return ParquetFigures({}, {}, f"not installed: no module `{exc.name}` on this Python")
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
        groups = [{name: _loop(call) for name, call in group.items()} for group in (write, read)]
        written, found = measure(groups, rounds=rounds, cell_ms=CELL_MS)
    return ParquetFigures(written, found)


def _loop(call: Callable[[], Any]) -> Loop:
    def loop(times: int) -> int:
        start = process_time_ns()
        for _ in range(times):
            call()
        return process_time_ns() - start

    return loop
