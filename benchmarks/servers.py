"""The two key services as processes over one PostgreSQL: Keystead, and the documented one over Apollo Server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks.install import APOLLO, APOLLO_SOURCE, ARGON2_BUILT, NODE
from keystead.access.callers import Scope
from keystead.config.service import load_service
from keystead.manager.access import tokens
from keystead.manager.admin import create_local_kek
from keystead.manager.manager import KeyManager
from keystead.stores.schema import migrate

PROCESSES: Final = os.cpu_count() or 1
"""How many each service has."""
START_S: Final = 60.0
STOP_S: Final = 40.0
_RUNNING: Final = re.compile(r"running on http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, slots=True)
class Server:
    """A service that runs: its port, and the header that each user sends."""

    port: int
    headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keystead:
    """Keystead's service over a database; with what it does by default, and an audit trail."""

    folder: Path
    store: str
    ready: int
    """Pairs that it keeps ready."""

    @contextmanager
    def running(self, users: int) -> Iterator[Server]:
        """Make tokens for so many users, and serve until the end of the block."""
        create_local_kek(self.folder / "keystead.kek")
        migrate(self.store)
        environ = self._environ()
        headers = asyncio.run(_token_headers(environ, users))
        command = [sys.executable, "-m", "keystead", "serve", "--port", "0", "--workers", str(PROCESSES)]

        def is_open(log: str) -> bool:
            return log.count("the service is open") >= PROCESSES

        with _started("keystead", command, self.folder, environ, is_open) as port:
            yield Server(port, headers)

    def has_pairs(self, wanted: int) -> bool:
        """Return whether so many pairs are ready."""
        with psycopg.connect(self.store) as connection:
            found = connection.execute("SELECT count(*) FROM ready_key_pairs").fetchone()
        return found is not None and found[0] >= wanted

    def _environ(self) -> dict[str, str]:
        given = {
            # A pooler that stands between could not have it so; here is none.
            "STORE": f"{self.store}{'&' if '?' in self.store else '?'}prepare_threshold=5",
            "KMS": f"local:{self.folder / 'keystead.kek'}",
            "AUDIT_ENABLED": "true",
            "CLIENT_KEYS_READY": str(self.ready),
            "INITIALIZATION_TIMEOUT": f"{START_S:.0f}s",
        }
        return {f"KEYSTEAD_{name}": value for name, value in given.items()}


@dataclass(frozen=True, slots=True)
class Apollo:
    """The documented service over Apollo Server: ``benchmarks/apollo/server.mjs``."""

    folder: Path
    store: str

    @contextmanager
    def running(self, users: int) -> Iterator[Server]:
        """Serve until the end of the block."""
        # Node looks for packages from where the program lies.
        program = shutil.copy(APOLLO_SOURCE / "server.mjs", APOLLO / "server.mjs")
        found = conninfo_to_dict(self.store)
        environ = {
            "NODE_ENV": "production",
            "WORKERS": str(PROCESSES),
            "PGHOST": str(found.get("host", "localhost")),
            "PGPORT": str(found.get("port", 5432)),
            "PGUSER": str(found.get("user", "postgres")),
            "PGPASSWORD": str(found.get("password", "")),
            "PGDATABASE": str(found["dbname"]),
        }
        command = ["node", str(program)]
        with _started("apollo", command, self.folder, environ, lambda log: "running on" in log) as port:
            yield Server(port, tuple(f"X-User: user-{number}" for number in range(users)))


def absent_apollo() -> str:
    """Return why the service over Apollo Server cannot run here; nothing where it can."""
    if node_version() < NODE:
        return f"no Node.js {NODE} or newer here"
    if not (APOLLO / "node_modules" / "@apollo" / "server").is_dir():
        return "not installed: npm could not; `python -m benchmarks.install` tries again"
    return ""


def node_version() -> int:
    """Return the first number of Node's version; 0 where there is none."""
    if shutil.which("node") is None:
        return 0
    told = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    return int(told.strip().removeprefix("v").partition(".")[0])


def versions() -> dict[str, str]:
    """Return the versions of what the service over Apollo Server is made of, and of our Argon2id."""
    told = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    wanted = json.loads((APOLLO_SOURCE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    how = f"built with {ARGON2_BUILT.read_text(encoding='utf-8')}" if ARGON2_BUILT.exists() else "its wheel"
    ours = f"{version('argon2-cffi')}, {how}"
    return {"argon2-cffi": ours, "Node.js": told.removeprefix("v"), **wanted}


async def _token_headers(environ: Mapping[str, str], users: int) -> tuple[str, ...]:
    async with KeyManager.from_config(load_service(environ=environ)) as km:
        room = await tokens(km)
        made = [await room.create(f"user-{number}", (Scope.DEVICES_USE,)) for number in range(users)]
    return tuple(f"Authorization: Bearer {''.join(each.text)}" for each in made)


@contextmanager
def _started(
    name: str, command: Sequence[str], folder: Path, environ: Mapping[str, str], is_open: Callable[[str], bool]
) -> Iterator[int]:
    """Start a server and give its port when it is open; interrupt it at the end.

    Raises:
        RuntimeError: it ended, or did not open in time; its log is told.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("KEYSTEAD_", "PG"))}
    path = folder / f"{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**inherited, **environ}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + START_S
        while not ((told := path.read_text(encoding="utf-8")) and is_open(told) and (found := _RUNNING.search(told))):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not open:\n{told[-2000:]}")
            time.sleep(0.05)
        yield int(found[1])
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
