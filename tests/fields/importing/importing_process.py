"""Convert in a process of its own, and end as by ``kill -9`` at the given point of the given batch."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta

from keystead.fields import importer, reencrypt
from keystead.stores import rows
from tests.fields.application import EMAIL
from tests.fields.reencrypt_process import BATCH_ROWS, KilledTable, manager

__all__ = ["FERNET_KEY", "manager"]

FERNET_KEY = "a2V5c3RlYWQgdGVzdCBrZXkgb2YgMzIgYnl0ZXMuLi4="


def main() -> None:
    """Run; the arguments are the store, the database, the old column, the point and the batch."""
    store, url, old, KilledTable.point = sys.argv[1:5]
    KilledTable.nth = int(sys.argv[5])
    vars(rows)["RowTable"] = KilledTable
    reading = importer("fernet", keys=FERNET_KEY, until=datetime.now(UTC) + timedelta(hours=1))

    async def run() -> None:
        async with manager(store) as km:
            await reencrypt(km, url, EMAIL, plaintext_column=old or None, importer=reading, batch_rows=BATCH_ROWS)

    asyncio.run(run())


if __name__ == "__main__":
    main()
