"""Nodes of the key service over one store: processes of ``keystead serve``, which are killed and started again.

A node is a fork that runs the command itself. Beside what it serves, a page shows what only the inside knows, and every
comparison of a secret with a hash is noted in a file, where a kill does not undo it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from keystead.access.callers import AnyScope
from keystead.cli import main as command
from keystead.config.service import load_service
from keystead.devices.hashing import Owner, SecretHash
from keystead.ledger.audit.verifying import AuditReport
from keystead.manager.access import tokens
from keystead.manager.admin import create_local_kek
from keystead.manager.manager import KeyManager
from keystead.runtime.clock import SystemClock
from keystead.server import app as server_app
from soak.harness import Child, ChildFailedError, ChildKilledError, fork, in_child, preload, wait_for
from soak.places import Place
from tests.cli.serving import free_port

INSIDE: Final = "/soak"
START_S: Final = 60.0
STOP_S: Final = 30.0
PAGE: Final = 10_000


class StandingClock(SystemClock):
    """A clock whose wall time stands still, so that no lock and no window runs out while a scenario is slow."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the one time."""
        return self._now


@dataclass
class Site:
    """A store with an audit trail, its KEK, and the environment that nodes are started with."""

    place: Place
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kek = self.place.folder / "keystead.kek"
        create_local_kek(kek)
        given = {"STORE": self.place.url, "KMS": f"local:{kek}", "AUDIT_ENABLED": "true", "CLIENT_KEYS_READY": "0"}
        # Several nodes that start at once on a busy machine take their time.
        given["INITIALIZATION_TIMEOUT"] = f"{START_S:.0f}s"
        self.environ = {f"KEYSTEAD_{name}": value for name, value in given.items()} | self.environ
        self.compared_path.touch()

    @property
    def compared_path(self) -> Path:
        """The file of comparisons: the user of each, on a line."""
        return self.place.folder / "compared"

    def compared(self) -> Counter[str]:
        """Return how often a guess was compared with a hash, by user."""
        return Counter(self.compared_path.read_text(encoding="utf-8").splitlines())

    def manager(self) -> KeyManager:
        """Return a manager with the settings of the nodes."""
        return KeyManager.from_config(load_service(environ=self.environ))

    def token(self, user: str, *scopes: AnyScope) -> str:
        """Make a token, in a process of its own."""
        return in_child(_token, self, user, scopes)

    def trail(self, *actions: str) -> tuple[AuditReport, list[dict[str, Any]]]:
        """Seal and verify the trail once no node runs; return the report and the entries of the actions."""
        return in_child(_trail, self, actions)


class Node:
    """A node, on one port for all its lives."""

    def __init__(self, site: Site, number: int, clock: SystemClock | None = None) -> None:
        self.port = free_port()
        self.clock = clock
        self.log = site.place.folder / f"node-{number}.log"
        self._site = site
        self._child: Child[None] | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process."""
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Start it, without waiting."""
        self._child = fork(_serve, self._site, self.port, self.log, self.clock)

    def wait(self) -> None:
        """Wait until it serves.

        Raises:
            ChildFailedError: it did not in time; or it ended, and its log says why.
        """
        wait_for(lambda: self._ended() or self.inside() is not None, START_S, "a node to serve")

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if (child := self._let_go()) is not None:
            child.kill()
            child.was_killed()

    def stop(self) -> None:
        """Interrupt it, and wait for its end."""
        if (child := self._let_go()) is not None:
            os.kill(child.pid, signal.SIGTERM)
            # What it was asked to end by ends it at last.
            with contextlib.suppress(ChildKilledError):
                child.result(STOP_S)

    def inside(self) -> dict[str, int] | None:
        """Return what the inside shows: ``tasks`` of the event loop, guesses ``evaluated``; None if it is silent."""
        try:
            with urllib.request.urlopen(self.url + INSIDE, timeout=5) as answer:
                shown: dict[str, int] = json.load(answer)
        except OSError:
            return None
        return shown

    def _let_go(self) -> Child[None] | None:
        child, self._child = self._child, None
        return child

    def _ended(self) -> bool:
        assert self._child is not None
        if not self._child.is_running():
            raise ChildFailedError(f"a node ended: {self.log.read_text(encoding='utf-8')[-2000:]}")
        return False


