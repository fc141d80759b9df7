"""Re-encrypt in a process of its own, and end as by ``kill -9`` at the given point of the given batch."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence

from keystead import KeyManager, LocalKMSConfig, LocalKMSProvider
from keystead.fields import reencrypt
from keystead.ports.rows import RowChange, RowKey
from keystead.stores import rows
from keystead.stores.rows import RowTable
from tests.fields.application import EMAIL

BATCH_ROWS = 5
KEK = bytes(range(32))


def manager(store: str) -> KeyManager:
    """Return a manager of the store in a file."""
    provider = LocalKMSProvider(LocalKMSConfig(master_key=KEK))
    return KeyManager({"local": provider}, store=f"sqlite:///{store}", background=False)


class KilledTable(RowTable):
    """Dies while it writes the batch ``nth``: before it, before its commit, or after."""

    point = "never"
    nth = 0
    batches = 0

    def swap(
        self, changes: Sequence[RowChange], *, before_commit: Callable[[], object] | None = None, wait: bool = False
    ) -> set[RowKey]:
        """Write a batch."""
        type(self).batches += 1

        def almost() -> None:
            if before_commit is not None:
                before_commit()
            self._die_at("commit")

        self._die_at("write")
        written = super().swap(changes, before_commit=almost, wait=wait)
        self._die_at("record")
        return written

    def _die_at(self, point: str) -> None:
        if self.point == point and type(self).batches == self.nth:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run, and print how many batches were written."""
    store, url, KilledTable.point = sys.argv[1:4]
    KilledTable.nth = int(sys.argv[4])
    vars(rows)["RowTable"] = KilledTable

    async def run() -> None:
        async with manager(store) as km:
            rows_per_s = None if KilledTable.nth else 100
            report = await reencrypt(km, url, EMAIL, batch_rows=BATCH_ROWS, rows_per_s=rows_per_s)
            print(KilledTable.batches, report.rewritten)

    asyncio.run(run())


if __name__ == "__main__":
    main()
