"""What goes on in the example while somebody looks: a little use every few seconds, for an hour at most."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from keystead import fields
from keystead.cli.example.cast import KIOSK, USERS, Example, people
from keystead.cli.example.use import Guests, transit_use
from keystead.ledger.audit.actor import audit_actor
from keystead.server.service import Service

log = logging.getLogger("keystead.example")

EVERY_S: Final = 3.0
LASTS_S: Final = 3600.0
LOOK_S: Final = 1.0
"""How often it is looked whether somebody asks for a re-encryption, or lets it go on."""
ROWS_PER_S: Final = 60.0


@asynccontextmanager
async def using(service: Service, example: Example) -> AsyncIterator[None]:
    """Use the example for as long as the block runs, where this is its store."""
    known = {each.id: each.locator for each in await service.manager.fields()}
    if example.table.database.name not in known.get(example.field.id, ""):
        yield
        return
    now = _Now(service, example)
    tasks = [asyncio.create_task(each()) for each in (now.use, now.reencrypt)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class _Now:
    """What is done again and again; a step that fails, because somebody has tried something out, is left out."""

    def __init__(self, service: Service, example: Example) -> None:
        self._service = service
        self._example = example
        self._people = people()

    async def use(self) -> None:
        """Do what devices and programs do."""
        for step in range(int(LASTS_S / EVERY_S)):
            await _tried("mobile-api", self._devices)
            if step % 3 == 0:
                await _tried("checkout", lambda: transit_use(self._service))
            if step % 5 == 0:
                await _tried("shop", self._customer)
            await asyncio.sleep(EVERY_S)

    async def reencrypt(self) -> None:
        """Plan and re-encrypt when somebody asks for it or lets it go on, slowly enough to be watched."""
        while True:
            await _tried("worker of the example", self._wait)
            await asyncio.sleep(LOOK_S)

    async def _wait(self) -> None:
        km, url, field = self._service.manager, self._example.table.url, self._example.field
        rows = int(ROWS_PER_S)
        await fields.serve_wishes(km, url, field, batch_rows=rows, rows_per_s=ROWS_PER_S, poll_s=LOOK_S)

    async def _devices(self) -> None:
        # Anew each time: somebody may have revoked a device meanwhile, or given it a new pair.
        guests = Guests(self._service)
        for user in random.sample(USERS, random.choice((1, 1, 2, 3))):  # noqa: S311 - who, no secret
            await guests.send(user)
        if random.random() < 0.1:  # noqa: S311 - how often, no secret
            await guests.send(KIOSK, is_good=False)
        if random.random() < 0.2:  # noqa: S311 - how often, no secret
            await guests.verify("ada")

    async def _customer(self) -> None:
        """Change a customer's name, as the application does."""
        table = self._example.table
        await self._service.manager.load_fields(*table.fields().values())
        row, other = random.sample(range(len(self._people.rows)), 2)
        name = self._people.rows[other]["name"]
        await asyncio.to_thread(table.change, self._service.manager, row, "name", name)


async def _tried(actor: str, step: Callable[[], Awaitable[object]]) -> None:
    try:
        with audit_actor(actor):
            await step()
    except Exception as exc:
        log.info("a step of the example was left out: %s", getattr(exc, "code", type(exc).__name__))
