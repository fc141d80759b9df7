"""Few messages a salt, many processes, forks, threads and kills: the limit holds with no counter to survive them."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

from keystead.manager.manager import KeyManager
from soak.figures import Figure, Figures, Setting
from soak.harness import Child, fork, in_child, results, wait_for
from soak.places import Place

LIMIT: Final = 1000
PROCESSES: Final = 8
THREADS: Final = 2
BLOCK: Final = 64 * 1024
RECORD: Final = struct.Struct(">QQ24s24x")
"""The process, what the message weighs, and the data key id and salt of its header.

So long that none lies across two pages: a kill may let the kernel write what is in one page and not the rest.
"""
LARGE_EVERY: Final = 50
PAUSE_S: Final = 0.0005
LIFE_S: Final = 0.4


class Limits:
    """See the module."""

    name = "limits"
    claim = "No data key and salt carry more messages than the limit, and no two processes share a salt, whatever dies."

    def run(self, setting: Setting) -> list[Figure]:
        """Keep eight processes encrypting, each with threads and a fork of its own, and kill them one after another."""
        figures = Figures()
        kills = setting.choose(short=20, full=200)
        for place in setting.databases.each(setting.folder):
            in_child(_touch, place)
            log = place.folder / "messages"
            log.touch()
            killed = _kill_one_after_another(place, log, kills)
            counted, owners, processes = _count(log)
            figures.equal(place.kind, "processes killed", killed, kills)
            figures.tell(place.kind, "messages given out", sum(counted.values()))
            figures.tell(place.kind, "processes that encrypted", processes)
            figures.tell(place.kind, "pairs of data key and salt", len(counted))
            figures.at_most(place.kind, "most messages of one pair", max(counted.values()), LIMIT)
            figures.at_least(place.kind, "pairs filled to the limit", _filled(counted), 1)
            shared = sum(len(who) > 1 for who in owners.values())
            figures.equal(place.kind, "salts in two processes", shared, 0)
        return figures.rows


def _touch(place: Place) -> None:
    async def main() -> None:
        async with place.manager():
            pass

    asyncio.run(main())


def _kill_one_after_another(place: Place, log: Path, kills: int) -> int:
    """Kill a process as soon as it has encrypted for a random moment, and start another in its place."""
    chance = random.Random(kills)
    running = [fork(_encrypt, place, log) for _ in range(PROCESSES)]
    killed = 0
    try:
        for number in range(kills):
            child = running[number % PROCESSES]
            _wait_until_encrypting(place, child)
            time.sleep(chance.random() * LIFE_S / 4)
            child.kill()
            killed += child.was_killed()
            running[number % PROCESSES] = fork(_encrypt, place, log)
    finally:
        (place.folder / "stop").touch()
    results(running)
    return killed


def _wait_until_encrypting(place: Place, child: Child[None]) -> None:
    mark = place.folder / f"encrypting-{child.pid}"
    wait_for(lambda: mark.exists() or not child.is_running(), 60, "a process to encrypt")


def _encrypt(place: Place, log: Path) -> None:
    """Encrypt until told to stop: in two threads here, and after a moment in a forked child with as many."""
    km = place.manager(messages_per_salt=LIMIT)
    asyncio.run(km.initialize())
    stop = place.folder / "stop"
    threads = [threading.Thread(target=_fill, args=(km, log, stop, 0), daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    (place.folder / f"encrypting-{os.getpid()}").touch()
    time.sleep(LIFE_S / 8)
    forked = fork(_fill_as_child, km, log, stop)
    for thread in threads:
        thread.join()
    forked.result()


def _fill_as_child(km: KeyManager, log: Path, stop: Path) -> None:
    thread = threading.Thread(target=_fill, args=(km, log, stop, LARGE_EVERY))
    thread.start()
    _fill(km, log, stop, LARGE_EVERY)
    thread.join()


def _fill(km: KeyManager, log: Path, stop: Path, large_every: int) -> None:
    """Encrypt, and write down every header before the next message; one in ``large_every`` is large."""
    process = os.getpid() << 20 | threading.get_native_id() % (1 << 20)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    number = 0
    while not stop.exists():
        for _ in range(50):
            number += 1
            size = BLOCK * 2 if large_every and number % large_every == 0 else 8
            blob = km.local_encrypt(bytes(size))
            os.write(descriptor, RECORD.pack(process, 1 + size // BLOCK, blob[2:26]))
        time.sleep(PAUSE_S)
    os.close(descriptor)


def _count(log: Path) -> tuple[Counter[bytes], dict[bytes, set[int]], int]:
    """Return messages by pair, the processes that used each pair, and how many processes there were."""
    counted: Counter[bytes] = Counter()
    owners: dict[bytes, set[int]] = {}
    with log.open("rb") as file:
        while data := file.read(RECORD.size * 10_000):
            for process, weight, pair in RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]):
                counted[pair] += weight
                owners.setdefault(pair, set()).add(process >> 20)
    return counted, owners, len(set().union(*owners.values()))


def _filled(counted: Counter[bytes]) -> int:
    return sum(messages == LIMIT for messages in counted.values())
