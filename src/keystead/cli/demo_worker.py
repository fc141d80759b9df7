"""The demonstration's other processes: ``python -m keystead.cli.demo_worker check|rotate FOLDER``.

``check`` opens the store anew, decrypts every row, and prints what it found as JSON. ``rotate`` rotates without end,
and prints each ciphertext before the rotation that follows it, until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import quote

from keystead.cli.demo_people import decrypted_digest
from keystead.manager.manager import KeyManager


def manager(folder: Path) -> KeyManager:
    """Return a manager over the demonstration's store and KEK, both in ``folder``."""
    kek = quote(str(folder / "keystead.kek"))
    return KeyManager.open(f"local:{kek}", store=f"sqlite:///{folder / 'keys.db'}", background=False)


async def check(folder: Path) -> dict[str, object]:
    """Decrypt everything, the acknowledged ciphertexts of a killed process included."""
    personal = json.loads((folder / "personal.json").read_text())
    async with manager(folder) as km:
        started = time.perf_counter()
        cells, digest = decrypted_digest(folder / "people.db", personal, km.local_decrypt)
        seconds = time.perf_counter() - started
        log = folder / "acknowledged.txt"
        acknowledged = log.read_text().split() if log.exists() else []
        for text in acknowledged:
            km.local_decrypt(text)
        versions = await km.default.versions()
    return {
        "cells": cells,
        "digest": digest,
        "seconds": seconds,
        "acknowledged": len(acknowledged),
        "versions": [info.version for info in versions],
        "active": [info.version for info in versions if info.is_active],
    }


async def rotate(folder: Path) -> None:
    """Encrypt, acknowledge, rotate, for ever."""
    from keystead.crypto.envelope import to_text

    async with manager(folder) as km:
        while True:
            print(to_text(km.local_encrypt(b"acknowledged")), flush=True)
            await km.rotate_data_key()


def main() -> None:
    """Run the step that the command line names."""
    step, folder = sys.argv[1], Path(sys.argv[2])
    if step == "rotate":
        asyncio.run(rotate(folder))
    print(json.dumps(asyncio.run(check(folder))))


if __name__ == "__main__":
    main()
