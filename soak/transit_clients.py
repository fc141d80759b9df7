"""Clients of Vault that others wrote, in four languages, on the machine API at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from soak.figures import Figure, Figures, Setting
from soak.harness import ChildFailedError, in_child
from tests.transit.targets.target import Target

SHORT: Final = ("python", "go")
"""The clients of a short run: those that take nothing but what the package index has."""
FULL: Final = (*SHORT, "node", "java")
SERVERS: Final = ("OpenBao", "Keystead")


class TransitClients:
    """See the module."""

    name = "transit-clients"
    claim = (
        "Applications that use HashiCorp Vault's Transit through its clients in Python, Go, JavaScript and Java make "
        "the same whole tour on Keystead as on OpenBao, unchanged and all at once."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Let every client make its tour on each server, several times over."""
        clients, rounds = setting.choose(short=(SHORT, 1), full=(FULL, 20))
        rows: list[Figure] = []
        for server in SERVERS:
            folder = setting.folder / server
            folder.mkdir()
            rows += in_child(_tours, server, folder, clients, rounds)
        return rows


def _started(server: str, folder: Path) -> AbstractContextManager[Target]:
    from tests.transit.targets.keystead import keystead_target
    from tests.transit.targets.openbao import openbao_target

    start: Callable[[Path], AbstractContextManager[Target]] = openbao_target if server == "OpenBao" else keystead_target
    return start(folder)


def _tours(server: str, folder: Path, clients: tuple[str, ...], rounds: int) -> list[Figure]:
    from tests.services.vault_clients import CLIENTS, CURE
    from tests.transit.clients.tours import STEPS, Toured, Visitor, admit

    if absent := [client for client in clients if not CLIENTS[client].is_built()]:
        raise ChildFailedError(f"not built: {', '.join(absent)}; make test builds them: {CURE}")

    def tours(visitors: list[Visitor]) -> list[Toured]:
        return [visitor.tour() for visitor in visitors]

    figures = Figures()
    with _started(server, folder) as target, ThreadPoolExecutor(len(clients)) as pool:
        target.mount()
        admitted = {client: [admit(client, target) for _ in range(rounds)] for client in clients}
        began = time.monotonic()
        running = {client: pool.submit(tours, visitors) for client, visitors in admitted.items()}
        for client, made in running.items():
            toured = made.result()
            troubles = [each for each in toured if not each.is_good]
            figures.equal(server, f"whole tours with {client}", sum(each.is_good for each in toured), rounds)
            figures.equal(server, f"what went wrong with {client}", str(troubles[0]) if troubles else "", "")
        figures.tell(server, "steps of a tour", len(STEPS))
        figures.tell(server, "seconds for all tours, which ran side by side", time.monotonic() - began)
    return figures.rows
