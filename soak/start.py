"""Many processes that start at the same moment on a store nobody has used."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from soak.figures import Figure, Figures, Setting
from soak.harness import fork, in_child, results, sleep_until, wait_for
from soak.places import Place, rows

PROCESSES: Final = 16


class Start:
    """See the module."""

    name = "start"
    claim = "Sixteen processes that start at once on an empty store end with one active version, and read each other."

    def run(self, setting: Setting) -> list[Figure]:
        """Start them, several times over on each database."""
        figures = Figures()
        rounds = setting.choose(short=1, full=10)
        for kind in setting.databases.kinds:
            slowest, active, read, kms = 0.0, set(), 0, set()
            for number in range(rounds):
                place = setting.databases.place(kind, setting.folder / f"{kind.lower()}-{number}")
                answers, took = _start(place)
                slowest = max(slowest, took)
                blobs = [blob for _, blob in answers]
                active |= {row[0] for row in rows(place, "SELECT count(*) FROM data_keys WHERE state = 'active'")}
                kms |= {calls for calls, _ in answers}
                read += in_child(_read, place, blobs)
                place.drop()
            figures.equal(kind, "active versions (of the WRAP, index and default keyrings, one each)", active, {3})
            figures.equal(kind, "ciphertexts that a process started later reads", read, rounds * PROCESSES)
            figures.tell(kind, "unwraps in a process", f"{min(kms)} to {max(kms)}")
            figures.tell(kind, "seconds from the word to the last one's end, the slowest round", slowest)
        return figures.rows


def _start(place: Place) -> tuple[list[tuple[int, bytes]], float]:
    children = [fork(_encrypt_once, place) for _ in range(PROCESSES)]
    ready = [place.folder / f"ready-{child.pid}" for child in children]
    wait_for(lambda: all(path.exists() for path in ready), 60, "the processes to be ready")
    started = time.monotonic()
    (place.folder / "go").touch()
    return results(children), time.monotonic() - started


def _encrypt_once(place: Place) -> tuple[int, bytes]:
    async def main() -> tuple[int, bytes]:
        providers = place.counting_providers()
        km = place.manager(providers=providers)
        (place.folder / f"ready-{os.getpid()}").touch()
        await sleep_until((place.folder / "go").exists, 60, "the word")
        await km.initialize()
        blob = km.local_encrypt(str(os.getpid()).encode())
        await km.close()
        return providers["local"].calls, blob

    return asyncio.run(main())


def _read(place: Place, blobs: list[bytes]) -> int:
    async def main() -> int:
        async with place.manager() as km:
            return len([km.local_decrypt(blob) for blob in blobs])

    return asyncio.run(main())