@contextlib.contextmanager
def running(site: Site, count: int, clock: SystemClock | None = None) -> Iterator[list[Node]]:
    """Run so many nodes; what still runs at the end is interrupted."""
    preload(lambda: _use(site))
    nodes = [Node(site, number, clock) for number in range(count)]
    for node in nodes:
        node.start()
    try:
        for node in nodes:
            node.wait()
        yield nodes
        for node in nodes:
            node.stop()
    except BaseException:
        for node in nodes:
            node.kill()
        raise


def _use(site: Site) -> None:
    """Serve for a moment, for the sake of what is imported, and of what the first node makes in the store."""
    os.environ |= site.environ
    settings = load_service()

    async def main() -> None:
        app = server_app.create_app(settings)
        async with app.router.lifespan_context(app):
            await app.state.opening

    by_name = (
        "argon2.low_level",
        "uvicorn.protocols.http.httptools_impl",
        "uvicorn.loops.uvloop",
        "uvicorn.lifespan.on",
    )
    for name in by_name:
        import_module(name)
    command.build_app()
    asyncio.run(main())


def _serve(site: Site, port: int, log: Path, clock: SystemClock | None) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(out, stream)
    logging.disable(logging.NOTSET)
    for name in [name for name in os.environ if name.startswith("KEYSTEAD_")]:
        del os.environ[name]
    os.environ |= site.environ
    _note_comparisons(site.compared_path)
    _show_inside(clock)
    sys.argv = ["keystead", "serve", "--port", str(port)]
    with contextlib.suppress(SystemExit):
        command.main()


def _note_comparisons(path: Path) -> None:
    """Have each comparison write a line before it is made."""
    compare, noted = SecretHash.is_of, os.open(path, os.O_WRONLY | os.O_APPEND)

    def is_of(self: SecretHash, secret: str, owner: Owner, pepper: bytes) -> bool:
        os.write(noted, f"{owner.user}\n".encode())
        return compare(self, secret, owner, pepper)

    SecretHash.is_of = is_of  # type: ignore[method-assign]  # this process is a node, and nothing else


def _show_inside(clock: SystemClock | None) -> None:
    """Have the application of this process keep to a clock, and show its inside."""
    create = server_app.create_app

    def create_app(*given: Any, **options: Any) -> FastAPI:
        app = create(*given, **{**options, "clock": clock})

        @app.get(INSIDE, include_in_schema=False)
        async def inside() -> Mapping[str, int]:
            secrets = app.state.standing.service.devices.secrets
            return {"tasks": len(asyncio.all_tasks()), "evaluated": secrets.evaluated}

        return app

    server_app.create_app = create_app


def _token(site: Site, user: str, scopes: tuple[AnyScope, ...]) -> str:
    async def main() -> str:
        async with site.manager() as km:
            return "".join((await (await tokens(km)).create(user, scopes)).text)

    return asyncio.run(main())


def _trail(site: Site, actions: tuple[str, ...]) -> tuple[AuditReport, list[dict[str, Any]]]:
    async def main() -> tuple[AuditReport, list[dict[str, Any]]]:
        found: list[dict[str, Any]] = []
        async with site.manager() as km:
            await km.audit.checkpoint(timeout_s=300)
            report = await km.audit.verify(compares_store=True)
            for action in actions:
                after = -1
                while page := await km.audit.entries(action=action, after=after, limit=PAGE):
                    found += [{"action": action, "keyring": each.keyring, **each.details} for each in page]
                    after = page[-1].seq
        return report, found

    return asyncio.run(main())
