"""The demonstration's other processes: ``python -m keystead.cli.demo.worker check|rotate|edit FOLDER``.

``check`` opens the store anew, decrypts every row, and prints what it found as JSON. ``rotate`` rotates without end,
and prints each ciphertext before the rotation that follows it, until it is killed. ``edit`` changes cells of the table
and prints each change once it is committed, until its input ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

from keystead.cli.demo.table import DemoTable
from keystead.manager.manager import KeyManager


def manager(folder: Path) -> KeyManager:
    """Return a manager over the demonstration's store and KEK, both in ``folder``."""
    kek = quote(str(folder / "keystead.kek"))
    return KeyManager.open(f"local:{kek}", store=f"sqlite:///{folder / 'keys.db'}")


def table(folder: Path) -> DemoTable:
    """Return the demonstration's table."""
    return DemoTable(folder / "people.db", **json.loads((folder / "columns.json").read_text()))


async def check(folder: Path) -> dict[str, object]:
    """Decrypt everything, the acknowledged ciphertexts of a killed process included."""
    async with manager(folder) as km:
        started = time.perf_counter()
        cells, digest = table(folder).digest(km)
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


async def edit(folder: Path) -> None:
    """Change random cells as an application does, and say so, until the input ends."""
    people = table(folder)
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    async with manager(folder) as km:
        await km.load_fields(*people.fields().values())
        rows = people.row_count()
        for number in itertools.count():
            row, column = random.randrange(rows), random.choice(people.personal)  # noqa: S311 - which cell, no secret
            people.change(km, row, column, f"changed {number}")
            print(json.dumps({"row": row, "column": column, "value": f"changed {number}"}), flush=True)
            await asyncio.sleep(0.002)
            if ended.is_set():
                return


def main() -> None:
    """Run the step that the command line names."""
    step, folder = sys.argv[1], Path(sys.argv[2])
    if step == "rotate":
        asyncio.run(rotate(folder))
    if step == "edit":
        asyncio.run(edit(folder))
        return
    print(json.dumps(asyncio.run(check(folder))))


if __name__ == "__main__":
    main()
