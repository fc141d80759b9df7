"""Import keys in batches of ten, and end as by ``kill -9`` while the given number of them is being added."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from keystead import KeyManager, LocalKMSConfig, LocalKMSProvider
from keystead.lifecycle import legacy_import
from keystead.lifecycle.wrapping import seal_key
from keystead.model import KeyRecord
from tests.legacy.conftest import KEK
from tests.legacy.sources import ROOT


def main() -> None:
    """Run until killed."""
    source, store, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
    setattr(legacy_import, "BATCH", 10)  # noqa: B010
    sealed = 0

    def seal_until(*arguments: object) -> KeyRecord:
        nonlocal sealed
        sealed += 1
        if sealed == most:
            os.kill(os.getpid(), signal.SIGKILL)
        return seal_key(*arguments)  # type: ignore[arg-type]

    setattr(legacy_import, "seal_key", seal_until)  # noqa: B010

    async def run() -> None:
        provider = LocalKMSProvider(LocalKMSConfig(master_key=KEK))
        async with KeyManager({"local": provider}, store=f"sqlite:///{store}", background=False) as km:
            await km.import_legacy(source, lambda: ROOT)

    asyncio.run(run())


main()
