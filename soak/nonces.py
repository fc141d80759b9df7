"""Millions of nonces over forks, spawned processes, threads and gunicorn's preloaded workers."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keystead.manager.manager import KeyManager
from soak.figures import Figure, Figures, Setting
from soak.harness import ChildFailedError, fork, results, wait_for
from soak.places import SQLITE, Place

THREADS: Final = 2
FORKS: Final = 4
SPAWNS: Final = 2
GUNICORN_WORKERS: Final = 2
ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one process drew: how many nonces under each pair of data key and salt, and how many came twice."""

    salts: dict[bytes, int]
    repeated: int


class Nonces:
    """See the module."""

    name = "nonces"
    claim = "No nonce comes twice under one salt, and no salt in two processes."

    def run(self, setting: Setting) -> list[Figure]:
        """Draw in every kind of process at once. Each checks its own salts, so that memory stays bounded."""
        figures = Figures()
        total = setting.choose(short=10**6, full=10**7)
        share = -(-total // (1 + FORKS + SPAWNS + GUNICORN_WORKERS))
        place = setting.databases.place(SQLITE, setting.folder / "nonces")
        drawn = {
            "a parent and its forks": results([fork(_family, place, share)], 1800)[0],
            "spawned processes": _spawned(place, share),
            "gunicorn --preload": _gunicorn(place, share),
        }
        for where, processes in drawn.items():
            figures.tell(where, "processes", len(processes))
            figures.tell(where, "nonces", sum(sum(process.salts.values()) for process in processes))
            figures.equal(where, "nonces that came twice under one salt", sum(p.repeated for p in processes), 0)
        salts = Counter(salt for processes in drawn.values() for process in processes for salt in process.salts)
        figures.equal("all", "salts in two processes", sum(count > 1 for count in salts.values()), 0)
        nonces = sum(sum(process.salts.values()) for processes in drawn.values() for process in processes)
        figures.at_least("all", "nonces", nonces, total)
        return figures.rows


def opened(place: Place) -> KeyManager:
    """Return an open manager whose event loop has ended: what is left needs none."""
    km = place.manager()
    asyncio.run(km.initialize())
    return km


def draw(km: KeyManager, wanted: int) -> Drawn:
    """Encrypt ``wanted`` empty messages in several threads and look at their nonces."""
    found: list[dict[bytes, set[bytes]]] = [{} for _ in range(THREADS)]

    def encrypt(nonces: dict[bytes, set[bytes]], messages: int) -> None:
        for _ in range(messages):
            blob = km.local_encrypt(b"")
            salt = nonces.get(blob[2:26])
            if salt is None:
                salt = nonces[blob[2:26]] = set()
            salt.add(blob[26:38])

    share = -(-wanted // THREADS)
    threads = [threading.Thread(target=encrypt, args=(nonces, share)) for nonces in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    distinct: dict[bytes, int] = {}
    for salt in set().union(*found):
        distinct[salt] = len(set().union(*(nonces.pop(salt, set()) for nonces in found)))
    return Drawn(distinct, share * THREADS - sum(distinct.values()))


def _family(place: Place, share: int) -> list[Drawn]:
    """Draw in a parent, and in forks of it that begin with its pool half used."""
    km = opened(place)
    for _ in range(100):
        km.local_encrypt(b"")
    children = [fork(draw, km, share) for _ in range(FORKS)]
    own = draw(km, share)
    return [own, *results(children, 1800)]


def _spawned(place: Place, share: int) -> list[Drawn]:
    command = [sys.executable, "-m", "soak.nonces_apps", place.url, str(place.folder), str(share)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(SPAWNS)]
    return [_parsed(process.communicate(timeout=1800)[0]) for process in started]


def _parsed(text: str) -> Drawn:
    if not text:
        raise ChildFailedError("a spawned process ended without an answer")
    repeated, *salts = text.split()
    pairs = (salt.split("=") for salt in salts)
    return Drawn({bytes.fromhex(salt): int(count) for salt, count in pairs}, int(repeated))


def written(drawn: Drawn) -> str:
    """Return ``drawn`` as a line."""
    return " ".join([str(drawn.repeated), *(f"{salt.hex()}={count}" for salt, count in drawn.salts.items())])


def _gunicorn(place: Place, share: int) -> list[Drawn]:
    """Let workers draw that were forked from a process in which the manager had been opened, and had encrypted."""
    address = str(place.folder / "gunicorn.sock")
    environment = os.environ | {"SOAK_URL": place.url, "SOAK_FOLDER": str(place.folder), "SOAK_SHARE": str(share)}
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", str(GUNICORN_WORKERS)]
    command += ["--bind", f"unix:{address}", "--timeout", "600", "--log-level", "error", "--no-control-socket"]
    server = subprocess.Popen([*command, "soak.nonces_apps:wsgi()"], cwd=ROOT, env=environment)
    try:
        wait_for(lambda: os.path.exists(address) or server.poll() is not None, 60, "gunicorn to start")
        answers: dict[int, Drawn] = {}
        children = [fork(_ask, address) for _ in range(GUNICORN_WORKERS)]
        for pid, line in results(children, 1800):
            answers[pid] = _parsed(line)
        if len(answers) < GUNICORN_WORKERS:
            raise ChildFailedError("one gunicorn worker answered every request")
        return list(answers.values())
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def _ask(address: str) -> tuple[int, str]:
    """Ask one worker; a worker that is drawing takes no second request, so two askers meet two workers."""

    class OverSocket(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(1800)
            self.sock.connect(address)

    connection = OverSocket("localhost")
    connection.request("GET", "/")
    pid, _, line = connection.getresponse().read().decode().partition(" ")
    return int(pid), line
